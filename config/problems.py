"""Errors as `application/problem+json` (RFC 9457), wherever under /api/ they arise."""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

from django.conf import settings
from django.core.exceptions import PermissionDenied, RequestDataTooBig, SuspiciousOperation
from django.db import InterfaceError, OperationalError
from django.http import Http404, HttpResponse
from django.views import defaults
from drf_spectacular.utils import OpenApiResponse
from rest_framework import exceptions, serializers
from rest_framework.response import Response
from rest_framework.views import set_rollback

from config import logs
from config.rendering import dumps

log = logging.getLogger("spyglass.problems")

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_OUTAGE = 5  # seconds


class Problem(Exception):
    """An error answer. Raise it anywhere in a request under /api/.

    `members` are extension members of the document; `headers` are sent along with it.
    """

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        *,
        headers: dict[str, str] | None = None,
        **members: Any,
    ) -> None:
        super().__init__(detail or title)
        self.status = status
        self.title = title or HTTPStatus(status).phrase
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def document(self) -> dict[str, Any]:
        """The problem document; `type` is about:blank, so `title` says the kind of problem."""
        document = {"type": "about:blank", "title": self.title, "status": self.status}
        if self.detail:
            document["detail"] = self.detail
        if request_id := logs.request_id():
            document["request_id"] = request_id
        return document | self.members

    def response(self) -> HttpResponse:
        """The answer, for code outside DRF."""
        response = HttpResponse(
            dumps(self.document()),
            status=self.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )
        response["Cache-Control"] = "no-store"
        return response


def invalid(**reasons: str) -> Problem:
    """A 400 that names each wrong parameter: `raise invalid(page="Must be 1 or more.")`."""
    return invalid_fields({"name": name, "reason": reason} for name, reason in reasons.items())


def invalid_fields(errors: Iterable[dict[str, str]]) -> Problem:
    """The same from `{"name": …, "reason": …}` entries."""
    errors = list(errors)
    names = ", ".join(dict.fromkeys(error["name"] for error in errors))
    return Problem(400, "Invalid request", f"Not valid: {names}.", errors=errors)


def unavailable() -> Problem:
    """A 503 for a database that cannot be reached or did not answer in time."""
    return Problem(
        503,
        detail="The database is not available right now; try again in a moment.",
        headers={"Retry-After": str(RETRY_AFTER_OUTAGE)},
    )


def exception_handler(error: Exception, _context: dict) -> Response | None:
    """DRF's hook. None lets Django treat the exception as unhandled (a logged 500)."""
    problem = to_problem(error)
    if problem is None:
        return None
    set_rollback()
    headers = {**problem.headers, "Cache-Control": "no-store"}
    return Response(
        problem.document(), status=problem.status, headers=headers, content_type=CONTENT_TYPE
    )


def to_problem(error: Exception) -> Problem | None:
    """The problem that an exception stands for, or None where it is a fault of ours."""
    match error:
        case Problem():
            return error
        case exceptions.ValidationError():
            return invalid_fields(flatten(error.detail))
        case exceptions.Throttled():
            seconds = str(max(1, round(error.wait or 1)))
            return Problem(
                429,
                detail=f"Too many requests; try again in {seconds} s.",
                headers={"Retry-After": seconds},
            )
        case exceptions.APIException():
            challenge = getattr(error, "auth_header", None)
            return Problem(
                error.status_code,
                detail=str(error.detail),
                headers={"WWW-Authenticate": challenge} if challenge else None,
            )
        case Http404():
            return Problem(404, detail="Nothing is at this address.")
        case PermissionDenied():
            return Problem(403, detail="This is not allowed.")
        case RequestDataTooBig():
            return too_large()
        case SuspiciousOperation():
            return Problem(400, detail="The request is malformed.")
        case OperationalError() | InterfaceError():
            log.error("Database unavailable: %s", error)
            return unavailable()
    return None


def too_large() -> Problem:
    """A 413 that says the limit."""
    limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    return Problem(413, detail=f"The body may be {limit:,} bytes at most.", limit=limit)


def flatten(detail: Any, name: str = "") -> list[dict[str, str]]:
    """DRF's nested error detail as `{"name": "rows.3.price", "reason": …}` entries."""
    if isinstance(detail, dict):
        parts = detail.items()
    elif isinstance(detail, list) and any(isinstance(part, dict | list) for part in detail):
        parts = enumerate(detail)
    else:
        reasons = detail if isinstance(detail, list) else [detail]
        return [{"name": name or "body", "reason": str(reason)} for reason in reasons]
    errors = []
    for key, part in parts:
        inner = name if key == "non_field_errors" else f"{name}.{key}".lstrip(".")
        errors += flatten(part, inner)
    return errors


