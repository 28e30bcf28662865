"""Load samples, usage intervals, request ids, deadlines: what is counted, and when."""

import asyncio
import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from contracts.messages import UsageRecorded
from router.deadlines import Deadlines
from router.load import Tally
from router.outcomes import CLIENT_GONE
from router.reporting import Reporter
from router.request_ids import RequestIds
from router.settings import RouterSettings
from router.unsent import Unsent
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


def test_a_deployment_that_is_gone_is_closed_and_goes_on_with_its_numbers_if_it_comes_back() -> None:
    meter = UsageMeter("router-1", 7, AT)
    meter.cut(AT, [(BLUE, 5)])
    closing = meter.forget(BLUE)
    assert closing is not None
    assert (told([closing]), closing.open) == ([("blue", 2, 0)], False)
    assert meter.forget(BLUE) is None
    assert meter.forget(GREEN) is None
    assert told(meter.cut(AT, [(BLUE, 2)])) == [("blue", 3, 2)]


def test_every_deployment_s_last_record_is_closed_and_no_other() -> None:
    meter = UsageMeter("router-1", 7, AT)
    first = meter.cut(AT + timedelta(seconds=1), [(BLUE, 5), (GREEN, 1)])
    last = meter.cut(AT + timedelta(seconds=2), [(BLUE, 5), (GREEN, 3), (("diabetes", "never"), 0)], last=True)
    assert told(last) == [("green", 2, 2), ("blue", 2, 0)]
    assert [record.open for record in (*first, *last)] == [True, True, False, False]
    assert meter.cut(AT + timedelta(seconds=3), [(BLUE, 5), (GREEN, 3)], last=True) == []


def test_a_preview_changes_nothing_and_is_what_is_cut_next() -> None:
    meter = UsageMeter("router-1", 7, AT)
    meter.cut(AT, [(BLUE, 5)])
    now = AT + timedelta(seconds=2)
    counters = [(BLUE, 7), (GREEN, 3)]
    preview = meter.preview(now, counters)
    assert told(preview) == [("blue", 2, 2), ("green", 1, 3)]
    assert meter.preview(now, counters) == preview == meter.cut(now, counters)


class Bus:
    """A publisher whose Kafka takes things or does not."""

    def __init__(self) -> None:
        self.sent: list[UsageRecorded] = []
        self.takes = True
        self.tried = asyncio.Event()

    async def send(self, record: UsageRecorded, *, id: str) -> "asyncio.Future[None]":
        assert id == f"{record.source}/{record.epoch}/{record.key()}/{record.sequence}"
        taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.takes:
            self.sent.append(record)
            taken.set_result(None)
        else:
            taken.set_exception(OSError("no broker"))
        self.tried.set()
        return taken

    def told(self) -> list[tuple[int, str, int, int, bool]]:
        """Epoch (as 1, 2, ...), deployment, number, requests, open."""
        epochs = sorted({record.epoch for record in self.sent})
        return [
            (epochs.index(each.epoch) + 1, each.deployment, each.sequence, each.quantities["requests"], each.open)
            for each in self.sent
        ]


class House:
    """A router's counters, and the process that tells them. `home` outlives it."""

    def __init__(self, bench: Any, home: Path, bus: Bus, seconds: float = 0.01):
        self.bench, self.home, self.bus = bench, home, bus
        bench.publish(
            bench.documents.desired({"blue": bench.documents.deployment()}, {"blue": 100}),
            bench.documents.observed({"blue": {}}),
        )
        self.tally = bench.gateway.table.deployments["diabetes", "blue"].tally
        self.seconds = seconds

    def reporter(self, source: str = "router-1", is_former: Callable[[str], bool] = lambda _: False) -> Any:
        self.tally.handed = 0
        return Reporter(self.bench.gateway, cast(Any, self.bus), source, self.seconds, self.home, is_former)

    def kept(self, source: str = "router-1") -> list[list[dict[str, Any]]]:
        file = self.home / "usage" / f"{source}.json"
        return list(json.loads(file.read_text())["intervals"]) if file.exists() else []

    def keeps(self, requests: int) -> bool:
        return sum(each["quantities"]["requests"] for interval in self.kept() for each in interval) == requests


async def test_what_a_stop_cannot_send_the_next_start_sends_once_and_first(bench: Any, tmp_path: Path) -> None:
    house = House(bench, tmp_path, bus := Bus())
    bus.takes = False
    first = house.reporter()
    house.tally.handed = 5
    await first.flush()
    file = tmp_path / "usage" / "router-1.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert [[each["quantities"] for each in interval] for interval in house.kept()] == [[{"requests": 5}]]

    second = house.reporter()  # whose Kafka is away as well
    house.tally.handed = 2
    await second.flush()
    bus.takes = True
    third = house.reporter()
    house.tally.handed = 1
    await third.flush()
    assert bus.told() == [(1, "blue", 1, 5, False), (2, "blue", 1, 2, False), (3, "blue", 1, 1, False)]
    assert house.kept() == []
    await house.reporter().flush()
    assert len(bus.sent) == 3


