"""Instance time: how long instances have existed, in microseconds, from process start to process end.

PURE: a ledger of what was counted; the shell says when, and writes what it gives. No clock and no I/O. No gap and no
overlap: each instance is counted from where it was counted to, whatever the flushes' rhythm.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from contracts.messages import INSTANCE_TIME, UsageRecorded, hour_of

_MICROSECOND = timedelta(microseconds=1)


@dataclass(slots=True)
class _Span:
    """The part of one instance's life that is not told yet: from `since` on, to `until` if it has ended."""

    endpoint: str
    deployment: str
    meter: str
    since: datetime
    until: datetime | None = None

    def microseconds(self, begin: datetime, end: datetime) -> int:
        """How much of the span lies between two instants."""
        return max(timedelta(0), min(end, self.until or end) - max(begin, self.since)) // _MICROSECOND


class InstanceTime:
    """The usage that `source` tells. Its sequence numbers begin anew with each `epoch`."""

    def __init__(self, source: str, epoch: int):
        self._source = source
        self._epoch = epoch
        self._spans: dict[str, _Span] = {}
        self._ended: list[_Span] = []
        self._sequences: defaultdict[tuple[str, str], int] = defaultdict(int)

    def __bool__(self) -> bool:
        """Whether there is an instance to tell of."""
        return bool(self._spans or self._ended)

    def begin(self, instance: str, endpoint: str, deployment: str, instance_type: str, since: datetime) -> None:
        """Count an instance from `since` on. An id may come again once it has ended."""
        self._spans[instance] = _Span(endpoint, deployment, INSTANCE_TIME + instance_type, since)

    def end(self, instance: str, until: datetime) -> None:
        """The instance ended."""
        span = self._spans.pop(instance)
        span.until = until
        self._ended.append(span)

    def flush(self, now: datetime) -> list[UsageRecorded]:
        """What was used and not told, to `now`: a record for each deployment and UTC hour that it touches."""
        grouped: defaultdict[tuple[str, str], list[_Span]] = defaultdict(list)
        for span in (*self._spans.values(), *self._ended):
            grouped[span.endpoint, span.deployment].append(span)
        records = [record for of, spans in grouped.items() for record in self._tell(of, spans, now)]
        self._ended.clear()
        for span in self._spans.values():
            span.since = max(span.since, now)
        return records

    def _tell(self, of: tuple[str, str], spans: list[_Span], now: datetime) -> Iterator[UsageRecorded]:
        for begin, end in _hours(min(span.since for span in spans), max(span.until or now for span in spans)):
            quantities: defaultdict[str, int] = defaultdict(int)
            for span in spans:
                quantities[span.meter] += span.microseconds(begin, end)
            used = {meter: quantity for meter, quantity in quantities.items() if quantity}
            if not used:
                continue
            self._sequences[of] += 1
            yield UsageRecorded(
                source=self._source,
                epoch=self._epoch,
                sequence=self._sequences[of],
                endpoint=of[0],
                deployment=of[1],
                started_at=begin,
                ended_at=end,
                quantities=used,
            )


def _hours(begin: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The interval, cut at each full hour."""
    while begin < end:
        cut = min(end, hour_of(begin) + timedelta(hours=1))
        yield begin, cut
        begin = cut
