"""Addresses. Each domain brings its own `api/urls.py`, found through the app registry."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from django.apps import apps
from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from config import apidocs, health, logins, metrics


def domain_patterns() -> list:
    """The URL patterns of every domain app (an app of this project) that has `api/urls.py`."""
    patterns = []
    for app in apps.get_app_configs():
        if Path(app.path).parent != settings.BASE_DIR or find_spec(f"{app.name}.api") is None:
            continue
        if find_spec(f"{app.name}.api.urls") is not None:
            patterns += import_module(f"{app.name}.api.urls").urlpatterns
    return patterns


urlpatterns = [
    path("", RedirectView.as_view(pattern_name="api-docs")),
    path("admin/login/", logins.login),
    path("admin/", admin.site.urls),
    path("api/v1/", include(domain_patterns())),
    path("api/schema", apidocs.SchemaView.as_view(), name="api-schema"),
    path("api/docs", apidocs.docs, name="api-docs"),
    path("api/redoc", apidocs.redoc, name="api-redoc"),
    path("metrics", metrics.view, name="metrics"),
    path("health/live", health.live, name="health-live"),
    path("health/ready", health.ready, name="health-ready"),
]

handler400 = "config.problems.handler400"
handler403 = "config.problems.handler403"
handler404 = "config.problems.handler404"
handler500 = "config.problems.handler500"
