"""A trace goes on through the router: the client's span, the router's, the model's."""

from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from router.tracing import Tracing

Bench = Any
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def spans(bench: Bench) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = Tracing()
    tracing._tracer = provider.get_tracer("router")
    bench.gateway.tracing = tracing
    return exporter


async def test_a_clients_trace_is_continued(bench: Bench, spans: InMemorySpanExporter) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    answer = await client.score(b"{}", f"traceparent: 00-{TRACE}-{SPAN}-01", "tracestate: a=b")
    (span,) = spans.get_finished_spans()
    assert span.parent is not None
    assert span.context is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, SPAN)
    (request,) = model.requests
    assert request.header("traceparent") == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert request.header("tracestate") == "a=b"
    assert span.attributes == {
        "http.request.method": "POST",
        "url.path": "/score",
        "endpunkt.endpoint": "diabetes",
        "endpunkt.deployment": "blue",
        "endpunkt.request_id": answer.headers["x-request-id"],
        "http.response.status_code": 200,
    }


async def test_a_trace_begins_here_where_there_is_none_or_a_bad_one(bench: Bench, spans: InMemorySpanExporter) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    await client.score()
    await client.score(b"{}", "traceparent: nonsense")
    first, second = spans.get_finished_spans()
    assert (first.parent, second.parent) == (None, None)
    for span, request in zip((first, second), model.requests, strict=True):
        assert span.context is not None
        told = request.header("traceparent")
        assert told is not None
        assert told.startswith(f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-")
        assert int(told[-2:], 16) & 1  # it is kept


async def test_what_the_client_does_not_want_kept_is_not(bench: Bench, spans: InMemorySpanExporter) -> None:
    model = await bench.model()
    bench.serve(model)
    await (await bench.client()).score(b"{}", f"traceparent: 00-{TRACE}-{SPAN}-00")
    assert spans.get_finished_spans() == ()
    told = model.requests[0].header("traceparent")
    assert told is not None
    assert (told.split("-")[1], told.split("-")[3]) == (TRACE, "00")


async def test_refusals_are_seen_too(bench: Bench, spans: InMemorySpanExporter) -> None:
    bench.serve(await bench.model(b"nonsense\r\n\r\n"))
    client = await bench.client()
    assert (await client.score(key="wrong")).status == 401
    assert (await client.score()).status == 502
    refused, failed = spans.get_finished_spans()
    assert refused.attributes is not None
    assert (refused.attributes["http.response.status_code"], refused.status.is_ok) == (401, True)
    assert failed.status.is_ok is False


async def test_without_a_collector_it_passes_as_it_is(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    await (await bench.client()).score(b"{}", f"traceparent: 00-{TRACE}-{SPAN}-01")
    assert model.requests[0].header("traceparent") == f"00-{TRACE}-{SPAN}-01"
