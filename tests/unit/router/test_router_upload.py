"""Bodies that are too long to be kept go on as they come: in order, bounded on both sides, and never twice."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.admission import Limits
from router.upload import WHOLE_BYTES

pytestmark = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])

Bench = Any
LONG = bytes(range(256)) * (WHOLE_BYTES // 256) + b"more"
HEAD = b"POST /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def limits() -> Limits:
    return Limits(body_bytes=1 << 30)


def chunks(body: bytes, size: int) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


class Reading:
    """A model that reads a request's bytes when it is told to."""

    def __init__(self) -> None:
        self.head = b""
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter
        self.came = asyncio.Event()
        self.connections = 0

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 16)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.reader, self.writer = reader, writer
        self.head = await reader.readuntil(b"\r\n\r\n")
        self.came.set()

    async def read(self, size: int) -> bytes:
        async with asyncio.timeout(10):
            return await self.reader.readexactly(size)

    def answer(self) -> None:
        self.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone")

    def close(self) -> None:
        self._server.close()
        if self.came.is_set():
            self.writer.transport.abort()


@pytest.fixture
async def model(bench: Bench) -> AsyncIterator[Reading]:
    reading = Reading()
    address = await reading.start()
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment(idempotent=True)}, {"blue": 100}),
        bench.documents.observed({"blue": {"i1": address}}),
    )
    yield reading
    reading.close()


async def came(model: Reading) -> None:
    async with asyncio.timeout(10):
        await model.came.wait()


async def test_a_long_body_reaches_the_model_before_it_is_complete(bench: Bench, model: Reading) -> None:
    client = await bench.client()
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG[:100])
    await came(model)
    assert b"\r\nContent-Length: %d\r\n" % len(LONG) in model.head
    assert await model.read(100) == LONG[:100]
    client.send(LONG[100:])
    assert await model.read(len(LONG) - 100) == LONG[100:]
    model.answer()
    assert (await client.answer()).body == b"done"
    model.came.clear()
    client.send(bench.score(b"next"))
    async with asyncio.timeout(10):
        assert await model.reader.readuntil(b"next")


async def test_a_chunked_body_that_grows_long_goes_on_in_chunks(bench: Bench, model: Reading) -> None:
    client = await bench.client()
    client.send(CHUNKED + chunks(LONG, 1000))
    await came(model)
    assert model.head.lower().count(b"transfer-encoding: chunked") == 1
    assert b"content-length" not in model.head.lower()
    read = b""
    async with asyncio.timeout(10):
        while size := int(await model.reader.readuntil(b"\r\n"), 16):
            read += await model.reader.readexactly(size)
            assert await model.reader.readexactly(2) == b"\r\n"
        assert await model.reader.readexactly(2) == b"\r\n"
    assert read == LONG
    model.answer()
    assert (await client.answer()).body == b"done"


async def test_a_model_that_does_not_read_holds_up_the_client_and_no_memory(bench: Bench, model: Reading) -> None:
    client = await bench.client()
    size = 256 << 20
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % size)
    await came(model)
    piece = bytes(1 << 20)
    sent = 0
    (connection,) = bench.gateway.clients
    while not connection._held:
        client.send(piece)
        sent += len(piece)
        await asyncio.sleep(0)
        assert sent < 64 << 20
    (upstream,) = bench.gateway.upstreams
    assert upstream._transport.get_write_buffer_size() < 2 << 20
    while sent < size:
        client.send(piece)
        sent += len(piece)
    for _ in range(size >> 20):
        assert await model.read(1 << 20) == piece
    model.answer()
    assert (await client.answer()).body == b"done"


async def test_a_client_that_leaves_amid_its_body_frees_the_instance(bench: Bench, model: Reading) -> None:
    client = await bench.client()
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG[:100])
    await came(model)
    client.hang_up()
    deployment = bench.gateway.table.deployments["diabetes", "blue"]
    await bench.until(lambda: deployment.tally.statuses[499] == 1)
    assert deployment.in_flight == 0
    with pytest.raises(asyncio.IncompleteReadError):
        await model.read(len(LONG))


async def test_a_model_that_dies_amid_a_body_is_not_asked_again(bench: Bench, model: Reading) -> None:
    """Not even where scoring twice is harmless: what went on is not kept."""
    client = await bench.client()
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG) + LONG[:100])
    await came(model)
    model.writer.transport.abort()
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (502, "InstanceDied", "close")
    assert model.connections == 1


async def test_a_body_that_turns_out_malformed_or_too_long_breaks_the_models_request(
    bench: Bench, model: Reading
) -> None:
    client = await bench.client()
    client.send(CHUNKED + chunks(LONG, 1000)[:-5])
    await came(model)
    client.send(b"nonsense\r\n")
    answer = await client.answer()
    assert (answer.status, answer.code) == (400, "BadRequest")
    async with asyncio.timeout(10):
        assert b"0\r\n\r\n" not in await model.reader.read()


async def test_a_trickle_does_not_hold_an_instance(bench: Bench, model: Reading) -> None:
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment(request_timeout_ms=200)}, {"blue": 100}),
        bench.documents.observed({"blue": {"i1": await model.start()}}),
    )
    client = await bench.client()
    client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG))
    await came(model)

    async def trickle() -> None:
        while True:
            client.send(b"x")
            await asyncio.sleep(0.01)

    trickling = asyncio.create_task(trickle())
    answer = await client.answer()
    trickling.cancel()
    assert (answer.status, answer.code) == (408, "RequestTimeout")


async def test_who_expects_100_continue_is_told_when_its_turn_has_come(bench: Bench, model: Reading) -> None:
    client = await bench.client()
    client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(LONG))
    assert (await client.answer()).status == 100
    client.send(LONG)
    await came(model)
    assert await model.read(len(LONG)) == LONG
    model.answer()
    assert (await client.answer()).status == 200


async def test_a_long_body_waits_for_its_turn(bench: Bench, model: Reading) -> None:
    """Pipelined behind a request that is being answered: what comes of it is bounded."""
    client = await bench.client()
    client.send(bench.score(b"first") + HEAD + b"Content-Length: %d\r\n\r\n" % (3 * len(LONG)) + LONG * 2)
    await came(model)
    (connection,) = bench.gateway.clients
    await bench.until(lambda: connection._held)
    assert await model.read(5) == b"first"
    model.came.clear()
    model.answer()
    assert (await client.answer()).body == b"done"
    client.send(LONG)
    async with asyncio.timeout(10):
        await model.reader.readuntil(b"\r\n\r\n")
    assert await model.read(3 * len(LONG)) == 3 * LONG
    model.answer()
    assert (await client.answer()).body == b"done"
