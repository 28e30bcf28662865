"""A graceful stop: what has come is answered, nobody new is let in, and it ends."""

import asyncio
from typing import Any

import pytest

from .test_router_exchange import Gate

BOTH = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])

Bench = Any
Model = Any


@BOTH
async def test_draining_finishes_what_runs_and_closes_what_is_idle(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    bench.serve(model)
    idle, busy = await bench.client(), await bench.client()
    assert (await idle.score(key="wrong")).status == 401
    busy.send(bench.score())
    await model.requests_seen(1)
    draining = asyncio.create_task(bench.listener.drain(5))
    assert await idle.closed() == b""
    with pytest.raises(ConnectionError):  # nobody new
        await bench.client()
    assert not draining.done()
    gate.opened.set()
    answer = await busy.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    await draining
    assert bench.gateway.clients == set()


@BOTH
async def test_draining_finishes_every_request_that_has_come_whole(bench: Bench) -> None:
    """Also those behind it on its connection; the last one says that it closes, and nothing after it is read."""
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model)
    client = await bench.client()
    client.send(bench.score(b"1") + bench.score(b"2", key="wrong") + bench.score(b"3"))
    await model.requests_seen(1)
    (connection,) = bench.gateway.clients
    await bench.until(lambda: len(connection._queue) == 2)
    draining = asyncio.create_task(bench.listener.drain(5))
    await bench.until(lambda: bench.gateway.draining)
    client.send(bench.score(b"4"))
    gate.opened.set()
    answers = [await client.answer() for _ in range(3)]
    assert [(answer.status, answer.headers.get("connection")) for answer in answers] == [
        (200, None),
        (401, None),
        (200, "close"),
    ]
    assert await client.closed() == b""
    await draining
    assert [request.body for request in model.requests] == [b"1", b"3"]
    assert (bench.quiet, bench.gateway.clients, blue.tally.statuses) == (True, set(), {200: 2})


@BOTH
@pytest.mark.parametrize("cut", [10, 100, -1])
async def test_draining_finishes_a_request_that_is_coming_in(bench: Bench, cut: int) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    data = bench.score(b"x" * 10_000)
    client.send(bench.score() + data[:cut])
    assert (await client.answer()).status == 200
    (connection,) = bench.gateway.clients
    await bench.until(connection._mid_request)
    draining = asyncio.create_task(bench.listener.drain(5))
    await bench.until(lambda: bench.gateway.draining)
    client.send(data[cut:] + bench.score())
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.closed() == b""
    await draining
    assert [len(request.body) for request in model.requests] == [2, 10_000]


async def test_draining_waits_as_long_as_a_request_under_way_may_take(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model, request_timeout_ms=10_000)
    client = await bench.client()
    client.send(bench.score())
    await model.requests_seen(1)
    draining = asyncio.create_task(bench.listener.drain(0.0))
    await bench.until(lambda: bench.gateway.draining)
    gate.opened.set()
    assert (await client.answer()).status == 200
    await draining
    assert (bench.quiet, blue.tally.statuses) == (True, {200: 1})


@BOTH
async def test_draining_ends_after_its_time(bench: Bench) -> None:
    """Its time is at least what one request may take; a stream without end has it, and no more."""

    async def endless(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\na\r\n"
            await asyncio.sleep(0.01)

    model = await bench.model(endless)
    blue = bench.serve(model, request_timeout_ms=100)
    client = await bench.client()
    client.send(bench.score())
    await client.reader.readuntil(b"\r\n\r\n")
    await bench.listener.drain(0.01)
    assert not (await client.closed()).endswith(b"0\r\n\r\n")
    assert (bench.gateway.clients, blue.in_flight) == (set(), 0)
