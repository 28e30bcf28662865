"""The life of an instance, as one table, and the back-off between the lives of its place.

PURE, see the package. Rules of this file: an event that the table does not list raises and changes nothing; an
instance that may get traffic (PROVEN) is never stopped before it was drained; times are seconds of any steady clock.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from contracts.messages import DeploymentError


class Phase(StrEnum):
    """Where an instance is in its life."""

    STARTING = "starting"
    """The process runs and does not answer yet."""
    READY = "ready"
    """It answers: the router may send to it."""
    UNREADY = "unready"
    """It was ready and does not answer now: it gets no request until it does again, and is not replaced for that."""
    FAILED = "failed"
    """It runs but never answered in time, or stopped answering: it must go."""
    DRAINING = "draining"
    """No new request is to reach it."""
    STOPPING = "stopping"
    """It was told to end."""
    GONE = "gone"
    """Its process has ended."""


class Event(StrEnum):
    """What happens to an instance."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    CONDEMNED = "condemned"
    DRAIN = "drain"
    STOP = "stop"
    EXITED = "exited"


LIFECYCLE: Mapping[Phase, Mapping[Event, Phase]] = {
    Phase.STARTING: {
        Event.HEALTHY: Phase.READY,
        Event.CONDEMNED: Phase.FAILED,
        Event.STOP: Phase.STOPPING,
        Event.EXITED: Phase.GONE,
    },
    Phase.READY: {
        Event.UNHEALTHY: Phase.UNREADY,
        Event.CONDEMNED: Phase.FAILED,
        Event.DRAIN: Phase.DRAINING,
        Event.EXITED: Phase.GONE,
    },
    Phase.UNREADY: {
        Event.HEALTHY: Phase.READY,
        Event.CONDEMNED: Phase.FAILED,
        Event.DRAIN: Phase.DRAINING,
        Event.EXITED: Phase.GONE,
    },
    Phase.FAILED: {
        Event.STOP: Phase.STOPPING,
        Event.EXITED: Phase.GONE,
    },
    Phase.DRAINING: {
        Event.STOP: Phase.STOPPING,
        Event.EXITED: Phase.GONE,
    },
    Phase.STOPPING: {
        Event.EXITED: Phase.GONE,
    },
    Phase.GONE: {},
}

PROVEN = (Phase.READY, Phase.UNREADY)
"""The phases of an instance that was ready once and still serves, or may again. Routers, who hear of it a moment later,
may send to it in either: it drains before it ends."""

LIVE = (Phase.STARTING, *PROVEN)
"""The phases in which an instance counts towards its deployment's number."""


class IllegalEvent(RuntimeError):
    """An event that cannot happen in the instance's phase."""


class Place(NamedTuple):
    """Where an instance stands: its number among its deployment's instances of one generation. A replacement takes the
    place of the one that died, and with it its record of deaths."""

    endpoint: str
    deployment: str
    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `since` is when its phase began, for one of PROVEN when it was ready first; `told_at` when the log
    said that it drains (the router's cue); `drain_seconds` how long its longest request may still run once it was told
    to end."""

    id: str
    place: Place
    address: str
    started_at: datetime
    phase: Phase
    since: float
    told_at: float | None = None
    drain_seconds: float = 0.0

    @property
    def live(self) -> bool:
        """Whether it counts towards its deployment's number."""
        return self.phase in LIVE

    def after(self, event: Event, now: float) -> "Instance":
        """The instance after `event`. Raises IllegalEvent."""
        try:
            phase = LIFECYCLE[self.phase][event]
        except KeyError:
            raise IllegalEvent(f"{self.id} is {self.phase}: '{event}' cannot happen to it") from None
        return replace(self, phase=phase, since=self.since if phase in PROVEN and self.phase in PROVEN else now)

    def ready_seconds(self, now: float) -> float | None:
        """How long ago it was ready first; None for one that was not, or that is going."""
        return now - self.since if self.phase in PROVEN else None


LONGEST_BACKOFF = 60.0
HEALTHY_SECONDS = 60.0
"""An instance that was ready for this long clears its place's record of deaths."""


@dataclass(frozen=True, slots=True)
class Deaths:
    """The record of a place: deaths in a row, when the next instance may start, why the last one ended.

    `proven` says that an instance of this place was once ready; `failing` that the deaths are no accident any more.
    """

    count: int
    retry_at: float
    failing: bool
    proven: bool
    error: DeploymentError

    @classmethod
    def after(
        cls, before: "Deaths | None", ready_seconds: float | None, now: float, error: DeploymentError
    ) -> "Deaths":
        """The record after one more death, of an instance that was ready for `ready_seconds` (None: never).

        The first death of an instance that had been ready is an accident, and it is replaced at once. After that, and
        for those that never were ready, the waits are 1, 2, 4, … 60 s.
        """
        healthy = ready_seconds is not None and ready_seconds >= HEALTHY_SECONDS
        count = 1 if before is None or healthy else before.count + 1
        doublings = count - 1 if ready_seconds is None else count - 2
        wait = 0.0 if doublings < 0 else min(LONGEST_BACKOFF, 2.0 ** min(doublings, 10))
        proven = ready_seconds is not None or (before is not None and before.proven)
        return cls(count, now + wait, failing=wait > 0, proven=proven, error=error)
