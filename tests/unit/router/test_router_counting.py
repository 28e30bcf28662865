"""Load samples, usage intervals, request ids, deadlines: what is counted, and when."""

import asyncio
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from contracts.messages import UsageRecorded
from router.deadlines import Deadlines
from router.load import Tally
from router.outcomes import CLIENT_GONE
from router.request_ids import RequestIds
from router.settings import RouterSettings
from router.usage import UsageMeter

AT = datetime(2026, 1, 1, 10, 59, 50, tzinfo=UTC)
BLUE, GREEN = ("diabetes", "blue"), ("diabetes", "green")


def test_a_second() -> None:
    tally = Tally()
    tally.ended(200, 0.010)
    tally.ended(424, 0.030)
    tally.ended(429, 0.0)
    tally.ended(CLIENT_GONE, 0.002)
    sample = tally.take_second("diabetes", "blue", "router-1", AT, in_flight=3)
    assert (sample.requests, sample.failures, sample.in_flight) == (4, 2, 3)
    assert sample.latency_ms_sum == pytest.approx(42)
    assert sample.latency_ms_max == pytest.approx(30)
    assert (sample.source, sample.at, sample.key()) == ("router-1", AT, "diabetes/blue")
    quiet = tally.take_second("diabetes", "blue", "router-1", AT, in_flight=0)
    assert (quiet.requests, quiet.failures, quiet.latency_ms_sum, quiet.latency_ms_max) == (0, 0, 0, 0)
    assert tally.statuses == {200: 1, 424: 1, 429: 1, 499: 1}
    assert tally.seconds == pytest.approx(0.042)


def told(records: list[UsageRecorded]) -> list[tuple[str, int, int]]:
    return [(record.deployment, record.sequence, record.quantities["requests"]) for record in records]


def test_usage_is_numbered_without_a_gap_per_deployment() -> None:
    meter = UsageMeter("router-1", 7, AT)
    assert told(meter.cut(AT + timedelta(seconds=1), [(BLUE, 0), (GREEN, 0)])) == []
    assert told(meter.cut(AT + timedelta(seconds=2), [(BLUE, 5), (GREEN, 0)])) == [("blue", 1, 5)]
    assert told(meter.cut(AT + timedelta(seconds=3), [(BLUE, 5), (GREEN, 2)])) == [("green", 1, 2)]
    last = meter.cut(AT + timedelta(seconds=4), [(BLUE, 9), (GREEN, 2)])
    assert told(last) == [("blue", 2, 4)]
    assert (last[0].source, last[0].epoch, last[0].endpoint) == ("router-1", 7, "diabetes")
    assert (last[0].started_at, last[0].ended_at) == (AT + timedelta(seconds=3), AT + timedelta(seconds=4))


def test_an_interval_ends_with_its_hour() -> None:
    meter = UsageMeter("router-1", 7, AT)
    hour = datetime(2026, 1, 1, 11, tzinfo=UTC)
    assert meter.next_cut(5) == AT + timedelta(seconds=5)
    meter.cut(AT + timedelta(seconds=5), [])
    assert meter.next_cut(60) == hour
    late = meter.cut(hour + timedelta(milliseconds=20), [(BLUE, 3)])
    assert (late[0].started_at, late[0].ended_at) == (AT + timedelta(seconds=5), hour)
    after = meter.cut(hour + timedelta(seconds=5), [(BLUE, 4)])
    assert (after[0].started_at, after[0].ended_at) == (hour + timedelta(milliseconds=20), hour + timedelta(seconds=5))


def test_a_clock_that_jumps_back_makes_no_interval_that_ends_before_it_begins() -> None:
    meter = UsageMeter("router-1", 7, AT)
    record = meter.cut(AT - timedelta(seconds=30), [(BLUE, 1)])[0]
    assert (record.started_at, record.ended_at) == (AT, AT)


def test_a_deployment_that_comes_back_goes_on_with_its_numbers() -> None:
    meter = UsageMeter("router-1", 7, AT)
    meter.cut(AT, [(BLUE, 5)])
    meter.forget(BLUE)
    assert told(meter.cut(AT, [(BLUE, 2)])) == [("blue", 2, 2)]


def test_request_ids_are_version_4_guids_and_all_different() -> None:
    ids = RequestIds()
    made = [ids.next().decode() for _ in range(2000)]
    assert len(set(made)) == len(made)
    for each in made:
        parsed = uuid.UUID(each)
        assert (str(parsed), parsed.version, parsed.variant) == (each, 4, uuid.RFC_4122)


class FakeLoop:
    """A loop whose time a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.timers: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[[], None]) -> Any:
        self.timers.append((self.now + delay, callback))
        return asyncio.TimerHandle

    def advance(self, to: float) -> None:
        while due := [timer for timer in self.timers if timer[0] <= to]:
            timer = min(due, key=lambda each: each[0])
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = to


def test_deadlines() -> None:
    loop, expired = FakeLoop(), []
    deadlines: Deadlines[str] = Deadlines(loop, 5.0, lambda item: expired.append((loop.now, item)))  # type: ignore[arg-type]
    deadlines.add("a", loop.now)
    loop.advance(101)
    deadlines.add("b", loop.now)
    deadlines.add("c", loop.now)
    loop.advance(102)
    deadlines.add("d", loop.now)
    assert len(loop.timers) == 1  # one timer for all
    deadlines.remove("b")
    deadlines.remove("unknown")
    loop.advance(104)
    deadlines.again("c", loop.now)
    loop.advance(200)
    assert expired == [(105.0, "a"), (107.0, "d"), (109.0, "c")]
    assert loop.timers == []
    deadlines.add("e", loop.now)
    loop.advance(300)
    assert expired[-1] == (205.0, "e")


def test_whom_the_certificate_is_for() -> None:
    settings = RouterSettings(region="west", domain="example.org", extra_hosts="ml.example.org, 10.0.0.7,")
    assert settings.suffix == ".west.inference.example.org"
    assert settings.certificate_hosts == [
        *("localhost", "127.0.0.1", "::1", "*.west.inference.example.org", "ml.example.org", "10.0.0.7")
    ]
