"""Which instance gets a request, and what a request does that finds none.

PURE: `now` is any monotonic clock in seconds, an argument. No clock, no randomness and no I/O may enter this module.
`T` (a waiting request) and `C` (an idle connection) are the shell's; nothing here looks into them.

The rules:

- An instance is *usable* when the table calls it Ready and it is not ejected. Among the usable ones with room
  (max_concurrent_requests_per_instance) the one with the fewest outstanding requests is picked, then the one that was
  picked longest ago.
- Whoever finds no room waits, in order, at most max_queue_wait_ms. Running and waiting together are bounded by
  2 x max_concurrent_requests_per_instance x instances (desired or ready, whichever is more).
- An instance that refused or broke a connection is *ejected*: not picked until a back-off has passed (0.1 s, doubled
  each time it happens again, at most 2 s), and then returns gradually: it is given one request at a time until it has
  answered one, then two, and twice as many with each answer.
- So is one that lives but fails, as long as another is usable: alone it is better than none, and since nobody replaces
  it, nobody is held for it. It fails when it answers with something that is not HTTP, or with nothing in time
  TIMEOUTS_IN_A_ROW times. A timeout is the model's as a rule, so it takes several, none of them of a request that was
  under way when the one before it was counted (a slow moment ends all that run at once), each of a request that had
  most of request_timeout_ms here and not in the queue, and no answer in between. A 5xx ejects nobody: it is the
  model's own answer (424), to this request and maybe to no other; a script that raises would raise everywhere, and a
  client with a bad input could take all instances away from the others.
- A deployment *recovers* while it has fewer usable instances than it should and lost one (ejected, or gone from the
  table) less than HOLD_SECONDS ago. Then a request may wait as long as request_timeout_ms allows: a replacement is on
  its way. So it may where the autoscaler is allowed to take the deployment to zero instances (it *wakes* for
  requests). Otherwise a deployment with no usable instance refuses at once.
"""

from collections import OrderedDict
from enum import Enum
from typing import Generic, TypeVar

from router.load import Tally
from router.routes import DeploymentRoute, InstanceRoute

T = TypeVar("T")
C = TypeVar("C")

HOLD_SECONDS = 30.0
BACKOFF_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 2.0
TIMEOUTS_IN_A_ROW = 3
_MOST = 0.5  # of request_timeout_ms


class Verdict(Enum):
    """What a request does that gets no instance now."""

    QUEUE = "wait for room, at most max_queue_wait_ms"
    HOLD = "wait for an instance, at most request_timeout_ms"
    TOO_MANY = "429: too many requests are outstanding"
    NOT_READY = "503: no instance is usable, and none is expected soon"


class Instance(Generic[C]):
    """One Ready instance as this process sees it."""

    __slots__ = (
        "connections",
        "doubtful",
        "ejected_until",
        "failures",
        "host",
        "id",
        "outstanding",
        "picked",
        "port",
        "room",
        "timed_out_at",
        "timeouts",
    )

    def __init__(self, route: InstanceRoute):
        self.id, self.host, self.port = route.id, route.host, route.port
        self.outstanding = 0
        self.picked = 0
        self.doubtful = False  # whether `answered` has anything to do
        self.failures = 0  # in a row
        self.timeouts = 0  # in a row
        self.timed_out_at = float("-inf")  # when the last of them was counted
        self.ejected_until = 0.0
        self.room = 0  # while it returns: how many requests it may have; 0: as many as any
        self.connections: list[C] = []

    def answered(self, concurrency: int) -> None:
        """It works: it may have more, in the end as many as any."""
        self.failures = self.timeouts = 0
        self.room = self.room * 2 if self.room * 2 < concurrency else 0
        self.doubtful = self.room > 0


