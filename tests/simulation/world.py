"""What all participants share: the bus, the machine, the time, and how much goes wrong."""

import random
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

from contracts.catalog import load_catalog
from contracts.messages import UsageRecorded

from .bus import Bus
from .invariants import Invariants
from .machine import Machine, Turn

CATALOG = load_catalog()

BEGINNING = datetime(2026, 11, 1, 12, 59, tzinfo=UTC)
"""A minute before an hour is full: usage is cut there."""


@dataclass(frozen=True, slots=True)
class Chaos:
    """How often things go wrong, each a probability at every occasion.

    `crash`: a participant loses its memory instead of taking its turn. `abort`: a transaction fails. `accident`: a
    process of the machine ends by itself or hangs. `refuse`: the machine starts no process. `repeat`: a message is
    published twice. `lose`: a usage record never arrives. `stray`: somebody publishes what is no message. `compact`:
    the log is compacted somewhere.
    """

    crash: float = 0.0
    abort: float = 0.0
    accident: float = 0.0
    refuse: float = 0.0
    repeat: float = 0.0
    lose: float = 0.0
    stray: float = 0.0
    compact: float = 0.0


CALM = Chaos()
STORM = Chaos(crash=0.01, abort=0.1, accident=0.02, refuse=0.1, repeat=0.1, stray=0.02, compact=0.01)


def weather(seed: int) -> Chaos:
    """Of each kind of trouble much, a little, or none: what hides in a storm may show in a breeze."""
    rng = random.Random(f"weather {seed}")
    return Chaos(**{kind: much * rng.choice((0, 0.2, 1)) for kind, much in asdict(STORM).items()})


@dataclass(slots=True)
class World:
    """One simulated house. `now` moves only when the simulation says so."""

    rng: random.Random
    chaos: Chaos
    watch: Invariants
    bus: Bus = field(default_factory=Bus)
    now: datetime = BEGINNING
    machine: Machine = field(init=False)

    def __post_init__(self) -> None:
        self.machine = Machine(self.rng, lambda: self.now, self.watch.stopping)
        self.bus.watchers.append(self.watch.appended)

    @property
    def seconds(self) -> float:
        """The time as a steady clock tells it."""
        return (self.now - BEGINNING).total_seconds()

    @property
    def epoch(self) -> int:
        """The time in milliseconds: the epoch of a source that starts now."""
        return int(self.now.timestamp() * 1000)

    def happens(self, probability: float) -> bool:
        """Throw the dice."""
        return probability > 0 and self.rng.random() < probability

    def pass_time(self, seconds: float) -> None:
        """It gets later."""
        self.now += timedelta(seconds=seconds)
        self.watch.now = self.now

    def tell_usage(self, record: UsageRecorded) -> None:
        """Publish a usage record, at least once, or lose it."""
        if self.happens(self.chaos.lose):
            self.watch.accounts.dropped += 1
            return
        id = f"{record.source}/{record.epoch}/{record.key()}/{record.sequence}"
        for _ in range(2 if self.happens(self.chaos.repeat) else 1):
            self.bus.publish(record, id=id, source=record.source, now=self.now)


class Actor(Protocol):
    """Whoever can do something."""

    name: str

    def turns(self) -> list[Turn]:
        """What it could do now."""


class Service(Actor, Protocol):
    """A service. All that it keeps is memory: `restart` forgets everything and begins again from the log."""

    def behind(self) -> bool:
        """Whether there is something on the bus, or for the bus, that it has not dealt with."""

    def restart(self) -> None:
        """Lose all memory."""
