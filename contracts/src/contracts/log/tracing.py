"""The W3C trace context across the bus: written from the current span, continued by the reader."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from contracts.envelope import Record

_propagator = TraceContextTextMapPropagator()
_tracer = trace.get_tracer("contracts.log")


def current_traceparent() -> str | None:
    """The current span as a `traceparent` header; None outside of any."""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent")


@contextmanager
def continued(record: Record, service: str) -> Iterator[None]:
    """A span for handling `record`, a child of the one that wrote it."""
    context = _propagator.extract(dict(record.headers))
    with _tracer.start_as_current_span(
        f"{service} {record.headers.get('ce_type', record.topic)}",
        context=context,
        kind=trace.SpanKind.CONSUMER,
        attributes={"messaging.system": "kafka", "messaging.destination.name": record.topic},
    ):
        yield
