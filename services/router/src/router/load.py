"""What happened to a deployment's requests, folded into counters.

PURE: durations come as arguments. No clock and no I/O may enter this module.
"""

from collections import Counter
from datetime import datetime

from contracts.messages import LoadSample

_FAILED = 400
_CLIENT_GONE = 499


class Tally:
    """Counters of one deployment in one router process. Those of the running second are taken once a second; the
    others only grow (their readers take differences)."""

    __slots__ = (
        "_failures",
        "_latency_max",
        "_latency_sum",
        "_requests",
        "ejections",
        "handed",
        "mirrored",
        "retries",
        "seconds",
        "statuses",
        "turns",
    )

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.handed = 0  # requests that a model has had, however often each: what is metered
        self.turns = 0  # of the split
        self.mirrored: Counter[str] = Counter()  # copies that it got, by how their answers compare with the live ones
        self.retries = 0
        self.ejections = 0
        self.seconds = 0.0
        self.begin_second()

    def begin_second(self) -> None:
        """Forget what the running second has seen."""
        self._requests = self._failures = 0
        self._latency_sum = self._latency_max = 0.0

    def ended(self, status: int, seconds: float) -> None:
        """Count a request that ended with `status`, `seconds` after it was complete. Every status from 400 on is a
        failure, except that the client hung up."""
        self.statuses[status] += 1
        self.seconds += seconds
        self._requests += 1
        self._latency_sum += seconds
        if seconds > self._latency_max:
            self._latency_max = seconds
        if status >= _FAILED and status != _CLIENT_GONE:
            self._failures += 1

    def take_second(self, endpoint: str, deployment: str, source: str, at: datetime, in_flight: int) -> LoadSample:
        """The requests that ended since the last call, as the sample of the second that began `at`."""
        sample = LoadSample(
            endpoint=endpoint,
            deployment=deployment,
            source=source,
            at=at,
            requests=self._requests,
            failures=self._failures,
            in_flight=in_flight,
            latency_ms_sum=self._latency_sum * 1000,
            latency_ms_max=self._latency_max * 1000,
        )
        self.begin_second()
        return sample
