"""Counting what is paid for: the requests that were handed to a model.

PURE: `now` is an argument. No clock and no I/O may enter this module.

A request counts once, when a model first gets it, however often it was retried; one that was refused before that
costs nothing.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from contracts.messages import REQUESTS, UsageRecorded, hour_of

Key = tuple[str, str]


class UsageMeter:
    """Cuts growing counters into intervals that lie within one UTC hour and are numbered without a gap.

    A deployment is told when it had requests in the interval: an interval without any leaves no record and uses no
    number.
    """

    def __init__(self, source: str, epoch: int, started_at: datetime):
        self._source, self._epoch = source, epoch
        self._interval_began = started_at
        self._told: dict[Key, int] = {}
        self._sequences: dict[Key, int] = {}

    def next_cut(self, seconds: float) -> datetime:
        """When the interval that is running ends: after `seconds`, at the latest with the hour."""
        return min(
            self._interval_began + timedelta(seconds=seconds), hour_of(self._interval_began) + timedelta(hours=1)
        )

    def cut(self, now: datetime, handed: Iterable[tuple[Key, int]]) -> list[UsageRecorded]:
        """End the interval at `now`, given each deployment's counter, and begin the next. An interval that is told
        late ends with its hour."""
        began, ended = self._interval_began, min(now, hour_of(self._interval_began) + timedelta(hours=1))
        ended = max(began, ended)
        records = []
        for key, count in handed:
            quantity = count - self._told.get(key, 0)
            if quantity <= 0:
                continue
            self._told[key] = count
            self._sequences[key] = sequence = self._sequences.get(key, 0) + 1
            records.append(
                UsageRecorded(
                    source=self._source,
                    epoch=self._epoch,
                    sequence=sequence,
                    endpoint=key[0],
                    deployment=key[1],
                    started_at=began,
                    ended_at=ended,
                    quantities={REQUESTS: quantity},
                )
            )
        self._interval_began = max(now, ended)
        return records

    def forget(self, key: Key) -> None:
        """A deployment is gone and its counter with it; should it come back, its numbers go on and it counts from 0."""
        self._told.pop(key, None)
