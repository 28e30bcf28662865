"""What a rule's metric is now: from samples to one number, by Azure Monitor's two steps.

PURE: no clock (`now` is an argument), no I/O, no Kafka.

The window is cut into grains, backwards from its end. Within a grain `statistic` combines what the instances have;
`time_aggregation` then combines the grains that have a value. A metric of the deployment as a whole (requests, latency)
is one instance in that sense: its sources, the routers, are added up within each second first.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Literal, NamedTuple

from autoscaler.window import Ring, Window
from contracts.messages import MetricTrigger

FILLED = 0.5
"""The share of a window that its samples must span before they speak for it."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A metric's value (for each instance when the trigger divides), or why there is none: `filling` while the samples
    span too little of the window, `missing` when it was watched for a whole window and had none."""

    state: Literal["known", "filling", "missing"]
    value: float = 0.0


class Point(NamedTuple):
    """What is known of one instance in one second; a grain's value is the sum of amounts over the sum of weights."""

    second: int
    amount: float
    weight: float


def read(trigger: MetricTrigger, window: Window, instances: int, now: datetime) -> Reading:
    """What `trigger`'s metric is at `now`, with `instances` running."""
    end = window.end(now)
    length = whole_seconds(trigger.time_window)
    measure = METRICS.get(trigger.metric_name)
    by_instance = measure(window, end - length, end) if measure else []
    values = _grains(trigger, by_instance, end)
    if not values:
        watched = window.since.timestamp() <= end - length
        return Reading("missing" if watched else "filling")
    seconds = [point.second for points in by_instance for point in points]
    if max(seconds) - min(seconds) + 1 < FILLED * length:
        return Reading("filling")
    value = _AGGREGATIONS[trigger.time_aggregation](values)
    return Reading("known", value / max(1, instances) if trigger.divide_per_instance else value)


def whole_seconds(duration: timedelta) -> int:
    """At least one."""
    return max(1, ceil(duration.total_seconds()))


def _grains(trigger: MetricTrigger, by_instance: Sequence[Sequence[Point]], end: int) -> list[float]:
    """The grains that have a value, newest first."""
    length = whole_seconds(trigger.time_grain)
    grains: dict[int, list[float]] = defaultdict(list)
    for points in by_instance:
        amounts: dict[int, float] = defaultdict(float)
        weights: dict[int, float] = defaultdict(float)
        for point in points:
            grain = (end - 1 - point.second) // length
            amounts[grain] += point.amount
            weights[grain] += point.weight
        for grain, weight in weights.items():
            if weight:
                grains[grain].append(amounts[grain] / weight)
    return [_STATISTICS[trigger.statistic](grains[grain]) for grain in sorted(grains)]


def _requests_per_minute(window: Window, start: int, end: int) -> list[list[Point]]:
    totals: dict[int, float] = defaultdict(float)
    for ring in window.load.values():
        for second, requests, _ in ring.between(start, end):
            totals[second] += requests
    return [[Point(second, 60 * requests, 1) for second, requests in totals.items()]]


def _request_latency(window: Window, start: int, end: int) -> list[list[Point]]:
    rings = window.load.values()
    return [[Point(at, millis, requests) for ring in rings for at, requests, millis in ring.between(start, end)]]


def _of_instances(rings: Callable[[Window], Mapping[str, Ring]], pick: Callable[[float, float], float]) -> "Measure":
    def measure(window: Window, start: int, end: int) -> list[list[Point]]:
        return [
            [Point(second, pick(first, other), 1) for second, first, other in ring.between(start, end)]
            for ring in rings(window).values()
        ]

    return measure


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


Measure = Callable[[Window, int, int], list[list[Point]]]

METRICS: dict[str, Measure] = {
    "RequestsPerMinute": _requests_per_minute,
    "RequestLatency": _request_latency,
    "CpuUtilizationPercentage": _of_instances(lambda window: window.resources, lambda cpu, _: cpu),
    "CpuMemoryUtilizationPercentage": _of_instances(lambda window: window.resources, lambda _, memory: memory),
    "DiskUtilization": _of_instances(lambda window: window.disks, lambda disk, _: disk),
}
"""The metrics that Endpunkt measures, by Azure's names: requests a minute, mean milliseconds, then percents."""

_STATISTICS: dict[str, Callable[[list[float]], float]] = {
    "Average": _mean,
    "Min": min,
    "Max": max,
    "Sum": sum,
    "Count": len,
}

_AGGREGATIONS: dict[str, Callable[[list[float]], float]] = {
    "Average": _mean,
    "Minimum": min,
    "Maximum": max,
    "Total": sum,
    "Count": len,
    "Last": lambda newest_first: newest_first[0],
}
