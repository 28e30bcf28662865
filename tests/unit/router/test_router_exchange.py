"""Requests through a running router, with models on real sockets: answers, retries, limits, slow parties."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest

from router.admission import Limits

BOTH = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])

Bench = Any
Model = Any


def reply(body: bytes = b"[1]", status: bytes = b"200 OK", *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return b"HTTP/1.1 %b\r\n%bcontent-length: %d\r\n\r\n%b" % (status, lines, len(body), body)


class Gate:
    """A model's behaviour: it answers when it is opened."""

    def __init__(self, then: bytes = reply()) -> None:
        self.opened = asyncio.Event()
        self.then = then

    async def __call__(self, _: Model) -> Any:
        await self.opened.wait()
        yield self.then


async def dies(model: Model) -> Any:
    """A behaviour: the process is killed when it has the request."""
    model.die()
    return
    yield b""


async def breaks(model: Model) -> Any:
    """A behaviour: the connection breaks when the request has come, but the instance goes on."""
    for writer in model.connections:
        writer.transport.abort()
    model.connections.clear()
    return
    yield b""


# Answers


async def test_what_both_sides_see(bench: Bench) -> None:
    model = await bench.model(
        reply(
            b"[1]",
            b"200 OK",
            b"content-type: application/json",
            b"x-ms-run-function-failed: False",
            b"x-request-id: the-models-own",
            b"azureml-model-deployment: a-lie",
            b"Connection: keep-alive",
        )
    )
    bench.serve(model)
    client = await bench.client()
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await client.score(
        b'{"data": 1}', f"traceparent: {trace}", "x-ms-client-request-id: mine-1", "x-request-id: forged"
    )
    received = model.requests[0]
    assert received.body == b'{"data": 1}'
    assert received.header("traceparent") == trace
    assert received.header("authorization") is None
    assert received.header("x-ms-client-request-id") == "mine-1"
    guid = received.header("x-request-id")
    assert answer.headers == {
        "x-request-id": guid,
        "x-ms-client-request-id": "mine-1",
        "azureml-model-deployment": "blue",
        "content-type": "application/json",
        "x-ms-run-function-failed": "False",
        "content-length": "3",
    }
    assert (answer.status, answer.body) == (200, b"[1]")
    again = await client.score()
    assert again.headers["x-request-id"] not in (guid, "forged")
    assert len(model.connections) == 1  # both sides are kept alive


@pytest.mark.parametrize(
    ("bytes_of_the_model", "status", "body", "more"),
    [
        (reply(b"no", b"400 Bad Input"), 424, b"no", {"statuscode": "400", "reason": "Bad Input"}),
        (reply(b"no", b"500 "), 424, b"no", {"statuscode": "500", "reason": ""}),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 9\r\n\r\n", 424, b"", {"statuscode": "304"}),
        (reply(b"ok", b"201 Created"), 201, b"ok", {}),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n", 204, b"", {}),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + reply(b"ok"), 200, b"ok", {}),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nT: 1\r\n\r\n",
            200,
            b"abc",
            {},
        ),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nab", 200, b"ab", {}),
    ],
)
async def test_answers_of_a_model(
    bench: Bench, bytes_of_the_model: bytes, status: int, body: bytes, more: dict[str, str]
) -> None:
    bench.serve(await bench.model(bytes_of_the_model))
    client = await bench.client()
    for _ in range(2):
        answer = await client.score()
        assert (answer.status, answer.body) == (status, body)
        for name, value in more.items():
            assert answer.headers[f"ms-azureml-model-error-{name}"] == value