async def test_a_kafka_that_is_away_makes_one_interval_of_many_and_a_kill_takes_little_of_it(
    bench: Any, tmp_path: Path
) -> None:
    house = House(bench, tmp_path, bus := Bus())
    bus.takes = False
    reporter = house.reporter()
    house.tally.handed = 3
    telling = asyncio.create_task(reporter.tell_usage())
    await asyncio.wait_for(bus.tried.wait(), 10)
    for handed in range(4, 30):  # each is on disk before the next comes
        house.tally.handed = handed
        await bench.until(partial(house.keeps, handed))
    assert len(house.kept()) <= 3  # three where an hour has just ended
    telling.cancel()  # as by SIGKILL: nobody flushes
    await asyncio.gather(telling, return_exceptions=True)
    reporter._unsent.release()

    bus.takes = True
    await house.reporter().flush()
    assert bus.told()[0] == (1, "blue", 1, 3, True)
    assert sum(record.quantities["requests"] for record in bus.sent) == 29
    assert all(record.open for record in bus.sent)


async def test_when_kafka_is_back_all_is_told_and_nothing_is_left_on_disk(bench: Any, tmp_path: Path) -> None:
    house = House(bench, tmp_path, bus := Bus())
    bus.takes = False
    reporter = house.reporter()
    house.tally.handed = 3
    telling = asyncio.create_task(reporter.tell_usage())
    await asyncio.wait_for(bus.tried.wait(), 10)
    house.tally.handed = 8
    await bench.until(partial(house.keeps, 8))
    bus.takes = True
    await bench.until(lambda: sum(record.quantities["requests"] for record in bus.sent) == 8 and not house.kept())
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await reporter.flush()
    assert bus.told()[0] == (1, "blue", 1, 3, True)
    assert bus.told()[-1] == (1, "blue", len(bus.sent), 0, False)


async def test_only_one_process_is_a_source_and_sources_that_are_no_more_are_told_by_another(
    bench: Any, tmp_path: Path
) -> None:
    house = House(bench, tmp_path, bus := Bus())
    bus.takes = False
    for source in ("router-1", "router-1-2"):  # it had several processes once
        gone = house.reporter(source)
        house.tally.handed = 4
        await gone.flush()
    alive = Unsent(tmp_path, "router-1-2")
    assert alive.claim()
    bus.takes = True
    is_former = RouterSettings().is_former_source
    await house.reporter(is_former=is_former).flush()
    assert [record.source for record in bus.sent] == ["router-1"]
    alive.release()
    await house.reporter(is_former=is_former).flush()
    assert [record.source for record in bus.sent] == ["router-1", "router-1-2"]
    assert not (tmp_path / "usage" / "router-1-2.json").exists()

    one = house.reporter()
    telling = asyncio.create_task(one.tell_usage())
    house.tally.handed = 1
    await bench.until(lambda: len(bus.sent) == 3)
    other = Unsent(tmp_path, "router-1")
    assert not other.claim()
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)
    await one.flush()
    assert other.claim()
    other.release()


async def test_an_epoch_is_larger_than_the_last_whatever_the_clock_says(bench: Any, tmp_path: Path) -> None:
    ahead = Unsent(tmp_path, "router-1")
    assert ahead.claim()
    ahead.keep(1 << 50, [])
    ahead.release()
    house = House(bench, tmp_path, bus := Bus())
    reporter = house.reporter()
    house.tally.handed = 1
    await reporter.flush()
    assert bus.sent[0].epoch == (1 << 50) + 1


async def test_a_file_that_is_none_and_a_disk_that_fails_are_told_and_stop_nothing(
    bench: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "usage").mkdir()
    (tmp_path / "usage" / "router-1.json").write_text("nonsense")
    house = House(bench, tmp_path, bus := Bus())
    reporter = house.reporter()
    house.tally.handed = 1
    await reporter.flush()
    assert len(bus.sent) == 1
    assert "router-1.unreadable" in caplog.text
    assert (tmp_path / "usage" / "router-1.unreadable").read_text() == "nonsense"

    broken = tmp_path / "broken"
    broken.write_text("a file where a folder should be")
    house.home, bus.takes = broken, False
    reporter = house.reporter()
    house.tally.handed = 7
    await reporter.flush()
    assert "the usage of 7 requests is lost" in caplog.text


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


def test_which_sources_are_former_ones() -> None:
    names = ["router-1", "router-1-1", "router-1-2", "router-1-3", "router-2", "router-1-x", "1"]

    def former(**settings: Any) -> list[str]:
        return [name for name in names if RouterSettings(**settings).is_former_source(name)]

    assert former() == ["router-1-1", "router-1-2", "router-1-3"]
    assert former(router_processes=2, router_worker=2, source="router-1-2") == ["router-1", "router-1-3"]


def test_whom_the_certificate_is_for() -> None:
    settings = RouterSettings(region="west", domain="example.org", extra_hosts="ml.example.org, 10.0.0.7,")
    assert settings.suffix == ".west.inference.example.org"
    assert settings.certificate_hosts == [
        *("localhost", "127.0.0.1", "::1", "*.west.inference.example.org", "ml.example.org", "10.0.0.7")
    ]
