"""The meter of instance time, as a timeline."""

from datetime import UTC, datetime, timedelta

from contracts.instance_time import InstanceTime
from contracts.messages import UsageRecorded

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TYPE = "Standard_DS1_v2"
BLUE, GREEN = ("diabetes", "blue"), ("diabetes", "green")


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def told(record: UsageRecorded) -> tuple[str, int, float, float, int]:
    start, end = ((one - NOON).total_seconds() for one in (record.started_at, record.ended_at))
    return (record.deployment, record.sequence, start, end, record.quantities[f"instance-time/{TYPE}"])


def test_time_is_told_from_start_to_stop_each_microsecond_once() -> None:
    meter = InstanceTime("batch-runner-1", 7)
    assert meter.flush(at(0)) == []
    meter.begin("one", *BLUE, TYPE, at(0))
    meter.begin("two", *BLUE, TYPE, at(1))
    assert [told(one) for one in meter.flush(at(5))] == [("blue", 1, 0, 5, 9_000_000)]
    meter.end("one", at(5.5))
    meter.begin("three", *GREEN, TYPE, at(6))
    assert [told(one) for one in meter.flush(at(7))] == [("blue", 2, 5, 7, 2_500_000), ("green", 1, 6, 7, 1_000_000)]
    meter.end("two", at(7.000_001))
    meter.end("three", at(7))
    [last] = meter.flush(at(100))
    assert told(last) == ("blue", 3, 7, 7.000_001, 1)
    assert (last.source, last.epoch, last.endpoint) == ("batch-runner-1", 7, "diabetes")
    assert meter.flush(at(200)) == []


def test_an_interval_is_cut_at_the_hour() -> None:
    meter = InstanceTime("s", 1)
    meter.begin("one", *BLUE, TYPE, at(-10))
    meter.end("one", at(2 * 3600 + 5))
    assert [told(one) for one in meter.flush(at(8000))] == [
        ("blue", 1, -10, 0, 10_000_000),
        ("blue", 2, 0, 3600, 3_600_000_000),
        ("blue", 3, 3600, 7200, 3_600_000_000),
        ("blue", 4, 7200, 7205, 5_000_000),
    ]


def test_instance_types_are_metered_apart_and_a_clock_that_goes_back_takes_nothing_away() -> None:
    meter = InstanceTime("s", 1)
    meter.begin("one", *BLUE, TYPE, at(0))
    meter.begin("two", *BLUE, "Standard_F2s_v2", at(0))
    [record] = meter.flush(at(10))
    assert record.quantities == {f"instance-time/{TYPE}": 10_000_000, "instance-time/Standard_F2s_v2": 10_000_000}
    assert meter.flush(at(4)) == []
    meter.end("one", at(4))
    [record] = meter.flush(at(12))
    assert record.quantities == {"instance-time/Standard_F2s_v2": 2_000_000}


def test_an_id_that_comes_again_loses_nothing_of_its_life_before() -> None:
    meter = InstanceTime("s", 1)
    meter.begin("one", *BLUE, TYPE, at(0))
    meter.end("one", at(3))
    meter.begin("one", *BLUE, TYPE, at(5))
    assert [told(one) for one in meter.flush(at(6))] == [("blue", 1, 0, 6, 4_000_000)]
