"""Callers of the API."""

import json

from django.contrib.auth import get_user_model
from rest_framework.test import APIClient

from config.tokens import issue_token


class Person(APIClient):
    """A user who calls the API with a token."""

    def __init__(self, name: str, scopes: list[str]) -> None:
        super().__init__()
        self.user = get_user_model().objects.create_user(name)
        secret = issue_token(user=self.user, name="", scopes=scopes, lifetime=None)[1]
        self.credentials(HTTP_AUTHORIZATION=f"Token {secret}")

    def send(self, path: str, body=None, *, method: str = "POST", **headers: str):
        """A request with a body: as JSON, or as it is where it is bytes."""
        data = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        return self.generic(
            method, f"/api/v1/{path}", data, content_type="application/json", headers=headers
        )

    def read(self, path: str, **headers: str):
        """A request without one."""
        return self.get(f"/api/v1/{path}", headers=headers)
