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
    number, except that the last one closes what the ones before left open (see `UsageRecorded`). Who does not cut for a
    while folds intervals into one.
    """

    def __init__(self, source: str, epoch: int, started_at: datetime):
        self._source, self._epoch = source, epoch
        self._interval_began = started_at
        self._told: dict[Key, int] = {}
        self._sequences: dict[Key, int] = {}
        self._open: set[Key] = set()

    @property
    def hour_ends(self) -> datetime:
        """When the interval that is running must be cut at the latest."""
        return hour_of(self._interval_began) + timedelta(hours=1)

    def next_cut(self, seconds: float) -> datetime:
        """When the interval that is running ends: after `seconds`, at the latest with the hour."""
        return min(self._interval_began + timedelta(seconds=seconds), self.hour_ends)

    def preview(self, now: datetime, handed: Iterable[tuple[Key, int]]) -> list[UsageRecorded]:
        """What `cut` would tell now. Nothing changes."""
        ended = self._end(now)
        return [
            self._record(key, quantity, ended, open=True)
            for key, count in handed
            if (quantity := count - self._told.get(key, 0)) > 0
        ]

    def cut(self, now: datetime, handed: Iterable[tuple[Key, int]], *, last: bool = False) -> list[UsageRecorded]:
        """End the interval at `now`, given each deployment's counter, and begin the next. An interval that is told
        late ends with its hour. After the `last` one nothing is counted any more."""
        ended = self._end(now)
        records = []
        for key, count in handed:
            quantity = count - self._told.get(key, 0)
            if quantity <= 0:
                continue
            self._told[key] = count
            records.append(self._record(key, quantity, ended, open=not last))
            self._tell(key, open=not last)
        self._interval_began = max(now, ended)
        if last:
            records += [record for key in sorted(self._open) if (record := self._close(key)) is not None]
        return records

    def forget(self, key: Key) -> UsageRecorded | None:
        """A deployment is gone and its counter with it; should it come back, its numbers go on and it counts from 0.
        Returns the record that closes it."""
        self._told.pop(key, None)
        return self._close(key)

    def _close(self, key: Key) -> UsageRecorded | None:
        if key not in self._open:
            return None
        record = self._record(key, 0, self._interval_began, open=False)
        self._tell(key, open=False)
        return record

    def _end(self, now: datetime) -> datetime:
        return max(self._interval_began, min(now, self.hour_ends))

    def _record(self, key: Key, quantity: int, ended: datetime, *, open: bool) -> UsageRecorded:
        return UsageRecorded(
            source=self._source,
            epoch=self._epoch,
            sequence=self._sequences.get(key, 0) + 1,
            endpoint=key[0],
            deployment=key[1],
            started_at=self._interval_began,
            ended_at=ended,
            quantities={REQUESTS: quantity},
            open=open,
        )

    def _tell(self, key: Key, *, open: bool) -> None:
        self._sequences[key] = self._sequences.get(key, 0) + 1
        (self._open.add if open else self._open.discard)(key)
