"""Errors of the router's own, wherever they come up: 500 to the request concerned, the cause to the log, no more."""

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

import pytest

from router.deadlines import Deadlines
from router.tokens import UnknownKey

Bench = Any
Model = Any


def fails_once(monkeypatch: pytest.MonkeyPatch, module: str, path: str, on: int = 1) -> None:
    """Have a function of the router fail at its call number `on`, and only then."""
    owner: Any = importlib.import_module(f"router.{module}")
    *way, name = path.split(".")
    for part in way:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def failing(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == on:
            raise ZeroDivisionError("on purpose")
        return real(*args, **named)

    monkeypatch.setattr(owner, name, failing)


class Held:
    """A model's behaviour: it answers when it is let, and until then not even the next one."""

    def __init__(self) -> None:
        self.let = asyncio.Event()

    async def __call__(self, _: Model) -> Any:
        await self.let.wait()
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]"


def logged(caplog: pytest.LogCaptureFixture, answer: Any) -> None:
    assert (answer.status, answer.code) == (500, "InternalServerError")
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert [answer.headers["x-request-id"] in record.getMessage() for record in errors] == [True]
    assert errors[0].exc_info is not None
    assert errors[0].exc_info[0] is ZeroDivisionError


@pytest.mark.parametrize(
    ("module", "path"),
    [
        ("exchange", "choose"),
        ("picking", "Deployment.admit"),
        ("delivery", "connect"),
        ("delivery", "request_head"),
        ("delivery", "Delivery.connected"),
        ("upstream", "UpstreamConnection.send"),
        ("upstream", "read_reply"),
        ("upstream", "UpstreamConnection.on_message_complete"),
        ("delivery", "Delivery.answering"),
    ],
)
async def test_on_the_way_of_one_of_three_requests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, module: str, path: str
) -> None:
    """The connection goes on with those behind it."""
    bench.serve(await bench.model())
    client = await bench.client()
    fails_once(monkeypatch, module, path)
    client.send(bench.score() * 3)
    answers = [await client.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [500, 200, 200]
    logged(caplog, answers[0])
    await bench.until(lambda: bench.quiet)
    assert (await client.score()).status == 200


async def test_in_a_pipelined_requests_turn(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    fails_once(monkeypatch, "exchange", "choose", on=2)
    client.send(bench.score(b"1") + bench.score(b"2") + bench.score(b"3"))
    answers = [await client.answer() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 500, 200]
    logged(caplog, answers[1])
    assert [request.body for request in model.requests] == [b"1", b"3"]
    assert bench.quiet


async def test_before_a_request_is_whole(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Here nobody knows what follows, so the connection ends with the answer; the request before it has its own."""
    held = Held()
    model = await bench.model(held)
    bench.serve(model)
    client = await bench.client()
    client.send(bench.score())
    await model.requests_seen(1)
    fails_once(monkeypatch, "server", "check")
    client.send(bench.score() * 2)
    held.let.set()
    assert (await client.answer()).status == 200
    answer = await client.answer()
    logged(caplog, answer)
    assert answer.headers["connection"] == "close"
    assert await client.closed() == b""
    assert (bench.quiet, len(model.requests)) == (True, 1)


async def test_when_a_waiting_request_gets_its_instance(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    model = await bench.model(held)
    blue = bench.serve(model, max_queue_wait_ms=60_000, max_concurrent_requests_per_instance=2)
    clients = [await bench.client() for _ in range(4)]
    for at, client in enumerate(clients):
        client.send(bench.score())
        await bench.until(lambda at=at: blue.in_flight == at + 1)
    await model.requests_seen(2)
    fails_once(monkeypatch, "delivery", "Delivery._hand")
    held.let.set()
    answers = [await client.answer() for client in clients]
    assert [answer.status for answer in answers] == [200, 200, 500, 200]
    logged(caplog, answers[2])
    assert (bench.quiet, blue.tally.statuses) == (True, {200: 3, 500: 1})


async def test_at_a_deadline_and_the_deadlines_after_it_come_all_the_same(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = await bench.model(Held())
    blue = bench.serve(model, request_timeout_ms=200, max_concurrent_requests_per_instance=2)
    clients = [await bench.client() for _ in range(2)]
    for at, client in enumerate(clients):
        client.send(bench.score())
        await model.requests_seen(at + 1)
    fails_once(monkeypatch, "delivery", "at_deadline")
    answers = [await client.answer() for client in clients]
    assert [answer.status for answer in answers] == [500, 408]
    logged(caplog, answers[0])
    assert (bench.quiet, blue.tally.statuses) == (True, {500: 1, 408: 1})


async def test_at_the_end_of_the_queues_patience(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    model = await bench.model(held)
    blue = bench.serve(model, max_queue_wait_ms=50)
    first, second = await bench.client(), await bench.client()
    first.send(bench.score())
    await model.requests_seen(1)
    fails_once(monkeypatch, "delivery", "Delivery.queue_wait_passed")
    answer = await second.score()
    logged(caplog, answer)
    assert not blue.waiting
    held.let.set()
    assert (await first.answer()).status == 200


async def test_when_an_instance_dies(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def dies(model: Model) -> Any:
        model.die()
        return
        yield b""

    bench.serve(await bench.model(dies), await bench.model(), idempotent=True)
    fails_once(monkeypatch, "delivery", "may_be_sent")
    client = await bench.client()
    logged(caplog, await client.score())
    assert (await client.score()).status == 200
    assert bench.quiet


async def test_when_no_instance_can_be_reached(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone, alive = await bench.model(), await bench.model()
    gone.die()
    bench.serve(gone, alive)
    fails_once(monkeypatch, "gateway", "Gateway.eject")
    client = await bench.client()
    logged(caplog, await client.score())
    assert (await client.score()).status == 200
    assert bench.quiet


async def test_within_an_answer_it_is_cut_off(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    go = asyncio.Event()

    async def parts(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"
        await go.wait()
        yield b"3\r\ndef\r\n"
        await asyncio.Event().wait()

    blue = bench.serve(await bench.model(parts))
    client = await bench.client()
    client.send(bench.score())
    await client.reader.readuntil(b"abc\r\n")
    fails_once(monkeypatch, "delivery", "Delivery.flowing")
    go.set()
    assert not (await client.closed()).endswith(b"0\r\n\r\n")
    assert "ZeroDivisionError" in caplog.text
    await bench.until(lambda: bench.quiet and not bench.gateway.upstreams)
    assert blue.tally.statuses == {500: 1}


async def test_within_a_long_body(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = await bench.model()
    bench.serve(model)
    body = b"x" * (2 << 20)
    for path in ("Upload.add", "Upload.begin", "Upload.end"):
        caplog.clear()
        client = await bench.client()
        fails_once(monkeypatch, "upload", path)
        client.send(bench.score(body))
        answer = await client.answer()
        logged(caplog, answer)
        await bench.until(lambda: bench.quiet)
        if path != "Upload.end":  # by then the model may have it all
            assert model.requests == []
    assert (await (await bench.client()).score(body)).status == 200


async def test_in_the_bookkeeping_of_an_answer_that_is_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its client has what it wanted, and the requests behind it have their turn."""
    bench.serve(await bench.model())
    client = await bench.client()
    fails_once(monkeypatch, "load", "Tally.ended")
    client.send(bench.score() * 3)
    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 200]
    assert "ZeroDivisionError" in caplog.text
    assert bench.quiet


async def test_when_a_token_is_looked_at_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = await bench.model()
    bench.publish(
        bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}, auth_mode="aml_token"),
        bench.documents.observed({"blue": {"i1": model.address}}),
    )
    outcomes = iter([UnknownKey(), UnknownKey(), ZeroDivisionError("on purpose")])

    class Tokens:
        @staticmethod
        def check(*_: Any) -> None:
            raise next(outcomes)

    bench.gateway.tokens = Tokens()
    bench.gateway.ask_issuers = bench.gateway.loop.call_soon
    client = await bench.client()
    logged(caplog, await client.score())
    assert model.requests == []


