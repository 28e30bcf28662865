"""Probes: when an instance is ready, when it is given up, and when to ask next.

PURE, see the package. Azure's fields and defaults (`initial_delay`, `period`, `timeout`, `success_threshold`,
`failure_threshold`), with one difference: a starting instance is asked much sooner and more often than every `period`,
so that a quick model is ready at once. `initial_delay` and `period` then only bound how long it may take.
"""

from dataclasses import dataclass, replace

from contracts.messages import Probe

_SOONEST, _RAREST = 0.05, 1.0


def readiness_deadline(probe: Probe) -> float:
    """Seconds after its start at which an instance that is not ready is given up."""
    return float(probe.initial_delay + probe.failure_threshold * probe.period)


def readiness_wait(age: float) -> float:
    """Seconds to the next question to an instance of `age` seconds: a twentieth of its age, from 50 ms to 1 s."""
    return min(max(age / 20, _SOONEST), _RAREST)


@dataclass(frozen=True, slots=True)
class Streak:
    """Answers in a row: positive for good ones, negative for failures."""

    length: int = 0

    def after(self, good: bool) -> "Streak":
        """The streak after one more answer."""
        if good:
            return replace(self, length=max(self.length, 0) + 1)
        return replace(self, length=min(self.length, 0) - 1)

    def ready(self, probe: Probe) -> bool:
        """Whether a starting instance is ready."""
        return self.length >= probe.success_threshold

    def dead(self, probe: Probe) -> bool:
        """Whether a ready instance lives no more."""
        return -self.length >= probe.failure_threshold
