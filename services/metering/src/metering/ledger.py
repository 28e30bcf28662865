"""What usage adds up to: one rollup for each hour of each deployment.

PURE: messages in, messages out. No clock (`now` is an argument), no I/O, no Kafka, no prometheus_client.

Which records count, and how often:

- A record's interval decides its hour, so that a repeated record always meets the watermark that it set itself: one
  whose (epoch, sequence) is not beyond its rollup's watermark for its source counts no second time. A larger epoch is a
  source that was started again.
- A source's records of one deployment are in order in the log (one key, one idempotent producer). A number that is
  skipped within an epoch, or before the first one of an epoch, is a record that is lost. So is one where an epoch
  begins and the one before it ended with an open record: that source was killed, and what it had counted since is gone
  (whether that was anything nobody knows). The rollup of the record that shows the gap counts it.
- Rollups stay in memory for HORIZON after the newest usage. A record that is older belongs to one that is not there to
  be added to: it is parked, unless its source was already past it, which makes it a duplicate.
- A meter without a price keeps its quantity and has no cost. The rollup's next change prices it if the catalogue then
  can; costs are always those of the whole quantity by the catalogue at the last change.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from contracts.catalog import Catalog
from contracts.envelope import Record, Undecodable
from contracts.messages import Message, Problem, UsageRecorded, UsageRollup, Watermark, hour_of

HORIZON = timedelta(days=3)
_HOUR_IN_KEY = "%Y-%m-%dT%HZ"


class Mark(NamedTuple):
    """How far a source is; marks compare as they follow each other. `open`: it was to tell more in this epoch."""

    epoch: int
    sequence: int
    open: bool = False


@dataclass(slots=True)
class Rollup:
    """One hour of one deployment, while it is added to."""

    quantities: dict[str, int] = field(default_factory=dict)
    lost: int = 0
    sources: dict[str, Mark] = field(default_factory=dict)


@dataclass(slots=True)
class Tally:
    """What became of the records since the ledger was made, and the meters that have no price."""

    counted: int = 0
    duplicate: int = 0
    late: int = 0
    lost: int = 0
    unpriced: set[str] = field(default_factory=set)


Deployment = tuple[str, str]
"""Endpoint and deployment."""


class UsageLedger:
    """The rollups of one partition: a `contracts.log.Ledger` from usage.events to usage.rollups."""

    def __init__(self, catalog: Catalog, now: datetime):
        self.tally = Tally()
        self._catalog = catalog
        self._now = now
        self._newest = datetime.min.replace(tzinfo=UTC) + HORIZON
        self._hours: dict[datetime, dict[Deployment, Rollup]] = {}
        self._last: dict[tuple[Deployment, str], Mark] = {}
        """How far each source is with each deployment, whatever the hour."""

    def restore(self, message: Message) -> None:
        """Take a rollup that was written earlier; a later one of the same key replaces it."""
        assert isinstance(message, UsageRollup)
        deployment = (message.endpoint, message.deployment)
        sources = {source: Mark(mark.epoch, mark.sequence, mark.open) for source, mark in message.sources.items()}
        for source, mark in sources.items():
            self._advance(deployment, source, mark)
        self._hours.setdefault(message.hour, {})[deployment] = Rollup(dict(message.quantities), message.lost, sources)
        if message.hour != self._newest:
            self._newest = max(self._newest, message.hour)
            self._close_hours()

    def forget(self, key: str) -> None:
        """Take the deletion of a rollup. How far its sources are stays known."""
        try:
            endpoint, deployment, hour = key.split("/")
            at = datetime.strptime(hour, _HOUR_IN_KEY).replace(tzinfo=UTC)
        except ValueError:
            return  # a deletion of something that is no rollup deletes nothing
        self._hours.get(at, {}).pop((endpoint, deployment), None)

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message | Undecodable]:
        """The rollups that `batch` changes, each once, and the records that came too late to count."""
        self._now = max(self._now, now)
        self._close_hours()
        touched: dict[tuple[datetime, Deployment], Rollup] = {}
        late: list[Undecodable] = []
        for record, event in batch:
            assert isinstance(event, UsageRecorded)
            hour, deployment = hour_of(event.started_at), (event.endpoint, event.deployment)
            if self._is_duplicate(event, hour, deployment):
                self.tally.duplicate += 1
            elif hour < self._edge():
                self.tally.late += 1
                late.append(self._too_late(record, hour))
            else:
                touched[hour, deployment] = self._count(event, hour, deployment)
        return [*(self._message(hour, *deployment, rollup) for (hour, deployment), rollup in touched.items()), *late]

    def _is_duplicate(self, event: UsageRecorded, hour: datetime, deployment: Deployment) -> bool:
        if hour < self._edge():
            seen = self._last.get((deployment, event.source))
        else:
            rollup = self._hours.get(hour, {}).get(deployment)
            seen = rollup.sources.get(event.source) if rollup else None
        return seen is not None and (event.epoch, event.sequence) <= seen

    def _count(self, event: UsageRecorded, hour: datetime, deployment: Deployment) -> Rollup:
        rollup = self._hours.setdefault(hour, {}).setdefault(deployment, Rollup())
        for meter, quantity in event.quantities.items():
            rollup.quantities[meter] = rollup.quantities.get(meter, 0) + quantity
        mark = rollup.sources[event.source] = Mark(event.epoch, event.sequence, event.open)
        lost = self._advance(deployment, event.source, mark)
        rollup.lost += lost
        self.tally.counted += 1
        self.tally.lost += lost
        self._newest = max(self._newest, hour)
        return rollup

    def _advance(self, deployment: Deployment, source: str, mark: Mark) -> int:
        """Note how far a source is; returns how many of its records are missing right before `mark`."""
        last = self._last.get((deployment, source), Mark(-1, 0))
        if mark <= last:
            return 0
        self._last[deployment, source] = mark
        if mark.epoch == last.epoch:
            return mark.sequence - 1 - last.sequence
        return mark.sequence - 1 + last.open

    def _edge(self) -> datetime:
        """The oldest hour that still counts. Usage from the future does not move it beyond what `now` explains."""
        return min(self._newest, hour_of(self._now)) - HORIZON

    def _close_hours(self) -> None:
        """Let go of the hours that are past the edge."""
        edge = self._edge()
        for old in [held for held in self._hours if held < edge]:
            del self._hours[old]

    def _message(self, hour: datetime, endpoint: str, deployment: str, rollup: Rollup) -> UsageRollup:
        costs = {}
        for meter, quantity in rollup.quantities.items():
            try:
                costs[meter] = self._catalog.cost(meter, quantity)
            except KeyError:
                self.tally.unpriced.add(meter)
        return UsageRollup(
            endpoint=endpoint,
            deployment=deployment,
            hour=hour,
            quantities=dict(rollup.quantities),
            costs=costs,
            currency=self._catalog.currency,
            lost=rollup.lost,
            sources={
                source: Watermark(epoch=mark.epoch, sequence=mark.sequence, open=mark.open)
                for source, mark in rollup.sources.items()
            },
        )

    def _too_late(self, record: Record, hour: datetime) -> Undecodable:
        problem = (
            f"usage of {hour:%Y-%m-%dT%HZ} came after usage of {self._newest:%Y-%m-%dT%HZ}: hours older than "
            f"{HORIZON.days} days are closed. Publish it with a later interval, under a source of its own, to count it"
        )
        return Undecodable(record, (Problem(code="BadArgument", field="started_at", message=problem),))
