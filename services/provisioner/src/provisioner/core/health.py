"""Probes: when an instance is ready, when it is given up, and when to ask next.

PURE, see the package. Azure's fields and defaults (`initial_delay`, `period`, `timeout`, `success_threshold`,
`failure_threshold`), with two differences. A starting instance is asked much sooner and more often than every `period`,
so that a quick model is ready at once; `initial_delay` and `period` then only bound how long it may take. And whether
it lives is asked only once it was ready, so that a slow init() is not ended before that bound.
"""

from dataclasses import dataclass, replace

from contracts.messages import Probe

_SOONEST, _RAREST = 0.05, 1.0


def readiness_deadline(probe: Probe) -> float:
    """Seconds after its start at which an instance that is not ready is given up."""
    return float(probe.initial_delay + probe.failure_threshold * probe.period)


def readiness_wait(age: float) -> float:
    """Seconds to the next question to an instance of `age` seconds that was never ready: a twentieth of its age, from
    50 ms to 1 s."""
    return min(max(age / 20, _SOONEST), _RAREST)


def first_liveness_wait(probe: Probe, age: float) -> float:
    """Seconds from when an instance of `age` seconds is ready to the first question whether it lives."""
    return max(0.0, probe.initial_delay - age)


@dataclass(frozen=True, slots=True)
class Streak:
    """Answers in a row: positive for good ones, negative for failures."""

    length: int = 0

    def after(self, good: bool) -> "Streak":
        """The streak after one more answer."""
        if good:
            return replace(self, length=max(self.length, 0) + 1)
        return replace(self, length=min(self.length, 0) - 1)

    def succeeds(self, probe: Probe) -> bool:
        """Whether that is enough good answers."""
        return self.length >= probe.success_threshold

    def fails(self, probe: Probe) -> bool:
        """Whether that is enough failures: for readiness to take it out of traffic, for liveness to end it."""
        return -self.length >= probe.failure_threshold


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether an instance is ready, and its answers in a row that may change that."""

    ready: bool = False
    streak: Streak = Streak()

    def after(self, good: bool, probe: Probe) -> "Readiness":
        """How it stands after one more answer."""
        streak = self.streak.after(good)
        return Readiness(not streak.fails(probe) if self.ready else streak.succeeds(probe), streak)
