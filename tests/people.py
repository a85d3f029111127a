"""Callers of the API, and staff in the admin."""

import json

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from rest_framework.test import APIClient

from config.tokens import issue_token


class Person(APIClient):
    """A user who calls the API with a token, whose text is `secret`."""

    def __init__(self, name: str, scopes: list[str]) -> None:
        super().__init__()
        self.user = get_user_model().objects.create_user(name)
        self.secret = token(self.user, *scopes)
        self.credentials(HTTP_AUTHORIZATION=f"Token {self.secret}")

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


def token(user, *scopes: str) -> str:
    """The text of a new token."""
    return issue_token(user=user, scopes=list(scopes), lifetime=None)[1]


def staff(*permissions: str, name: str = "eve") -> Client:
    """A browser in which somebody is logged in who is staff and may do what is named."""
    user = get_user_model().objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    return client


def page(client: Client, url: str) -> str:
    """The text of a page that is there."""
    response = client.get(url)
    assert response.status_code == 200, response
    return response.content.decode()
