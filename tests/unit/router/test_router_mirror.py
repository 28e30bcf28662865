"""Mirrored traffic: a copy for one deployment, which no client can tell from its absence."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from router.metrics import RouterMetrics
from router.mirror import Comparison

Bench = Any
OTHER = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[2]"
BROKEN = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 3\r\n\r\n[1]"


async def serve(bench: Bench, live: Any, shadow: Any, share: int = 50, **settings: int) -> Counter[str]:
    """An endpoint whose `green` gets copies of what `blue` gets; returns how their answers compare."""
    documents = bench.documents
    desired = documents.desired(
        {"blue": documents.deployment(), "green": documents.deployment(**settings)},
        {"blue": 100},
        mirror={"green": share},
    )
    bench.publish(desired, documents.observed({"blue": {"b": live.address}, "green": {"g": shadow.address}}))
    compared: Counter[str] = bench.gateway.table.deployments["diabetes", "green"].tally.mirrored
    return compared


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [(None, "same"), (OTHER, "body"), (BROKEN, "status"), (b"nonsense\r\n\r\n", "unanswered")],
)
async def test_exactly_its_share_is_copied_and_compared(bench: Bench, reply: bytes | None, outcome: str) -> None:
    live = await bench.model()
    shadow = await bench.model(reply) if reply is not None else await bench.model()
    compared = await serve(bench, live, shadow, 30, max_concurrent_requests_per_instance=10)
    client = await bench.client()
    answers = [await client.score(b'{"n": %d}' % number) for number in range(20)]
    assert {(answer.status, answer.body, answer.headers["azureml-model-deployment"]) for answer in answers} == {
        (200, b"[1]", "blue")
    }
    await bench.until(lambda: compared.total() == 6)
    assert compared == {outcome: 6}
    assert len(live.requests) == 20
    whole = {(request.header("x-request-id"), request.body) for request in live.requests}
    assert {(request.header("x-request-id"), request.body) for request in shadow.requests} <= whole


async def test_a_mirror_that_never_answers_slows_and_fails_nobody(bench: Bench) -> None:
    stuck = asyncio.Event()

    async def never(_: Any) -> AsyncIterator[bytes]:
        await stuck.wait()
        yield b""

    live, shadow = await bench.model(), await bench.model(never)
    compared = await serve(bench, live, shadow, request_timeout_ms=300, max_queue_wait_ms=50)
    client = await bench.client()
    assert {(await client.score()).status for _ in range(40)} == {200}
    await bench.until(lambda: compared.total() == 20)
    assert compared == {"unanswered": 20}
    assert bench.gateway.table.deployments["diabetes", "green"].in_flight == 0
    stuck.set()


async def test_a_mirror_without_an_instance(bench: Bench) -> None:
    live, shadow = await bench.model(), await bench.model()
    documents = bench.documents
    await serve(bench, live, shadow)
    both = {"blue": documents.deployment(), "green": documents.deployment()}
    bench.publish(
        documents.desired(both, {"blue": 100}, mirror={"green": 50}), documents.observed({"blue": {"b": live.address}})
    )
    compared = bench.gateway.table.deployments["diabetes", "green"].tally.mirrored
    client = await bench.client()
    assert {(await client.score()).status for _ in range(4)} == {200}
    assert compared == {"unanswered": 2}


async def test_who_names_a_deployment_is_not_copied_nor_is_a_body_that_is_not_kept(bench: Bench) -> None:
    live, shadow = await bench.model(), await bench.model()
    await serve(bench, live, shadow)
    client = await bench.client()
    for _ in range(4):
        assert (await client.score(b"{}", "azureml-model-deployment: blue")).status == 200
    for _ in range(2):
        assert (await client.score(bytes(2 << 20))).status == 200
    assert shadow.requests == []
    pinned = await client.score(b"{}", "azureml-model-deployment: green")  # a shadow can be asked by name
    assert (pinned.status, pinned.headers["azureml-model-deployment"]) == (200, "green")


async def test_a_client_that_leaves_takes_nothing_along(bench: Bench) -> None:
    asked = asyncio.Event()

    async def slow(_: Any) -> AsyncIterator[bytes]:
        await asked.wait()
        yield OTHER

    live, shadow = await bench.model(slow), await bench.model()
    compared = await serve(bench, live, shadow)
    first, second = await bench.client(), await bench.client()
    first.send(bench.score())
    await live.requests_seen(1)
    first.writer.close()
    asked.set()
    assert (await second.score()).body == b"[2]"
    await shadow.requests_seen(1)
    assert compared.total() <= 1


@pytest.mark.parametrize("where", ["table.Endpoint.mirrored", "copies.Copy.__init__", "copies.Copy.enter"])
async def test_an_error_of_ours_in_the_copy_is_none_in_the_live_request(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    live, shadow = await bench.model(), await bench.model()
    compared = await serve(bench, live, shadow)
    client = await bench.client()
    with monkeypatch.context() as patch:
        patch.setattr(f"router.{where}", lambda *_: 1 / 0)
        answers = [await client.score() for _ in range(4)]
    assert [(answer.status, answer.body) for answer in answers] == [(200, b"[1]")] * 4
    assert "ZeroDivisionError" in caplog.text
    assert (len(live.requests), shadow.requests) == (4, [])
    assert set(compared) <= {"unanswered"}
    assert bench.quiet
    assert [(await client.score()).status for _ in range(2)] == [200, 200]
    await shadow.requests_seen(1)  # and then it is mirrored again


async def test_an_error_of_ours_on_the_way_of_the_copy(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    live, shadow = await bench.model(), await bench.model()
    compared = await serve(bench, live, shadow)
    client = await bench.client()
    monkeypatch.setattr("router.copies.Copy.connected", lambda *_: 1 / 0, raising=False)
    assert {(await client.score()).status for _ in range(4)} == {200}
    await bench.until(lambda: compared == {"unanswered": 2} and bench.quiet)
    assert "ZeroDivisionError" in caplog.text


async def endless(_: Any) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (1 << 40)
    while True:
        yield bytes(1 << 16)


async def test_a_copys_answer_is_bounded_in_bytes(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.copies.COPY_BYTES", 1 << 20)
    over = asyncio.Event()

    async def slow(_: Any) -> AsyncIterator[bytes]:
        await over.wait()
        yield OTHER

    live, shadow = await bench.model(slow), await bench.model(endless)
    compared = await serve(bench, live, shadow, share=50)
    green = bench.gateway.table.deployments["diabetes", "green"]
    client = await bench.client()
    over.set()
    assert (await client.score()).body == b"[2]"
    over.clear()
    client.send(bench.score())  # the second is copied
    await bench.until(lambda: green.tally.statuses == {499: 1})  # while the live one lasts
    assert (green.in_flight, compared) == (0, {})
    assert not [upstream for upstream in bench.gateway.upstreams if upstream._instance in green.instances]
    over.set()
    assert (await client.answer()).body == b"[2]"
    assert compared == {"unanswered": 1}


async def test_a_copys_answer_is_bounded_in_time(bench: Bench) -> None:
    """However little it sends: once the live answer is over, it has request_timeout_ms left."""

    async def drips(_: Any) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        while True:
            yield b"1\r\na\r\n"
            await asyncio.sleep(0.01)

    live, shadow = await bench.model(), await bench.model(drips)
    compared = await serve(bench, live, shadow, request_timeout_ms=100)
    green = bench.gateway.table.deployments["diabetes", "green"]
    client = await bench.client()
    assert [(await client.score()).status for _ in range(2)] == [200, 200]
    await bench.until(lambda: compared == {"unanswered": 1})
    assert (green.tally.statuses, green.in_flight) == ({408: 1}, 0)


async def test_a_stream_is_compared_to_its_end_however_long_it_lasts(bench: Bench) -> None:
    async def stream(_: Any) -> AsyncIterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
        for _ in range(6):
            await asyncio.sleep(0.1)
            yield b"1\r\na\r\n"
        yield b"0\r\n\r\n"

    live, shadow = await bench.model(stream), await bench.model(stream)
    compared = await serve(bench, live, shadow, request_timeout_ms=400)
    client = await bench.client()
    assert [(await client.score()).body for _ in range(2)] == [b"aaaaaa"] * 2
    await bench.until(lambda: compared == {"same": 1})


async def test_the_comparisons_are_metrics(bench: Bench) -> None:
    registry = CollectorRegistry()
    registry.register(RouterMetrics(bench.gateway, lambda: 0.0, lambda: 0.0))
    live, shadow = await bench.model(), await bench.model()
    compared = await serve(bench, live, shadow)
    client = await bench.client()
    for count, reply in enumerate((None, OTHER, BROKEN, b"nonsense\r\n\r\n"), 1):
        shadow.reply = reply or live.reply
        assert [(await client.score()).status for _ in range(2)] == [200, 200]
        await bench.until(lambda count=count: compared.total() == count)
    lines = generate_latest(registry).decode().splitlines()
    of_green = 'deployment="green",endpoint="diabetes"'
    for outcome in ("same", "body", "status", "unanswered"):
        assert f'endpunkt_router_mirrored_total{{{of_green},outcome="{outcome}"}} 1.0' in lines


def test_there_is_nothing_to_compare_without_a_live_answer() -> None:
    outcomes: Counter[str] = Counter()
    comparison = Comparison(outcomes)
    comparison.copy.ended(answered=True)
    comparison.live.ended(answered=False)
    assert outcomes == {}
