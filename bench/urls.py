"""The project's addresses, and the smallest possible Django view."""

from django.http import HttpResponse
from django.urls import include, path

BODY = b'{"status":"ok"}'


def smallest(request) -> HttpResponse:
    """No query, no cache, no rendering: what server, Django and middleware cost."""
    return HttpResponse(BODY, content_type="application/json")


urlpatterns = [path("bench/smallest", smallest), path("", include("config.urls"))]
