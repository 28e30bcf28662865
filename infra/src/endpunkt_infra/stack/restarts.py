"""When a service that died is started again.

PURE: no clock, no process; `now` is any monotonic clock in seconds.
"""

from dataclasses import dataclass

_FIRST_WAIT = 0.5
_LONGEST_WAIT = 30.0
_HEALTHY_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often a service died in a row. One that lived for a minute starts with a clean record."""

    deaths: int = 0
    started_at: float = 0.0

    def started(self, now: float) -> "Restarts":
        """The service was started."""
        return Restarts(self.deaths, now)

    def died(self, now: float) -> tuple["Restarts", float]:
        """The service died: the new record, and the instant at which to start it again."""
        deaths = 1 if now - self.started_at >= _HEALTHY_AFTER else self.deaths + 1
        return Restarts(deaths, self.started_at), now + min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** (deaths - 1))
