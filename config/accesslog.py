"""What a request is known by in the logs: its id, and a line of the access log when it ends."""

import logging
import re
import time
import uuid
from http import HTTPStatus

from django.conf import settings
from django.utils.functional import SimpleLazyObject

from config import logs

log = logging.getLogger("spyglass.access")

HEADER = "X-Request-ID"
_WELL_FORMED = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{7,63}\Z")


class RequestIdMiddleware:
    """Names the request and logs its end; the outermost middleware, so that nothing escapes it.

    An X-Request-ID of 8 to 64 letters, digits, `.`, `_` and `-` is taken over, else one is made.
    The answer carries it, whatever is logged meanwhile, and the jobs that the request asks for.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if _WELL_FORMED.match(given) else uuid.uuid4().hex
        request.request_id = request_id
        began = time.perf_counter()
        with logs.bound(request_id=request_id):
            response = self.get_response(request)
            response[HEADER] = request_id
            if settings.ACCESS_LOG:
                _log(request, response, time.perf_counter() - began)
        return response


def _log(request, response, seconds: float) -> None:
    status = response.status_code
    path = request.path.encode("unicode_escape").decode()  # no line break of a caller's making
    log.log(
        logging.ERROR if status >= HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO,
        "%s %s %d in %.1f ms",
        request.method,
        path,
        status,
        seconds * 1000,
        extra={
            "user_id": _user_id(request),
            "method": request.method,
            "path": path,
            "status": status,
            "duration_seconds": round(seconds, 6),
        },
    )


def _user_id(request) -> int | None:
    """Who asked, where somebody wanted to know; looking it up for the log would be a query more."""
    user = request.__dict__.get("user")
    if isinstance(user, SimpleLazyObject):
        user = getattr(request, "_cached_user", None)
    return getattr(user, "pk", None)
