"""Sends OpenTelemetry traces; needs the extra `otel` and an endpoint.

OpenTelemetry's own variables set the endpoint, such as `OTEL_EXPORTER_OTLP_ENDPOINT`. Without an
endpoint nothing is traced.
"""

import logging
import os

from flask import Flask

log = logging.getLogger(__name__)

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
# Regular expressions, separated by a comma, that OpenTelemetry searches in the whole URL.
_NOT_TRACED = r"^[^?]*/(healthz|readyz|metrics)(\?|$),^[^?]*/dashboard/static/"


def is_enabled() -> bool:
    """Whether the environment sets an endpoint for traces."""
    return any(os.environ.get(name) for name in _ENDPOINTS)


def instrument(app: Flask) -> None:
    """Record spans of requests and database commands; call this after a fork: it starts a thread.

    Does nothing without an endpoint.
    """
    if not is_enabled():
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.instrumentation.flask import FlaskInstrumentor  # noqa: PLC0415
        from opentelemetry.instrumentation.pymongo import PymongoInstrumentor  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError:
        log.warning("no traces: OpenTelemetry is missing: pip install 'mongo-jobmon[otel]'")
        return
    name = os.environ.get("OTEL_SERVICE_NAME", "jobmon")
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    PymongoInstrumentor().instrument()  # records the names of commands, without their values
    FlaskInstrumentor().instrument_app(  # type: ignore[no-untyped-call]
        app, excluded_urls=_NOT_TRACED
    )


def current_span_ids() -> dict[str, str]:
    """`trace_id` and `span_id` of the current span, for the log; empty without a span."""
    try:
        from opentelemetry import trace  # noqa: PLC0415 - an extra
    except ImportError:
        return {}
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }
