"""From samples to one number: every statistic and aggregation, several sources, what is unknown and what is missing."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autoscaler.readings import Reading, read
from autoscaler.window import SETTLE_SECONDS, Window
from contracts.messages import LoadSample, MetricTrigger, ResourceSample

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def load(second: int, requests: int, source: str = "router-1", latency: float = 0.0) -> LoadSample:
    return LoadSample(
        endpoint="diabetes",
        deployment="blue",
        source=source,
        at=after(second),
        requests=requests,
        failures=0,
        in_flight=0,
        latency_ms_sum=latency,
        latency_ms_max=latency,
    )


def resources(second: int, instance: str, cpu: float, memory: float = 0.0, disk: float | None = None) -> ResourceSample:
    return ResourceSample(
        endpoint="diabetes",
        deployment="blue",
        source="provisioner-1",
        at=after(second),
        instance=instance,
        cpu_percent=cpu,
        memory_percent=memory,
        disk_percent=disk,
    )


def trigger(window: float = 4, grain: float = 1, metric: str = "RequestsPerMinute", **fields: Any) -> MetricTrigger:
    return MetricTrigger(
        metric_name=metric,
        time_grain=timedelta(seconds=grain),
        time_window=timedelta(seconds=window),
        operator="GreaterThan",
        threshold=0,
        **fields,
    )


def window(*samples: LoadSample | ResourceSample, seconds: int = 600, since: datetime = NOON) -> Window:
    watching = Window(seconds, since)
    for sample in samples:
        watching.add(sample)
    return watching


def value(what: MetricTrigger, watching: Window, *, at: float = 4 + SETTLE_SECONDS, instances: int = 1) -> float:
    reading = read(what, watching, instances, after(at))
    assert reading.state == "known"
    return reading.value


def state(what: MetricTrigger, watching: Window, at: float) -> str:
    return read(what, watching, 1, after(at)).state


FOUR = [load(0, 1), load(1, 2), load(2, 6), load(3, 3)]


@pytest.mark.parametrize(
    ("aggregation", "expected"),
    [("Average", 180.0), ("Minimum", 60.0), ("Maximum", 360.0), ("Total", 720.0), ("Count", 4.0), ("Last", 180.0)],
)
def test_an_aggregation_combines_the_grains(aggregation: str, expected: float) -> None:
    assert value(trigger(time_aggregation=aggregation), window(*FOUR)) == expected


@pytest.mark.parametrize(
    ("statistic", "expected"), [("Average", 50.0), ("Min", 20.0), ("Max", 90.0), ("Sum", 150.0), ("Count", 3.0)]
)
def test_a_statistic_combines_the_instances_of_a_grain(statistic: str, expected: float) -> None:
    samples = [
        resources(second, instance, cpu)
        for second in range(4)
        for instance, cpu in (("a", 20.0), ("b", 40.0), ("c", 90.0))
    ]
    assert value(trigger(metric="CpuUtilizationPercentage", statistic=statistic), window(*samples)) == expected


@pytest.mark.parametrize(
    ("statistic", "aggregation", "expected"),
    [
        ("Max", "Average", (30 + 60) / 2),  # the fuller instance of each grain, and of these the mean
        ("Average", "Maximum", (20 + 60) / 2),  # the mean of each grain, and of these the fullest
        ("Min", "Last", 20.0),
        ("Sum", "Total", 10.0 + 30 + 20 + 60),
        ("Count", "Total", 4.0),
    ],
)
def test_statistic_first_and_aggregation_then(statistic: str, aggregation: str, expected: float) -> None:
    samples = [
        *(resources(second, "a", 10.0) for second in (0, 1)),
        *(resources(second, "b", 30.0) for second in (0, 1)),
        *(resources(second, "a", 20.0) for second in (2, 3)),
        *(resources(second, "b", 60.0) for second in (2, 3)),
    ]
    what = trigger(grain=2, metric="CpuUtilizationPercentage", statistic=statistic, time_aggregation=aggregation)
    assert value(what, window(*samples)) == expected


def test_memory_is_a_metric_of_its_own() -> None:
    samples = [resources(second, "a", 99.0, memory=12.5) for second in range(4)]
    assert value(trigger(metric="CpuMemoryUtilizationPercentage"), window(*samples)) == 12.5


def test_disk_is_read_from_the_samples_that_tell_it() -> None:
    told = [resources(second, "a", 90.0, 90.0, disk=40.0) for second in range(4)]
    silent = [resources(second, "b", 90.0, 90.0) for second in range(4)]
    disk = trigger(metric="DiskUtilization")
    assert value(disk, window(*told, *silent)) == 40.0
    assert read(disk, window(*silent), 1, after(4 + SETTLE_SECONDS)).state == "missing"
    assert value(disk, window(*told).resized(60)) == 40.0
    watching = window(*told)
    watching.forget(after(4 + watching.seconds))
    assert not watching.disks


def test_routers_are_added_up_within_each_second() -> None:
    both = window(*(load(second, 2, source) for second in range(4) for source in ("router-1", "router-2")))
    for aggregation in ("Average", "Minimum", "Maximum", "Last"):
        assert value(trigger(time_aggregation=aggregation), both) == 240.0


def test_latency_is_the_mean_over_requests_and_not_over_seconds_or_routers() -> None:
    watching = window(
        load(0, 99, latency=990.0), load(1, 1, latency=110.0), load(2, 0), load(3, 0), load(0, 100, "router-2", 4000.0)
    )
    assert value(trigger(grain=4, metric="RequestLatency"), watching) == (990 + 110 + 4000) / 200


def test_latency_of_no_requests_is_missing_and_not_zero() -> None:
    watching = window(*(load(second, 0) for second in range(4)))
    assert state(trigger(metric="RequestLatency"), watching, 5) == "missing"
    assert value(trigger(), watching) == 0.0


def test_dividing_is_by_the_instances_there_are_and_by_one_when_there_is_none() -> None:
    what = trigger(divide_per_instance=True)
    assert [value(what, window(*FOUR), instances=instances) for instances in (0, 1, 2, 3)] == [180, 180, 90, 60]


def test_a_sample_that_comes_again_replaces_itself() -> None:
    assert value(trigger(), window(*FOUR, *FOUR, load(3, 3))) == 180.0


def test_a_second_is_used_when_it_is_over_and_had_time_to_arrive() -> None:
    watching = window(*FOUR, load(4, 1000))
    assert value(trigger(), watching, at=4 + SETTLE_SECONDS + 0.9) == 180.0
    assert value(trigger(), watching, at=5 + SETTLE_SECONDS) > 10_000


def test_a_second_that_nobody_told_is_unknown_and_not_zero() -> None:
    assert value(trigger(), window(load(0, 2), load(1, 2), load(3, 2))) == 120.0


def test_a_window_that_is_no_whole_number_of_grains_ends_with_a_short_one() -> None:
    watching = window(load(0, 60), *(load(second, 1) for second in range(1, 5)))
    # Grains, newest first: seconds 3 and 4, 1 and 2, and 0 alone.
    assert value(trigger(window=5, grain=2, time_aggregation="Count"), watching, at=6) == 3
    assert value(trigger(window=5, grain=2, time_aggregation="Maximum"), watching, at=6) == 3600


def test_durations_below_a_second_are_a_second() -> None:
    what = trigger(window=0.5, grain=0.1)
    assert value(what, window(load(3, 1)), at=5) == 60.0


def test_a_fresh_window_fills_before_it_speaks() -> None:
    what = trigger(window=10)
    watching = window()
    states = []
    for second in range(7):
        states.append(state(what, watching, second + 0.5))
        watching.add(load(second, 5))
    # Half of ten seconds is spanned when second 4 is used: at the age of six.
    assert states == ["filling"] * 6 + ["known"]


def test_silence_is_missing_only_after_a_whole_window_was_watched() -> None:
    watching = window(since=after(100))
    what = trigger(window=60)
    assert [state(what, watching, 100 + age) for age in (0, 30, 60, 61, 600)] == [
        "filling",
        "filling",
        "filling",
        "missing",
        "missing",
    ]


def test_samples_that_end_become_too_few_and_then_missing() -> None:
    watching = window(*(load(second, 5) for second in range(30)))
    what = trigger(window=10)
    assert [state(what, watching, at) for at in (31, 36, 37, 40, 41)] == [
        "known",
        "known",
        "filling",
        "filling",
        "missing",
    ]


def test_a_metric_that_is_not_measured_is_missing() -> None:
    watching = window(*(load(second, 5) for second in range(30)))
    assert state(trigger(metric="DiskUtilization"), watching, 31) == "missing"
    assert read(trigger(metric="DiskUtilization"), window(since=after(30)), 1, after(31)) == Reading("filling")


def test_samples_every_few_seconds_fill_a_window_too() -> None:
    samples = [resources(second, "a", 40.0) for second in range(0, 60, 5)]
    assert value(trigger(window=60, grain=60, metric="CpuUtilizationPercentage"), window(*samples), at=61) == 40.0
