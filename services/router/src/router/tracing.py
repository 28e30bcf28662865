"""Traces that go through the router (W3C Trace Context): a span for each request, where traces are collected at all
(OTEL_EXPORTER_OTLP_ENDPOINT). Where they are not, a client's `traceparent` reaches the model as it is.
"""

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from router.headers import RequestHead

_NAME = "traceparent"
_FAILED = 500


class Tracing:
    """Begins and ends the spans. Which are kept is the sampler's choice (OTEL_TRACES_SAMPLER), or the client's."""

    def __init__(self) -> None:
        self._tracer = trace.get_tracer("router")
        self._propagator = TraceContextTextMapPropagator()

    def begin(self, head: RequestHead) -> trace.Span:
        """A span below the client's, or a trace of its own; the model's request is told to go on below it."""
        given = head.lines[head.trace].strip().decode("latin-1") if head.trace is not None else ""
        span = self._tracer.start_span(
            head.method.decode("latin-1"),
            context=self._propagator.extract({_NAME: given}, context=Context()),
            kind=trace.SpanKind.SERVER,
            attributes={
                "http.request.method": head.method.decode("latin-1"),
                "url.path": head.path.partition(b"?")[0].decode("latin-1"),
                "endpunkt.endpoint": head.name.decode("latin-1"),
            },
        )
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, context=trace.set_span_in_context(span, Context()))
        if _NAME in carrier:
            value = carrier[_NAME].encode()
            if head.trace is not None:
                head.lines[head.trace] = value
            else:
                head.lines += (_NAME.encode(), b": ", value, b"\r\n")
        return span

    @staticmethod
    def end(span: trace.Span, status: int, deployment: str | None, request_id: bytes) -> None:
        """The request has ended with `status`."""
        span.set_attribute("http.response.status_code", status)
        span.set_attribute("endpunkt.request_id", request_id.decode())
        if deployment is not None:
            span.set_attribute("endpunkt.deployment", deployment)
        if status >= _FAILED:
            span.set_status(trace.StatusCode.ERROR)
        span.end()
