"""Clients that end their side of a connection: what they asked for whole they get, and half a request is none.

Over TLS a close_notify ends both sides (the loop knows no half-closed TLS connection): such a client is gone.
"""

import asyncio
from typing import Any

import pytest

BOTH = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])
TLS = pytest.mark.parametrize("secured", [True], ids=["tls"])

Bench = Any
Model = Any
HEAD = b"POST /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"
LONG = 2 << 20


class Held:
    """A model's behaviour: it answers when it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def __call__(self, _: Model) -> Any:
        await self.let.wait()
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        yield b"2\r\nde\r\n0\r\n\r\n"


async def test_a_client_that_half_closes_gets_every_answer_that_it_asked_for(bench: Bench) -> None:
    held = Held()
    model = await bench.model(held)
    blue = bench.serve(model, max_queue_wait_ms=60_000)
    client = await bench.client()
    client.send(bench.score(b"1") + bench.score(b"2", key="wrong") + bench.score(b"3"))
    client.writer.write_eof()
    await model.requests_seen(1)
    held.let.set()
    answers = [await client.answer() for _ in range(3)]
    assert [(answer.status, answer.headers.get("connection")) for answer in answers] == [
        (200, None),
        (401, None),
        (200, "close"),
    ]
    assert answers[0].body == answers[2].body == b"abcde"
    assert await client.closed() == b""
    assert [request.body for request in model.requests] == [b"1", b"3"]
    await bench.until(lambda: bench.quiet and not bench.gateway.clients)
    assert blue.tally.statuses == {200: 2}


async def test_it_keeps_its_place_in_the_queue(bench: Bench) -> None:
    held = Held()
    model = await bench.model(held)
    blue = bench.serve(model, max_queue_wait_ms=60_000)
    first, second = await bench.client(), await bench.client()
    first.send(bench.score())
    await model.requests_seen(1)
    second.send(bench.score())
    second.writer.write_eof()
    await bench.until(lambda: blue.waiting)
    held.let.set()
    assert [(await client.answer()).status for client in (first, second)] == [200, 200]
    assert await second.closed() == b""


async def test_a_half_closed_connection_ends_at_the_models_deadline_at_the_latest(bench: Bench) -> None:
    blue = bench.serve(await bench.model(Held()), request_timeout_ms=100)
    client = await bench.client()
    client.send(bench.score())
    client.writer.write_eof()
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert await client.closed() == b""
    assert (blue.in_flight, blue.tally.statuses) == (0, {408: 1})


@pytest.mark.parametrize(
    "part",
    [
        b"POST /diab",
        HEAD,
        HEAD + b"Content-Length: 5\r\n\r\nab",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
        HEAD + b"Content-Length: %d\r\n\r\n" % LONG + b"x" * (LONG - 1),  # goes on as it comes
    ],
    ids=["line", "head", "body", "chunks", "long"],
)
async def test_half_a_request_is_400_and_none_for_the_model(bench: Bench, part: bytes) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    client.send(bench.score() + part)
    client.writer.write_eof()
    assert (await client.answer()).status == 200
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (400, "BadRequest", "close")
    assert await client.closed() == b""
    assert len(model.requests) == 1
    await bench.until(lambda: bench.quiet and not bench.gateway.clients)
    assert (await (await bench.client()).score()).status == 200  # the slot is free


@BOTH
async def test_an_idle_connection_is_closed_with_its_client(bench: Bench, secured: bool) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    assert (await client.score()).status == 200
    if secured:
        client.writer.close()
    else:
        client.writer.write_eof()
        assert await client.closed() == b""
    await bench.until(lambda: not bench.gateway.clients)
    assert bench.gateway.unrouted == {}


@TLS
@pytest.mark.parametrize("sent", [0, 1, LONG - 1])
async def test_over_tls_half_a_request_ends_with_its_connection(bench: Bench, sent: int) -> None:
    model = await bench.model()
    blue = bench.serve(model)
    client = await bench.client()
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % LONG + b"x" * sent)
    await bench.until(lambda: bench.gateway.upstreams)  # the model's request has begun
    client.writer.close()
    await bench.until(lambda: bench.quiet and not bench.gateway.clients)
    assert (model.requests, blue.tally.statuses) == ([], {499: 1})
    assert (await (await bench.client()).score()).status == 200


@TLS
async def test_over_tls_a_request_that_a_model_has_keeps_its_slot_until_the_answer(bench: Bench) -> None:
    held = Held()
    model = await bench.model(held)
    blue = bench.serve(model, max_queue_wait_ms=60_000)
    client = await bench.client()
    client.send(bench.score(b"1") + bench.score(b"2"))
    await model.requests_seen(1)
    client.writer.close()
    await bench.until(lambda: not bench.gateway.clients)
    assert (blue.running, len(blue.waiting)) == (1, 0)
    held.let.set()
    await bench.until(lambda: bench.quiet)
    assert (blue.tally.statuses, [request.body for request in model.requests]) == ({499: 1}, [b"1"])
