"""Which jobs may start their workers now.

PURE: no clock, no I/O. A machine runs a bounded number of workers; jobs wait in order, and none overtakes: a large job
that waits is not starved by small ones.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A job that wants `workers`. Those that had begun before a restart come first, then the oldest."""

    fresh: bool
    submitted_at: datetime
    job: str
    workers: int


def admitted(waiting: Iterable[Waiting], used: int, limit: int) -> list[Waiting]:
    """The jobs that may start while `used` of `limit` workers exist, in their order."""
    start = []
    for one in sorted(waiting):
        used += one.workers
        if used > limit:
            break
        start.append(one)
    return start
