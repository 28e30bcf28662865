"""How long instances ran, for whom: the meter of instance time.

PURE: no clock, no I/O: `now` is an argument, and a `now` before the last one counts as the last one. Time is counted
in whole microseconds between instants, so the parts of an instance's life sum to the whole however they are cut.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from contracts.messages import INSTANCE_TIME, UsageRecorded, hour_of

_HOUR = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
Deployment = tuple[str, str]
"""An endpoint's and a deployment's name."""


@dataclass(slots=True)
class _Running:
    deployment: Deployment
    meter: str
    counted_to: datetime


@dataclass(slots=True)
class _Interval:
    started_at: datetime
    ended_at: datetime
    quantities: dict[str, int] = field(default_factory=dict)


class Meter:
    """Instances that run, and what they have used since the last `flush`."""

    def __init__(self, source: str, epoch: int):
        self._source, self._epoch = source, epoch
        self._running: dict[str, _Running] = {}
        self._open: dict[tuple[Deployment, datetime], _Interval] = {}
        self._sequences: dict[Deployment, int] = {}

    def start(self, instance: str, deployment: Deployment, instance_type: str, now: datetime) -> None:
        """The instance runs from now on."""
        self._running[instance] = _Running(deployment, INSTANCE_TIME + instance_type, now)

    def stop(self, instance: str, now: datetime) -> None:
        """The instance is gone."""
        self._count(self._running.pop(instance), now)

    def flush(self, now: datetime) -> list[UsageRecorded]:
        """Everything used up to now that was not told yet, an hour and deployment a record."""
        for running in self._running.values():
            self._count(running, now)
        records = []
        for (deployment, _), interval in sorted(self._open.items()):
            sequence = self._sequences[deployment] = self._sequences.get(deployment, 0) + 1
            records.append(
                UsageRecorded(
                    source=self._source,
                    epoch=self._epoch,
                    sequence=sequence,
                    endpoint=deployment[0],
                    deployment=deployment[1],
                    started_at=interval.started_at,
                    ended_at=interval.ended_at,
                    quantities=interval.quantities,
                )
            )
        self._open.clear()
        return records

    def _count(self, running: _Running, now: datetime) -> None:
        while running.counted_to < now:
            start, hour = running.counted_to, hour_of(running.counted_to)
            end = min(now, hour + _HOUR)
            interval = self._open.setdefault((running.deployment, hour), _Interval(start, end))
            interval.started_at, interval.ended_at = min(interval.started_at, start), max(interval.ended_at, end)
            used = interval.quantities.get(running.meter, 0)
            interval.quantities[running.meter] = used + (end - start) // _MICROSECOND
            running.counted_to = end
