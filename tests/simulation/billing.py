"""Metering: its ledger, run as `contracts.log.Processor` runs it."""

from contracts.messages import UsageRecorded, UsageRollup
from metering.ledger import UsageLedger

from .bus import Processor
from .machine import Turn
from .world import CATALOG, World


class Metering:
    """Exactly once."""

    name = "metering"

    def __init__(self, world: World):
        self._world = world
        self.restart()

    def restart(self) -> None:
        self._processor = Processor(
            self._world.bus,
            self.name,
            UsageRecorded.TOPIC,
            UsageRollup,
            lambda: UsageLedger(CATALOG, self._world.now),
        )

    def turns(self) -> list[Turn]:
        return [self._process] if self._processor.behind() else []

    def behind(self) -> bool:
        return bool(self._processor.behind())

    def rewind(self) -> None:
        """Everything comes again."""
        self._processor.rewind()

    def _process(self) -> str:
        world = self._world
        partition, limit = world.rng.choice(self._processor.behind()), world.rng.randint(1, 20)
        fails = world.happens(world.chaos.abort)
        self._processor.process(partition, limit, world.now, fails=fails)
        return f"{'lost' if fails else 'committed'} a transaction on partition {partition}"
