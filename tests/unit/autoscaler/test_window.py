"""The window is bounded, whatever comes in."""

from datetime import UTC, datetime, timedelta

from autoscaler.window import Ring, Window
from contracts.messages import LoadSample

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def load(second: int, requests: int = 1, source: str = "router-1") -> LoadSample:
    return LoadSample(
        endpoint="diabetes",
        deployment="blue",
        source=source,
        at=NOON + timedelta(seconds=second),
        requests=requests,
        failures=0,
        in_flight=0,
        latency_ms_sum=0,
        latency_ms_max=0,
    )


def test_a_ring_holds_the_newest_seconds_and_gives_them_in_order() -> None:
    ring = Ring(4)
    for second in (100, 101, 102, 103, 104, 106):
        ring.put(second, second, -second)
    assert list(ring.between(0, 200)) == []
    assert list(ring.between(100, 107)) == [(103, 103, -103), (104, 104, -104), (106, 106, -106)]
    assert list(ring.between(104, 106)) == [(104, 104, -104)]


def test_a_second_that_is_too_old_does_not_replace_a_newer_one() -> None:
    ring = Ring(4)
    ring.put(104, 1, 1)
    ring.put(100, 2, 2)
    ring.put(-62_135_596_800, 3, 3)
    assert list(ring.items()) == [(104, 1, 1)]


def test_sources_that_are_gone_are_let_go() -> None:
    window = Window(10, NOON)
    window.add(load(0, source="gone"))
    window.add(load(5))
    window.forget(NOON + timedelta(seconds=10))
    assert set(window.load) == {"gone", "router-1"}
    window.forget(NOON + timedelta(seconds=11))
    assert set(window.load) == {"router-1"}


def test_a_window_of_another_length_keeps_the_samples_that_fit() -> None:
    window = Window(10, NOON)
    for second in range(10):
        window.add(load(second, requests=second))
    longer, shorter = window.resized(20), window.resized(3)
    start = int(NOON.timestamp())
    seconds = [second - start for second, _, _ in longer.load["router-1"].between(start, start + 10)]
    assert seconds == list(range(10))
    assert [second - start for second, _, _ in shorter.load["router-1"].between(start, start + 10)] == [7, 8, 9]
    assert (longer.since, shorter.since) == (NOON, NOON)
