"""The OpenAPI document, and its pages (Swagger UI, Redoc) from local files."""

from csp.decorators import csp_update
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.plumbing import build_bearer_security_scheme_object
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.permissions import AllowAny


class TokenScheme(OpenApiAuthenticationExtension):
    """How the token scheme reads in the OpenAPI document."""

    target_class = "config.tokens.TokenAuthentication"
    name = "tokenAuth"

    def get_security_definition(self, auto_schema):
        return build_bearer_security_scheme_object(
            header_name="HTTP_AUTHORIZATION",
            token_prefix="Token",
        )


class SchemaView(SpectacularAPIView):
    """The OpenAPI document. Built anew for each request; the throttles apply."""

    permission_classes = [AllowAny]


class _SwaggerView(SpectacularSwaggerSplitView):
    url_name = "api-schema"
    permission_classes = [AllowAny]


class _RedocView(SpectacularRedocView):
    url_name = "api-schema"
    permission_classes = [AllowAny]
    template_name = "config/redoc.html"


docs = _SwaggerView.as_view()
# Redoc indexes the schema for its search box in a worker made from a blob.
redoc = csp_update({"worker-src": ["'self'", "blob:"]})(_RedocView.as_view())