class Deployment(Generic[T, C]):
    """One deployment's instances, its queue and its counters. `route` is replaced as a whole by `apply`."""

    __slots__ = (
        "_picks",
        "endpoint",
        "instances",
        "label",
        "limit",
        "lost_at",
        "name",
        "route",
        "running",
        "tally",
        "waiting",
    )

    def __init__(self, endpoint: str, name: str):
        self.endpoint, self.name = endpoint, name
        self.label = b"azureml-model-deployment: %b\r\n" % name.encode()
        self.route = DeploymentRoute()
        self.instances: list[Instance[C]] = []
        self.limit = 0
        self.lost_at = float("-inf")
        self.running = 0
        self.waiting: OrderedDict[T, None] = OrderedDict()
        self.tally = Tally()
        self._picks = 0

    @property
    def in_flight(self) -> int:
        """Requests that run or wait."""
        return self.running + len(self.waiting)

    def details(self) -> dict[str, object]:
        """What a refusal tells about it."""
        return {
            "deployment": self.name,
            "limit": self.limit,
            "timeout_ms": round(self.route.timeout * 1000),
            "queue_wait_ms": round(self.route.queue_wait * 1000),
        }

    def apply(self, route: DeploymentRoute, now: float) -> list[Instance[C]]:
        """Take a new setting and set of Ready instances; returns the instances that are gone. An instance that stays
        keeps its state, also an ejection."""
        if route.autoscaled and not self.route.autoscaled:
            self.tally.begin_second()  # nobody took the seconds before
        known = {(instance.id, instance.host, instance.port): instance for instance in self.instances}
        self.instances = []
        for ready in route.instances:
            place = (ready.id, ready.host, ready.port)
            self.instances.append(known.pop(place) if place in known else Instance(ready))
        if known and len(self.instances) < route.desired:
            self.lost_at = now
        self.route = route
        self.limit = 2 * route.concurrency * max(route.desired, len(self.instances), int(route.wakes))
        return list(known.values())

    def admit(self, now: float) -> Instance[C] | Verdict:
        """Give a new request an instance, whose slot it then holds, or say what it does without."""
        if not self.waiting:
            instance = self._take(now)
            if instance is not None:
                return instance
        usable, recovering = self.usable(now), self.recovering(now)
        if not usable and not recovering:
            return Verdict.NOT_READY
        if self.in_flight >= self.limit:
            return Verdict.TOO_MANY
        return Verdict.HOLD if recovering else Verdict.QUEUE

    def readmit(self, now: float) -> Instance[C] | Verdict:
        """The same for a request that lost its instance: it was admitted before and goes before those that wait."""
        instance = self._take(now)
        if instance is not None:
            return instance
        return Verdict.HOLD if self.usable(now) or self.recovering(now) else Verdict.NOT_READY

    def serve(self, now: float) -> tuple[T, Instance[C]] | None:
        """The next waiting request with an instance, whose slot it then holds; None when there is no pair."""
        if not self.waiting:
            return None
        instance = self._take(now)
        if instance is None:
            return None
        return self.waiting.popitem(last=False)[0], instance

    def release(self, instance: Instance[C]) -> None:
        """Give a slot back."""
        instance.outstanding -= 1
        self.running -= 1

    def eject(self, instance: Instance[C], now: float) -> float | None:
        """Note that a connection to `instance` was refused or broke; returns when it may be tried again, or None when
        it is ejected already (its other connections break with it)."""
        until = self._eject(instance, now)
        if until is not None:
            self.lost_at = now
        return until

    def misbehaved(self, instance: Instance[C], now: float) -> float | None:
        """Note that `instance` answered with something that is not HTTP; returns when it may be tried again, or None
        when it is not ejected for that."""
        return self._eject(instance, now) if self._another(instance, now) else None

    def timed_out(self, instance: Instance[C], sent_at: float, now: float) -> float | None:
        """Note that `instance` left a request of `sent_at` without an answer; returns as `misbehaved` does."""
        if sent_at < instance.timed_out_at or now - sent_at < self.route.timeout * _MOST:
            return None
        instance.doubtful = True
        instance.timed_out_at = now
        instance.timeouts += 1
        if instance.timeouts < TIMEOUTS_IN_A_ROW or not self._another(instance, now):
            return None
        return self._eject(instance, now)

    def usable(self, now: float) -> int:
        """How many instances may be picked, room or not."""
        return sum(instance.ejected_until <= now for instance in self.instances)

    def recovering(self, now: float) -> bool:
        """Whether an instance is worth waiting for: a lost one's replacement, or the first."""
        usable = self.usable(now)
        if self.route.wakes and not usable:
            return True
        return now - self.lost_at < HOLD_SECONDS and usable < self.route.desired

    def _another(self, instance: Instance[C], now: float) -> bool:
        return any(each is not instance and each.ejected_until <= now for each in self.instances)

    def _eject(self, instance: Instance[C], now: float) -> float | None:
        if instance.ejected_until > now:
            return None
        instance.doubtful = True
        instance.failures += 1
        backoff = min(BACKOFF_SECONDS * 2 ** (instance.failures - 1), BACKOFF_MAX_SECONDS)
        instance.ejected_until = now + backoff
        instance.room = 1
        self.tally.ejections += 1
        return instance.ejected_until

    def _take(self, now: float) -> Instance[C] | None:
        room = self.route.concurrency
        best: Instance[C] | None = None
        fewest = room
        for instance in self.instances:
            outstanding = instance.outstanding
            if outstanding > fewest or outstanding >= room or instance.ejected_until > now:
                continue
            if instance.room and outstanding >= instance.room:
                continue
            if outstanding < fewest or best is None or instance.picked < best.picked:
                best, fewest = instance, outstanding
        if best is not None:
            best.outstanding += 1
            self.running += 1
            self._picks = best.picked = self._picks + 1
        return best
