"""How this project's tokens, permissions and idempotency keys read in the OpenAPI document."""

from typing import Any

from django.conf import settings
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from drf_spectacular.utils import OpenApiParameter
from rest_framework.permissions import SAFE_METHODS

from config.idempotency import HEADER
from config.tokens import PublicRead

IDEMPOTENCY_KEY = OpenApiParameter(
    HEADER,
    str,
    OpenApiParameter.HEADER,
    description="1 to 255 visible ASCII characters. Sent again within 24 hours, the request is"
    " answered as it was the first time.",
)


def in_path(name: str, description: str, kind: type = int) -> OpenApiParameter:
    """A part of an address."""
    return OpenApiParameter(name, kind, OpenApiParameter.PATH, description=description)


class TokenScheme(OpenApiAuthenticationExtension):
    """How the token scheme reads in the OpenAPI document."""

    target_class = "config.tokens.TokenAuthentication"
    name = "tokenAuth"

    def get_security_definition(self, auto_schema):
        return build_bearer_security_scheme_object(
            header_name="HTTP_AUTHORIZATION",
            token_prefix="Token",
        )


class Schema(AutoSchema):
    """drf-spectacular's, which cannot know that `PublicRead` makes the token optional."""

    def get_auth(self) -> list[dict[str, list[str]]]:
        auth = super().get_auth()
        is_public = settings.API_PUBLIC_READS and self.method in SAFE_METHODS
        if is_public and any(isinstance(one, PublicRead) for one in self.view.get_permissions()):
            auth = [*auth, {}]
        return auth

    def get_extensions(self) -> dict[str, Any]:
        """The scopes that a token needs, as `x-scopes`: OpenAPI 3.0 has no place for them."""
        needed = [getattr(one, "needs", None) for one in self.view.get_permissions()]
        scopes = [scope for scope in needed if scope]
        return super().get_extensions() | ({"x-scopes": scopes} if scopes else {})
