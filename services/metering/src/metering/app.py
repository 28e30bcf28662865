"""Usage from the bus to rollups on the bus, exactly once (`contracts.log.Processor`), and what there is to watch."""

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from prometheus_client import Counter
from pydantic import Field

from contracts.catalog import Catalog, CatalogFile, load_catalog
from contracts.envelope import Record, Undecodable
from contracts.log import DeadLetters, KafkaSettings, Processor, Publisher
from contracts.messages import Message, UsageRecorded, UsageRollup
from contracts.shell.settings import Settings
from metering.ledger import Tally, UsageLedger

log = logging.getLogger(__name__)

SERVICE = "metering"

RECORDS = Counter(
    "endpunkt_metering_records", "usage records by what became of them (counted, duplicate, late)", ["outcome"]
)
LOST = Counter(
    "endpunkt_metering_lost_records",
    "usage records that are missing: gaps in sequence, and one for each kill of a source",
)
UNPRICED = Counter("endpunkt_metering_unpriced_batches", "batches with a meter that the catalogue has no price for")


class MeteringSettings(Settings):
    """What things cost."""

    catalog: CatalogFile = Field(
        default_factory=load_catalog, description="the path of the catalogue of prices; Endpunkt has one"
    )


class WatchedLedger(UsageLedger):
    """A ledger that tells Prometheus and the log what it does."""

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message | Undecodable]:
        self.tally = Tally()
        results = super().process(batch, now)
        for outcome in ("counted", "duplicate", "late"):
            RECORDS.labels(outcome).inc(getattr(self.tally, outcome))
        if self.tally.lost:
            LOST.inc(self.tally.lost)
            log.warning(
                "%d usage records before %s are missing: a source was killed, or could not write them",
                *(self.tally.lost, batch[-1][0].origin),
            )
        if self.tally.unpriced:
            UNPRICED.inc()
            meters = ", ".join(sorted(self.tally.unpriced))
            log.warning("no price for %s: quantities are kept without a cost; add them to the catalogue", meters)
        return results


class Metering:
    """The service, see `contracts.shell.service.App`."""

    def __init__(self, kafka: KafkaSettings, catalog: Catalog):
        self._publisher = Publisher(kafka, SERVICE)
        self._processor = Processor(
            kafka,
            SERVICE,
            source=UsageRecorded.TOPIC,
            state_topic=UsageRollup.TOPIC,
            make_ledger=lambda _: WatchedLedger(catalog, datetime.now(UTC)),
            dead_letters=DeadLetters(self._publisher, SERVICE),
        )

    def not_ready(self) -> list[str]:
        """It waits for the group to give it partitions, and for their rollups to be read back."""
        return [] if self._processor.owned.is_set() else [f"a partition of {UsageRecorded.TOPIC}"]

    def addresses(self) -> dict[str, str]:
        """It listens for nothing."""
        return {}

    async def run(self, stop: asyncio.Event) -> None:
        """Meter until `stop` is set."""
        try:
            await self._publisher.start()
            await self._processor.run(stop)
        finally:
            await self._publisher.stop()
