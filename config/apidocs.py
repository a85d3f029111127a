"""The OpenAPI document, and its pages (Swagger UI, Redoc) from local files."""

from csp.constants import SELF
from csp.decorators import csp_replace
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularRedocView,
    SpectacularSwaggerSplitView,
)
from rest_framework.permissions import AllowAny


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


# Tighter than the site's policy, which the admin needs; Redoc indexes the schema for its search
# box in a worker made from a blob, and would load its logo from elsewhere.
_POLICY = {
    "script-src": [SELF],
    "img-src": [SELF, "data:"],
    "worker-src": [SELF, "blob:"],
}
docs = csp_replace(_POLICY)(_SwaggerView.as_view())
redoc = csp_replace(_POLICY)(_RedocView.as_view())
