"""Traces of requests, statements and jobs, sent to an OpenTelemetry collector where one is named.

Off unless OTEL_EXPORTER_OTLP_ENDPOINT is set: then nothing of it is imported here. Its packages are
in requirements-otel.txt. Sampling and the rest follow the variables that OpenTelemetry defines
(OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES …).
"""

import os
from contextlib import AbstractContextManager, nullcontext

from django.core.exceptions import ImproperlyConfigured

from config import logs

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
# A span that was given the address of a request: its query may hold what is nobody's business.
_WITH_QUERY = ("http.url", "http.target", "url.full")

_tracer = None


def start() -> None:
    """Trace this process from now on, where an endpoint is named. Called once, when Django starts.

    The batches survive a fork: the SDK gives each child a sender of its own.
    Raises ImproperlyConfigured without the packages.
    """
    global _tracer  # noqa: PLW0603 - of the process, like the SDK's own
    if not os.environ.get(ENDPOINT) or _tracer is not None:
        return
    os.environ.setdefault("OTEL_SERVICE_NAME", "spyglass")
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.django import DjangoInstrumentor
        from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ImproperlyConfigured(
            f"{ENDPOINT} is set, but {error.name} is not installed: "
            "pip install -r requirements-otel.txt, or unset it."
        ) from error
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    DjangoInstrumentor().instrument(
        request_hook=_hide_query,
        response_hook=_name_request,
        middleware_position=1,  # inside config.accesslog, which names what this one refuses
    )
    PsycopgInstrumentor().instrument()
    _tracer = trace.get_tracer("spyglass")


def span(name: str, **attributes: str | int) -> AbstractContextManager:
    """A span around a block of work; nothing where no traces are sent."""
    if _tracer is None:
        return nullcontext()
    if request_id := logs.request_id():
        attributes["request_id"] = request_id
    found = {f"spyglass.{key}": value for key, value in attributes.items()}
    return _tracer.start_as_current_span(name, attributes=found)


def _hide_query(span, request) -> None:
    for name in _WITH_QUERY:
        value = (span.attributes or {}).get(name) if span.is_recording() else None
        if value:
            span.set_attribute(name, str(value).partition("?")[0])
    if span.is_recording() and "url.query" in (span.attributes or {}):
        span.set_attribute("url.query", "")


def _name_request(span, request, response) -> None:
    """The id by which the log knows the request, too."""
    if span.is_recording() and hasattr(request, "request_id"):
        span.set_attribute("spyglass.request_id", request.request_id)
