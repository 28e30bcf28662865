"""An instance that dies at every byte of its answer: 502, another instance, or an answer that is visibly cut off."""

import asyncio
import struct
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest

Bench = Any
Model = Any

HEAD = b"HTTP/1.1 200 OK\r\nA: b\r\n"
LENGTH = HEAD + b"content-length: 4\r\n\r\n", b"body"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n", b"3\r\nabc\r\n1;x\r\nd\r\n0\r\nT: 1\r\n\r\n"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + LENGTH[0], b"body"
FAILED = b"HTTP/1.1 500 Oh No\r\ncontent-length: 2\r\n\r\n", b"no"
CUT = "cut off"


def dying(part: bytes, *, reset: bool) -> Any:
    """A model's behaviour: it sends `part` of its answer and is gone, with a RST or a FIN."""

    async def die(model: Model) -> Any:
        yield part
        writer = model.connections[-1]
        if reset:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            writer.transport.abort()
        else:
            writer.close()
            await writer.wait_closed()
        model.die()

    return die


async def told(bench: Bench) -> int | str:
    """What a client sees of one request."""
    client = await bench.client()
    try:
        answer = await client.score()
    except (asyncio.IncompleteReadError, ConnectionError):
        return CUT
    finally:
        client.writer.close()
    if answer.status == 200:
        assert answer.body == b"[1]"  # the other instance's: no part of the dead one's looks whole
    return int(answer.status)


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("reply", [LENGTH, CHUNKED, INTERIM, FAILED], ids=["length", "chunked", "interim", "failed"])
async def test_at_every_byte(bench: Bench, reply: tuple[bytes, bytes], reset: bool, idempotent: bool) -> None:
    head, body = reply
    alive = await bench.model()
    for length in range(len(head) + len(body)):
        dead = await bench.model(dying((head + body)[:length], reset=reset))
        bench.publish(
            bench.documents.desired({"blue": bench.documents.deployment(idempotent=idempotent)}, {"blue": 100}),
            bench.documents.observed({"blue": {f"dead-{length}": dead.address, "alive": alive.address}}),
        )  # under a name of its own, since ports come again
        blue = bench.gateway.table.deployments["diabetes", "blue"]
        before = len(alive.requests)
        seen = await told(bench)
        if length < len(head):
            assert seen == (200 if idempotent else 502)
        else:
            assert seen == CUT  # also where it might be asked again: its answer has begun
        assert len(dead.requests) == 1
        assert len(alive.requests) - before == (seen == 200)
        await bench.until(lambda: bench.quiet)
        assert blue.tally.statuses.total() == length + 1
        assert dead.port not in {each._instance.port for each in bench.gateway.upstreams}
        bench.models.remove(dead)
    assert (await told(bench)) == 200


async def test_an_answer_without_a_length_is_whole_when_it_ends_and_cut_off_when_it_breaks(bench: Bench) -> None:
    answer = b"HTTP/1.1 200 OK\r\n\r\nbody"
    blue = bench.serve(await bench.model(dying(answer, reset=False)))
    whole = await (await bench.client()).score()
    assert (whole.status, whole.body) == (200, b"body")

    arrived = asyncio.Event()

    async def breaks(model: Model) -> Any:
        yield answer
        await arrived.wait()
        model.connections[-1].get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
        model.connections[-1].transport.abort()

    bench.serve(await bench.model(breaks))
    client = await bench.client()
    client.send(bench.score())
    assert (await client.reader.readuntil(b"body\r\n")).endswith(b"\r\n\r\n4\r\nbody\r\n")
    arrived.set()
    assert await client.closed() == b""  # without the chunk that would end it
    assert blue.tally.statuses == {200: 1, 502: 1}
    await bench.until(lambda: bench.quiet)


async def test_an_instance_that_half_closes_after_its_answer_has_answered(bench: Bench) -> None:
    """And one that half-closes before has not: nothing can come from it any more."""

    async def half(model: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody"
        model.connections[-1].write_eof()

    model = await bench.model(half)
    blue = bench.serve(model)
    client = await bench.client()
    for count in (1, 2):
        assert (await client.score()).body == b"body"
        await bench.until(lambda: not bench.gateway.upstreams)  # it is not used again
        assert len(model.connections) == count

    over = asyncio.Event()

    async def mute(model: Model) -> Any:
        model.connections[-1].write_eof()
        await over.wait()
        yield b""

    model.reply = mute
    answer = await client.score()
    assert (answer.status, answer.code) == (502, "InstanceDied")
    await bench.until(lambda: bench.quiet and not bench.gateway.upstreams)
    assert blue.tally.statuses == {200: 2, 502: 1}
    over.set()


async def test_an_instance_that_answers_early_and_closes_at_once(bench: Bench) -> None:
    """It does not read the body that is still coming, and is not in anybody's way afterwards."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno")
        writer.close()

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}),
        bench.documents.observed({"blue": {"b": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}}),
    )
    blue = bench.gateway.table.deployments["diabetes", "blue"]
    for count in (1, 2, 3):
        client = await bench.client()
        client.send(bench.score(b"x" * (2 << 20))[: 100 << 10])  # more is to come
        answer = await client.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (424, b"no", "close")
        assert answer.headers["ms-azureml-model-error-statuscode"] == "413"
        assert await client.closed() == b""
        await bench.until(lambda: bench.quiet and not bench.gateway.upstreams)
        assert blue.tally.statuses == {424: count}
    assert blue.tally.ejections == 0
    server.close()