class GuardMiddleware:
    """Refuses requests that nothing behind it could read, and translates what views raise.

    NUL bytes and broken UTF-8 in path or query, an unreadable or too large Content-Length, and a
    body without one or compressed, end here as problems, whatever view they were meant for.
    """

    def __init__(self, get_response):
        self.get_response = get_response

    def __call__(self, request):
        problem = self.objection(request)
        response = problem.response() if problem else self.get_response(request)
        usage = getattr(request, "rate_usage", None)
        if usage is not None:
            for name, value in usage.headers().items():
                response[name] = value
        return response

    def objection(self, request) -> Problem | None:
        """Why the request cannot be served, or None."""
        meta = request.META
        query = meta.get("QUERY_STRING", "")
        if "\0" in request.path_info:
            return Problem(400, detail="The path contains a NUL byte.")
        if ("%" in query or not query.isascii()) and (problem := self._query_objection(query)):
            return problem
        length = meta.get("CONTENT_LENGTH")
        if length and not (length.isascii() and length.isdigit()):
            return Problem(400, detail="Content-Length is not a number.")
        if not length and "HTTP_TRANSFER_ENCODING" in meta:  # WSGI would show an empty body
            return Problem(411, detail="Send the body with a Content-Length, not in chunks.")
        if meta.get("HTTP_CONTENT_ENCODING", "identity").lower() != "identity":
            return Problem(415, detail="Send the body as it is, without Content-Encoding.")
        if (
            length
            and request.path_info.startswith("/api/")
            and int(length[:20]) > settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        ):
            return too_large()
        return None

    @staticmethod
    def _query_objection(query: str) -> Problem | None:
        # WSGI hands bytes over as latin-1 text.
        raw = unquote_to_bytes(query.encode("latin-1", "replace"))
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return Problem(400, detail="The query string is not UTF-8.")
        if b"\0" not in raw:
            return None
        guilty = (part.partition("=") for part in query.split("&") if "%00" in part)
        names = [unquote_to_bytes(name).decode("utf-8", "replace") for name, _, _ in guilty]
        reason = "Contains a NUL byte."
        return invalid_fields(
            {"name": name.replace("\0", ""), "reason": reason} for name in names or ["query"]
        )

    def process_exception(self, request, error: Exception) -> HttpResponse | None:
        """Problems and outages in views that are not DRF's."""
        if isinstance(error, Problem) or _wants_problem(request):
            problem = to_problem(error)
            return problem.response() if problem else None
        return None


def _wants_problem(request) -> bool:
    return request.path_info.startswith(("/api/", "/health/", "/metrics"))


def handler400(request, exception=None):
    """Django's hook for malformed requests (bad Host, too many fields)."""
    if not _wants_problem(request):
        return defaults.bad_request(request, exception)
    return (to_problem(exception) or Problem(400, detail="The request is malformed.")).response()


def handler403(request, exception=None):
    """Django's hook for PermissionDenied outside DRF."""
    if not _wants_problem(request):
        return defaults.permission_denied(request, exception)
    return Problem(403, detail="This is not allowed.").response()


def handler404(request, exception=None):
    """Django's hook for addresses that no pattern matches."""
    if not _wants_problem(request):
        return defaults.page_not_found(request, exception)
    return Problem(404, detail="Nothing is at this address.").response()


def handler500(request):
    """Django's hook for faults of ours; what happened is in the log, not in the answer."""
    if not _wants_problem(request):
        return defaults.server_error(request)
    return Problem(500, detail="Something went wrong here; it has been logged.").response()


class FieldErrorSerializer(serializers.Serializer):
    """One wrong parameter or field."""

    name = serializers.CharField(help_text="The parameter or field, dotted where nested.")
    reason = serializers.CharField()


class ProblemSerializer(serializers.Serializer):
    """The problem document in the OpenAPI schema (component `Problem`)."""

    type = serializers.CharField(help_text="about:blank: `title` says the kind of problem.")
    title = serializers.CharField()
    status = serializers.IntegerField()
    detail = serializers.CharField(required=False)
    request_id = serializers.CharField(
        required=False, help_text="As in X-Request-ID: what the log knows the request by."
    )
    errors = FieldErrorSerializer(many=True, required=False)


def responses(*statuses: int) -> dict:
    """Problem answers for `extend_schema(responses={200: …, **problems.responses(400, 404)})`.

    429 and 503, which every view can give, are always among them.
    """
    return {
        (status, CONTENT_TYPE): OpenApiResponse(ProblemSerializer, HTTPStatus(status).phrase)
        for status in sorted({*statuses, 429, 503})
    }
