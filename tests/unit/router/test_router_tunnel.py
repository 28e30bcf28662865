"""A connection that switches to another protocol: bytes both ways, bounded, and what ends it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from router.tunnel import IDLE_SECONDS

pytestmark = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])

Bench = Any
ASK = (
    b"GET /diabetes/talk HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"
    b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"
)
AGREED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: a\r\n\r\n"
)


class Talker:
    """A model whose connection the test holds."""

    def __init__(self, reply: bytes = AGREED):
        self.reply = reply
        self.head = b""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.came = asyncio.Event()

    async def start(self) -> str:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"127.0.0.1:{self.server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = await reader.readuntil(b"\r\n\r\n")
        self.came.set()
        writer.write(self.reply)


@pytest.fixture
async def talker(bench: Bench) -> AsyncIterator[Talker]:
    model = Talker()
    publish(bench, await model.start())
    yield model
    model.server.close()
    if model.came.is_set():
        model.writer.transport.abort()


def publish(bench: Bench, address: str) -> None:
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment(request_timeout_ms=300)}, {"blue": 100}),
        bench.documents.observed({"blue": {"i1": address}}),
    )


def blue(bench: Bench) -> Any:
    return bench.gateway.table.deployments["diabetes", "blue"]


async def test_bytes_pass_both_ways_until_the_model_hangs_up(bench: Bench, talker: Talker) -> None:
    client = await bench.client()
    client.send(ASK + b"early")
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    for line in (b"upgrade: websocket", b"connection: Upgrade", b"Sec-WebSocket-Accept: a", b"x-request-id: "):
        assert head.count(line) == 1
    assert talker.head.lower().count(b"\r\nupgrade: websocket\r\n") == 1
    assert talker.head.lower().count(b"\r\nconnection: upgrade\r\n") == 1
    assert b"the-primary-key" not in talker.head
    assert await talker.reader.readexactly(5) == b"early"
    assert not any(queue._due for queue in bench.gateway.request_deadlines.values())  # it may last
    client.send(b"\x00ping\r\n\r\n")
    assert await talker.reader.readexactly(9) == b"\x00ping\r\n\r\n"
    talker.writer.write(b"GET / pong")
    assert await client.reader.readexactly(10) == b"GET / pong"
    assert blue(bench).in_flight == 1
    talker.writer.write(b"bye")
    talker.writer.close()
    assert await client.closed() == b"bye"
    assert (blue(bench).in_flight, blue(bench).tally.statuses[101], blue(bench).tally.handed) == (0, 1, 1)


async def test_a_client_that_hangs_up_ends_it(bench: Bench, talker: Talker) -> None:
    client = await bench.client()
    client.send(ASK)
    await client.reader.readuntil(b"\r\n\r\n")
    client.send(b"bye")
    client.writer.close()
    async with asyncio.timeout(10):
        assert await talker.reader.read() == b"bye"
    await bench.until(lambda: blue(bench).tally.statuses[101] == 1)
    assert blue(bench).in_flight == 0


async def test_neither_side_is_read_faster_than_the_other_takes_it(bench: Bench, talker: Talker) -> None:
    client = await bench.client()
    client.send(ASK)
    await client.reader.readuntil(b"\r\n\r\n")
    (connection,) = bench.gateway.clients
    piece, size = bytes(1 << 20), 64 << 20
    for _ in range(size >> 20):
        client.send(piece)
    await bench.until(lambda: connection._held)
    for _ in range(size >> 20):
        assert await talker.reader.readexactly(1 << 20) == piece
    for _ in range(size >> 20):
        talker.writer.write(piece)
    await bench.until(lambda: connection._choked)
    for _ in range(size >> 20):
        assert await client.reader.readexactly(1 << 20) == piece


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno", 424),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", 200),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", 502),
    ],
)
async def test_a_model_that_does_not_agree(bench: Bench, reply: bytes, status: int) -> None:
    model = Talker(reply)
    publish(bench, await model.start())
    client = await bench.client()
    client.send(ASK + b"early")
    answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (status, "close")
    assert await client.closed() == b""
    model.server.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        ASK.replace(b"WebSocket", b"h2c"),
        ASK.replace(b"GET", b"POST"),
        ASK.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    ],
)
async def test_no_other_protocol_is_passed_on(bench: Bench, talker: Talker, request_bytes: bytes) -> None:
    client = await bench.client()
    client.send(request_bytes)
    answer = await client.answer()
    assert (answer.status, answer.code) == (501, "NotImplemented")
    assert not talker.came.is_set()


async def test_an_answer_of_101_that_nobody_asked_for(bench: Bench, talker: Talker) -> None:
    client = await bench.client()
    assert (await client.score()).status == 502


async def test_a_tunnel_that_both_sides_leave_silent_is_closed(
    bench: Bench, talker: Talker, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await bench.client()
    client.send(ASK)
    await client.reader.readuntil(b"\r\n\r\n")
    (upstream,) = bench.gateway.upstreams
    bench.listener._timer.cancel()  # its sweeps are of another time than these
    now = bench.gateway.loop.time()
    upstream.tunnel.sweep(now)
    upstream.tunnel.sweep(now + IDLE_SECONDS - 1)
    client.send(b"ping")
    assert await talker.reader.readexactly(4) == b"ping"
    upstream.tunnel.sweep(now + IDLE_SECONDS + 10)  # something has passed since
    talker.writer.write(b"pong")
    assert await client.reader.readexactly(4) == b"pong"
    upstream.tunnel.sweep(now + IDLE_SECONDS + 20)
    upstream.tunnel.sweep(now + 2 * IDLE_SECONDS + 19)
    assert blue(bench).in_flight == 1
    monkeypatch.setattr("router.tunnel.IDLE_SECONDS", -1e9)
    bench.listener._sweep()
    assert await client.closed() == b""
    async with asyncio.timeout(10):
        assert await talker.reader.read() == b""
    await bench.until(lambda: not bench.gateway.clients and not bench.gateway.upstreams)
    assert (blue(bench).in_flight, blue(bench).tally.statuses) == (0, {101: 1})


async def test_a_drain_gives_a_tunnel_its_time_and_then_cuts_it(bench: Bench, talker: Talker) -> None:
    client, idle = await bench.client(), await bench.client()
    assert (await idle.score(key="wrong")).status == 401
    client.send(ASK)
    await client.reader.readuntil(b"\r\n\r\n")
    draining = asyncio.create_task(bench.listener.drain(0.5))
    assert await idle.closed() == b""
    client.send(b"ping")
    assert await talker.reader.readexactly(4) == b"ping"
    talker.writer.write(b"pong")
    assert await client.reader.readexactly(4) == b"pong"
    await draining
    assert await client.closed() == b""
    async with asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):
            assert await talker.reader.read() == b""
    await bench.until(lambda: not bench.gateway.clients and not bench.gateway.upstreams)
    assert (blue(bench).in_flight, blue(bench).tally.statuses) == (0, {101: 1})


async def test_a_drain_is_over_when_the_last_tunnel_is(bench: Bench, talker: Talker) -> None:
    client = await bench.client()
    client.send(ASK)
    await client.reader.readuntil(b"\r\n\r\n")
    draining = asyncio.create_task(bench.listener.drain(60))
    await bench.until(lambda: bench.gateway.draining)
    talker.writer.write(b"bye")
    talker.writer.close()
    assert await client.closed() == b"bye"
    async with asyncio.timeout(10):
        await draining
    assert (blue(bench).in_flight, blue(bench).tally.statuses) == (0, {101: 1})


async def test_a_websocket_between_a_real_client_and_a_real_server(bench: Bench) -> None:
    async def echo(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"you said {message.data}")
        return socket

    app = web.Application()
    app.add_routes([web.get("/talk", echo)])
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    publish(bench, f"127.0.0.1:{runner.addresses[0][1]}")
    headers = {"Authorization": "Bearer the-primary-key"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"{'http' if bench.trust is None else 'https'}://localhost:{bench.port}/diabetes/talk",
            headers=headers,
            ssl=bench.trust or True,
        ) as socket,
    ):
        await socket.send_str("a" * 100_000)
        assert await socket.receive_str() == "you said " + "a" * 100_000
    await bench.until(lambda: blue(bench).in_flight == 0)
    await runner.cleanup()