async def test_when_a_client_is_slow_or_leaves(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def endless(_: Model) -> Any:
        yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
        while True:
            yield bytes(1 << 20)

    blue = bench.serve(await bench.model(endless))
    fails_once(monkeypatch, "delivery", "Delivery.client_is_slow")
    client = await bench.client()
    client.writer.transport.pause_reading()
    client.send(bench.score())
    await bench.until(lambda: blue.tally.statuses == {500: 1} and bench.quiet)
    fails_once(monkeypatch, "delivery", "Delivery.client_gone")
    client = await bench.client()
    client.send(bench.score())
    await client.reader.readexactly(100)
    client.hang_up()
    await bench.until(lambda: blue.tally.statuses == {500: 2} and bench.quiet)
    await bench.until(lambda: not bench.gateway.upstreams)
    assert caplog.text.count("ZeroDivisionError: on purpose") == 2


async def test_in_a_sweep(bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """The others are looked after all the same, and the next time too."""
    first, second = await bench.client(), await bench.client()
    await bench.until(lambda: len(bench.gateway.clients) == 2)
    fails_once(monkeypatch, "server", "ClientConnection.sweep")
    await bench.until(lambda: len(bench.gateway.clients) == 1)
    assert "ZeroDivisionError" in caplog.text
    for connection in bench.gateway.clients:
        connection._touched -= 1000
    assert [await client.closed() for client in (first, second)] == [b"", b""]
    assert not bench.gateway.clients


async def test_a_deadline_whose_end_fails_keeps_none_from_coming() -> None:
    came: list[str] = []
    both = asyncio.Event()

    def expired(item: str) -> None:
        came.append(item)
        if item == "a":
            raise ZeroDivisionError("on purpose")
        both.set()

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    deadlines = Deadlines(loop, 0.01, expired)
    for item in "ab":
        deadlines.add(item, loop.time())
    async with asyncio.timeout(5):
        await both.wait()
    assert (came, len(deadlines)) == (["a", "b"], 0)