async def test_an_answer_that_ends_with_its_connection(bench: Bench) -> None:
    async def until_the_end(model: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\n\r\nabc"
        yield b"def"
        model.connections.pop().close()

    bench.serve(await bench.model(until_the_end))
    client = await bench.client()
    for _ in range(2):
        answer = await client.score()
        assert (answer.status, answer.body) == (200, b"abcdef")


@pytest.mark.parametrize(
    "nonsense",
    [
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
        b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\n\r\n",
        b"HTTP/1.1 200 OK\nA: b\n\n",
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * 300_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
    ],
)
async def test_an_answer_that_is_not_http_is_502(bench: Bench, nonsense: bytes) -> None:
    model = await bench.model(nonsense)
    blue = bench.serve(model, idempotent=True)
    answer = await (await bench.client()).score()
    assert (answer.status, answer.code) == (502, "InvalidModelResponse")
    assert len(model.requests) == 1  # it would say the same again
    assert blue.running == 0


@pytest.mark.parametrize("flood", [b"1;", b"0\r\nX: "])
async def test_a_model_that_floods_where_nothing_is_passed_on_is_cut_off(bench: Bench, flood: bytes) -> None:
    async def floods(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + flood
        while True:
            yield b"x" * 10_000

    blue = bench.serve(await bench.model(floods))
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await (await bench.client()).score()
    await bench.until(lambda: blue.tally.statuses == {502: 1})


async def test_an_answer_to_nobody_does_not_reach_the_next(bench: Bench) -> None:
    model = await bench.model(reply(b"first") + reply(b"smuggled"))
    bench.serve(model)
    client = await bench.client()
    assert (await client.score()).body == b"first"
    model.reply = reply(b"second")
    assert (await client.score()).body == b"second"


# Who gets it


async def test_the_split_the_pin_and_what_takes_no_turn(bench: Bench) -> None:
    blue, green = await bench.model(), await bench.model()
    deployments = {name: bench.documents.deployment() for name in ("blue", "green", "dark")}
    bench.publish(
        bench.documents.desired(deployments, {"blue": 90, "green": 10}),
        bench.documents.observed({"blue": {"b": blue.address}, "green": {"g": green.address}, "dark": {}}),
    )
    client = await bench.client()
    seen = Counter[str]()
    for at in range(100):
        answer = await client.score()
        assert answer.status == 200
        seen[answer.headers["azureml-model-deployment"]] += 1
        if at % 10 == 0:
            assert (await client.score(key="wrong")).status == 401
            assert (await client.score(path="/unknown/score")).status == 404
            missing = await client.score(b"{}", "azureml-model-deployment: red")
            assert (missing.status, missing.code) == (404, "DeploymentNotFound")
            assert (await client.score(b"{}", "azureml-model-deployment: green")).status == 200
            dark = await client.score(b"{}", "azureml-model-deployment: dark")
            assert (dark.status, dark.headers["azureml-model-deployment"]) == (503, "dark")
    assert seen == {"blue": 90, "green": 10}
    assert (len(blue.requests), len(green.requests)) == (90, 10 + 10)


async def test_a_deployment_without_instances_answers_503_for_its_own_share(bench: Bench) -> None:
    blue = await bench.model()
    deployments = {name: bench.documents.deployment() for name in ("blue", "green")}
    bench.publish(
        bench.documents.desired(deployments, {"blue": 70, "green": 30}),
        bench.documents.observed({"blue": {"b": blue.address}, "green": {}}),
    )
    client = await bench.client()
    assert Counter([(await client.score()).status for _ in range(100)]) == {200: 70, 503: 30}


async def test_no_traffic_is_404(bench: Bench) -> None:
    model = await bench.model()
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 0}),
        bench.documents.observed({"blue": {"b": model.address}}),
    )
    client = await bench.client()
    answer = await client.score()
    assert (answer.status, answer.code) == (404, "NoTraffic")
    assert (await client.score(b"{}", "azureml-model-deployment: blue")).status == 200


async def test_both_keys_open_it_and_a_rotation_fails_nobody_who_uses_the_other(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    assert (await client.score(key="the-secondary-key")).status == 200
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}, primary="new"),
        bench.documents.observed({"blue": {f"i{model.port}": model.address}}),
    )
    statuses = {key: (await client.score(key=key)).status for key in ("the-secondary-key", "new", "the-primary-key")}
    assert statuses == {"the-secondary-key": 200, "new": 200, "the-primary-key": 401}


