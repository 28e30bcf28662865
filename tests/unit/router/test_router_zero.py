"""A deployment at zero instances: requests are held, bounded in number and in time, until the first instance comes."""

from datetime import UTC, datetime
from typing import Any

Bench = Any
Model = Any
AT = datetime(2026, 1, 1, tzinfo=UTC)


def from_zero(bench: Bench, *models: Model, **settings: int) -> Any:
    """A deployment that the autoscaler may take to no instance at all."""
    deployment = bench.documents.deployment(autoscaled=True, minimum=0, **settings)
    bench.publish(
        bench.documents.desired({"blue": deployment}, {"blue": 100}),
        bench.documents.observed({"blue": {f"i{model.port}": model.address for model in models}}),
    )
    return bench.gateway.table.deployments["diabetes", "blue"]


async def test_requests_to_no_instance_are_held_and_answered_when_the_first_one_comes(bench: Bench) -> None:
    blue = from_zero(bench, request_timeout_ms=60_000, max_queue_wait_ms=1, max_concurrent_requests_per_instance=2)
    clients = [await bench.client() for _ in range(5)]
    for at, client in enumerate(clients[:4]):
        client.send(bench.score(b"%d" % at))
        await bench.until(lambda at=at: len(blue.waiting) == at + 1)
    refused = await clients[4].score()  # 2 x 2 x the first instance
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (429, "TooManyRequests", "1")
    sample = blue.tally.take_second("diabetes", "blue", "router-1", AT, blue.in_flight)
    assert (sample.in_flight, blue.tally.handed) == (4, 0)  # the signal to the autoscaler; nothing to pay for
    model = await bench.model()
    from_zero(bench, model, request_timeout_ms=60_000, max_queue_wait_ms=1, max_concurrent_requests_per_instance=2)
    assert [(await client.answer()).status for client in clients[:4]] == [200] * 4
    bodies = [request.body for request in model.requests]
    assert ({*bodies[:2]}, {*bodies[2:]}) == ({b"0", b"1"}, {b"2", b"3"})  # in order, two at a time
    assert (bench.quiet, blue.tally.statuses) == (True, {200: 4, 429: 1})


async def test_requests_to_no_instance_are_held_until_their_own_deadline(bench: Bench) -> None:
    blue = from_zero(bench, request_timeout_ms=80, max_queue_wait_ms=1)
    client = await bench.client()
    answer = await client.score()
    assert (answer.status, answer.code) == (503, "NoInstanceReady")
    assert (bench.quiet, blue.tally.statuses, blue.tally.handed) == (True, {503: 1}, 0)
    model = await bench.model()
    from_zero(bench, model)
    assert (await client.score()).status == 200  # the connection goes on
    from_zero(bench, request_timeout_ms=60_000)
    client.send(bench.score())
    await bench.until(lambda: blue.waiting)
    client.hang_up()
    await bench.until(lambda: bench.quiet)
    assert blue.tally.statuses == {503: 1, 200: 1, 499: 1}