# Limits and time


async def test_room_queue_and_429(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model, max_concurrent_requests_per_instance=2, max_queue_wait_ms=60_000)
    clients = [await bench.client() for _ in range(5)]
    for client in clients[:4]:
        client.send(bench.score())
    await model.requests_seen(2)
    refused = await clients[4].score()
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "TooManyRequests", "1")
    assert (blue.running, len(blue.waiting), len(model.requests)) == (2, 2, 2)
    gate.opened.set()
    assert [(await client.answer()).status for client in clients[:4]] == [200] * 4
    assert (blue.in_flight, blue.tally.handed, blue.tally.statuses) == (0, 4, {200: 4, 429: 1})


async def test_the_queue_is_left_after_max_queue_wait(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    bench.serve(model, max_queue_wait_ms=50)
    first, second = await bench.client(), await bench.client()
    first.send(bench.score())
    await model.requests_seen(1)
    answer = await second.score()
    assert (answer.status, answer.code) == (429, "QueueWaitExceeded")
    gate.opened.set()
    assert (await first.answer()).status == 200
    assert len(model.requests) == 1


async def test_a_model_that_is_too_slow_is_408_and_its_slot_is_free_again(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model, request_timeout_ms=100, idempotent=True)
    client = await bench.client()
    answer = await client.score()
    assert (answer.status, answer.code) == (408, "RequestTimeout")
    assert len(model.requests) == 1  # a timeout is not tried again
    assert blue.running == 0
    gate.opened.set()
    assert (await client.score()).status == 200


async def test_a_stream_may_take_long_but_not_stand_still(bench: Bench) -> None:
    go = asyncio.Event()

    async def stream(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        for _ in range(6):
            await asyncio.sleep(0.05)
            yield b"1\r\na\r\n"
        if not go.is_set():
            await asyncio.sleep(60)
        yield b"0\r\n\r\n"

    go.set()
    blue = bench.serve(await bench.model(stream), request_timeout_ms=150)
    assert (await (await bench.client()).score()).body == b"aaaaaa"
    go.clear()
    with pytest.raises(asyncio.IncompleteReadError):  # cut off: it cannot be taken for a whole answer
        await (await bench.client()).score()
    assert blue.running == 0
    assert blue.tally.statuses == {200: 1, 408: 1}


@BOTH
async def test_parts_of_a_stream_pass_as_they_come(bench: Bench) -> None:
    go = asyncio.Event()

    async def events(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        yield b"9\r\ndata: 1\n\n\r\n"
        await go.wait()
        yield b"0\r\n\r\n"

    bench.serve(await bench.model(events))
    client = await bench.client()
    client.send(bench.score())
    async with asyncio.timeout(5):
        assert (await client.reader.readuntil(b"data: 1\n\n")).endswith(b"\r\n\r\n9\r\ndata: 1\n\n")
        go.set()
        await client.reader.readuntil(b"0\r\n\r\n")


# Losing an instance


async def test_a_refused_connection_goes_to_another_instance_and_nobody_hammers_it(bench: Bench) -> None:
    gone, alive = await bench.model(), await bench.model()
    gone.die()
    blue = bench.serve(gone, alive)
    client = await bench.client()
    assert [(await client.score()).status for _ in range(5)] == [200] * 5
    assert len(alive.requests) == 5
    assert (blue.tally.ejections, blue.tally.retries) == (1, 0)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_instance_that_dies_under_a_request(bench: Bench, idempotent: bool) -> None:
    first, second = await bench.model(dies), await bench.model()
    blue = bench.serve(first, second, idempotent=idempotent)
    client = await bench.client()
    answer = await client.score()
    assert answer.status == (200 if idempotent else 502)
    assert (len(first.requests), len(second.requests)) == (1, int(idempotent))
    assert (blue.tally.handed, blue.tally.retries) == (1, int(idempotent))
    assert (await client.score()).status == 200
    if idempotent:
        ids = {received.header("x-request-id") for received in (*first.requests, *second.requests[:1])}
        assert len(ids) == 1  # it is the same request


async def test_a_request_that_kills_is_sent_at_most_twice(bench: Bench) -> None:
    models = [await bench.model(dies) for _ in range(3)]
    bench.serve(*models, idempotent=True)
    answer = await (await bench.client()).score()
    assert (answer.status, answer.code) == (502, "InstanceDied")
    assert sum(len(model.requests) for model in models) == 2


@pytest.mark.parametrize("idempotent", [True, False])
@pytest.mark.parametrize(
    "part", [b"", b"HTT", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_death_before_the_whole_head_of_the_answer(bench: Bench, part: bytes, idempotent: bool) -> None:
    async def partial(model: Model) -> Any:
        yield part
        model.die()

    bench.serve(await bench.model(partial), await bench.model(), idempotent=idempotent)
    answer = await (await bench.client()).score()
    assert answer.status == (200 if idempotent else 502)


@pytest.mark.parametrize("framing", [b"content-length: 10", b"transfer-encoding: chunked"])
async def test_death_within_the_body_cuts_the_answer_off(bench: Bench, framing: bytes) -> None:
    async def partial(model: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\n%b\r\n\r\n3\r\nabc\r\n" % framing
        await asyncio.sleep(0.05)
        model.die()

    blue = bench.serve(await bench.model(partial), await bench.model(), idempotent=True)
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await (await bench.client()).score()
    assert blue.tally.statuses == {502: 1}


async def test_a_worker_that_dies_alone_gets_the_request_again_when_its_back_off_has_passed(bench: Bench) -> None:
    model = await bench.model(breaks)
    bench.serve(model, idempotent=True)
    client = await bench.client()
    client.send(bench.score())
    await model.requests_seen(1)
    model.reply = reply()
    assert (await client.answer()).status == 200
    assert len(model.requests) == 2


async def test_the_only_instance_dies_under_load_and_not_one_request_fails(bench: Bench) -> None:
    model = await bench.model()
    blue = bench.serve(model, idempotent=True, max_concurrent_requests_per_instance=4)
    stop = asyncio.Event()

    async def load() -> list[int]:
        client = await bench.client()
        statuses = []
        while not stop.is_set():
            statuses.append((await client.score()).status)
        return statuses

    loads = [asyncio.create_task(load()) for _ in range(8)]
    await model.requests_seen(50)
    model.die()
    await bench.until(lambda: not blue.usable(bench.gateway.loop.time()))
    replacement = await bench.model()
    bench.publish(
        bench.documents.desired(
            {"blue": bench.documents.deployment(idempotent=True, max_concurrent_requests_per_instance=4)}, {"blue": 100}
        ),
        bench.documents.observed({"blue": {}}, 1),  # seen dead, not yet replaced
    )
    assert blue.instances == []
    bench.serve(replacement, idempotent=True, max_concurrent_requests_per_instance=4)
    await replacement.requests_seen(50)
    stop.set()
    statuses = [status for each in await asyncio.gather(*loads) for status in each]
    assert set(statuses) == {200}
    assert len(statuses) >= 100


async def test_a_replacement_that_does_not_come_in_time(bench: Bench) -> None:
    model = await bench.model()
    blue = bench.serve(model, request_timeout_ms=200)
    client = await bench.client()
    assert (await client.score()).status == 200
    model.die()
    await bench.until(lambda: not blue.instances[0].connections)  # its idle connection is seen to be broken
    answer = await client.score()
    assert (answer.status, answer.code) == (503, "NoInstanceReady")
    assert blue.tally.statuses == {200: 1, 503: 1}
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}),
        bench.documents.observed({"blue": {}}, 0),  # and it is not to be replaced
    )
    assert (await client.score()).status == 503


async def test_a_deployment_that_is_removed_refuses_those_that_wait_and_finishes_those_that_run(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model, max_queue_wait_ms=60_000)
    running, waiting = await bench.client(), await bench.client()
    running.send(bench.score())
    await model.requests_seen(1)
    waiting.send(bench.score())
    await bench.until(lambda: blue.waiting)
    bench.gateway.changed(bench.gateway.table.apply("diabetes", None, {}, bench.gateway.loop.time()))
    assert (await waiting.answer()).status == 503
    gate.opened.set()
    assert (await running.answer()).status == 200
    assert (await running.score()).status == 404


async def test_an_instance_that_answers_nonsense_gets_no_more_for_a_moment(bench: Bench) -> None:
    broken, sound = await bench.model(b"nonsense\r\n\r\n"), await bench.model()
    blue = bench.serve(broken, sound)
    client = await bench.client()
    assert (await client.score()).status == 502
    assert blue.tally.ejections == 1
    blue.instances[0].ejected_until += 60
    assert [(await client.score()).status for _ in range(6)] == [200] * 6
    assert (len(broken.requests), len(sound.requests), bench.quiet) == (1, 6, True)


@pytest.mark.parametrize("status", [b"500 Oh No", b"503 Busy", b"404 What"])
async def test_a_models_own_failures_eject_nobody(bench: Bench, status: bytes) -> None:
    blue = bench.serve(await bench.model(reply(b"no", status)), await bench.model())
    client = await bench.client()
    assert Counter([(await client.score()).status for _ in range(10)]) == {424: 5, 200: 5}
    assert blue.tally.ejections == 0


# Clients that leave, or are slow


@BOTH
async def test_a_client_that_hangs_up_leaves_the_queue_at_once_and_the_model_when_it_answers(bench: Bench) -> None:
    gate = Gate()
    model = await bench.model(gate)
    blue = bench.serve(model, max_queue_wait_ms=60_000)
    first, second = await bench.client(), await bench.client()
    first.send(bench.score())
    await model.requests_seen(1)
    second.send(bench.score())
    await bench.until(lambda: blue.waiting)
    second.hang_up()
    await bench.until(lambda: not blue.waiting)
    first.hang_up()
    await bench.until(lambda: not bench.gateway.clients)
    assert blue.running == 1  # the model is still at it
    gate.opened.set()
    await bench.until(lambda: not blue.running)
    assert blue.tally.statuses == {499: 2}
    assert (await (await bench.client()).score()).status == 200


@BOTH
async def test_a_client_that_does_not_read_gives_the_slot_back_in_time(bench: Bench) -> None:
    megabyte = b"x" * (1 << 20)

    async def endless(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
        while True:
            yield megabyte

    blue = bench.serve(await bench.model(endless), request_timeout_ms=300)
    client = await bench.client()
    client.writer.transport.pause_reading()
    client.send(bench.score())
    await bench.until(lambda: blue.tally.statuses)
    assert blue.tally.statuses == {499: 1}
    assert blue.running == 0


@BOTH
@pytest.mark.parametrize("size", [100 << 10, 3 << 20])
async def test_a_client_that_fetches_no_answers_gets_no_more_and_harms_nobody(bench: Bench, size: int) -> None:
    model = await bench.model(reply(b"x" * size))
    blue = bench.serve(model, request_timeout_ms=60_000, max_concurrent_requests_per_instance=2)
    greedy = await bench.client()
    greedy.writer.transport.pause_reading()
    greedy.send(bench.score() * 500)
    await bench.until(lambda: any(client._choked for client in bench.gateway.clients))
    taken = blue.tally.handed
    assert taken < 500
    model.reply = reply(b"small")
    other = await bench.client()
    for _ in range(20):  # also over the connections that the greedy one's answers came on
        assert (await other.score()).body == b"small"
    assert blue.tally.handed == taken + 20
    model.reply = reply(b"x" * size)
    greedy.writer.transport.resume_reading()
    for _ in range(taken + 2):
        assert len((await greedy.answer()).body) == size
    model.reply = reply(b"small")
    assert (await other.score()).body == b"small"


@BOTH
async def test_a_large_answer_to_a_slowish_client_arrives_whole(bench: Bench) -> None:
    body = bytes(range(256)) * (40 << 10)  # 10 MiB
    bench.serve(await bench.model(reply(body)), request_timeout_ms=10_000)
    client = await bench.client()
    client.send(bench.score())
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert b"content-length: %d" % len(body) in head
    received = bytearray()
    async with asyncio.timeout(20):
        while len(received) < len(body):
            received += await client.reader.read(1 << 18)
            await asyncio.sleep(0.001)
    assert bytes(received) == body


async def test_a_request_of_a_mebibyte_arrives_whole_and_again_where_it_is_retried(bench: Bench) -> None:
    body = bytes(range(256)) * (4 << 10)
    models = [await bench.model(dies), await bench.model()]
    bench.serve(*models, idempotent=True)
    assert (await (await bench.client()).score(body)).status == 200
    assert [received.body == body for model in models for received in model.requests] == [True, True]


@BOTH
async def test_an_answer_before_the_request_was_read(bench: Bench) -> None:
    """A model that refuses a body without reading it: its answer passes, its connection is not used again."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(reply(b"too much", b"413 Too Large"))

    server = await asyncio.start_server(early, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}),
        bench.documents.observed({"blue": {"b": address}}),
    )
    for _ in range(2):
        client = await bench.client()
        answer = await client.score(b"x" * (20 << 20))
        assert (answer.status, answer.headers["ms-azureml-model-error-statuscode"]) == (424, "413")
        assert answer.headers["connection"] == "close"
    server.close()


# An error of ours, and the metrics


async def test_an_error_of_the_router_is_500_and_the_log_has_its_cause(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    with monkeypatch.context() as patch:
        patch.setattr("router.picking.Deployment.admit", lambda *_: 1 / 0)
        answer = await client.score()
    assert (answer.status, answer.code) == (500, "InternalServerError")
    assert answer.headers["x-request-id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert (await (await bench.client()).score()).status == 200


async def test_metrics_are_read_from_the_counters(bench: Bench) -> None:
    from prometheus_client import CollectorRegistry, generate_latest

    from router.metrics import RouterMetrics

    registry = CollectorRegistry()
    registry.register(RouterMetrics(bench.gateway, lambda: 12.0, lambda: 13.0))
    bench.serve(await bench.model(), await bench.model(reply(b"no", b"400 Bad")))
    client = await bench.client()
    for _ in range(4):
        await client.score()
    await client.score(key="wrong")
    await client.score(path="/unknown/score")
    text = generate_latest(registry).decode()
    of_blue = 'deployment="blue",endpoint="diabetes"'
    for line in (
        f'endpunkt_router_requests_total{{{of_blue},status="200",status_class="2xx"}} 2.0',
        f'endpunkt_router_requests_total{{{of_blue},status="424",status_class="4xx"}} 2.0',
        'endpunkt_router_requests_total{deployment="",endpoint="diabetes",status="401",status_class="4xx"} 1.0',
        'endpunkt_router_requests_total{deployment="",endpoint="",status="404",status_class="4xx"} 1.0',
        f"endpunkt_router_split_turns_total{{{of_blue}}} 4.0",
        f"endpunkt_router_in_flight{{{of_blue}}} 0.0",
        f"endpunkt_router_ready_instances{{{of_blue}}} 2.0",
        "endpunkt_router_table_entries 1.0",
        "endpunkt_router_table_read_timestamp_seconds 12.0",
    ):
        assert line in text.splitlines()


class TestSmallLimits:
    """Where a body may not be long."""

    @pytest.fixture
    def limits(self) -> Limits:
        return Limits(body_bytes=10)

    async def test_exactly_the_limit_passes_and_one_more_does_not(self, bench: Bench) -> None:
        bench.serve(await bench.model())
        client = await bench.client()
        assert (await client.score(b"x" * 10)).status == 200
        answer = await client.score(b"x" * 11)
        assert (answer.status, json.loads(answer.body)["error"]["code"]) == (413, "RequestTooLarge")
