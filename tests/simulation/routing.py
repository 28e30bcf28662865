"""A router: its pure cores in the order in which its exchanges and its reporter call them."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from contracts.log import Table
from contracts.messages import EndpointDesired, EndpointObserved, UsageRecorded
from router.picking import Deployment, Instance, Verdict
from router.retries import may_be_sent
from router.table import RoutingTable
from router.usage import UsageMeter

from .bus import Reader
from .machine import Process, Turn
from .world import World

_USAGE_SECONDS = 5.0
_OK, _TIMED_OUT, _TOO_MANY, _BAD_GATEWAY, _NOT_READY = 200, 408, 429, 502, 503
_PINNED = 0.1
_MORE = 3
"""How much likelier a request is than the router's other turns."""


@dataclass(eq=False, slots=True)
class Request:
    """One request that is not answered yet."""

    deployment: "Deployment[Request, None]"
    began: float
    handed: int = 0
    instance: "Instance[None] | None" = None


class Router:
    """Reads tables, sends requests to processes of the machine, tells load and usage."""

    name = "router"

    def __init__(self, world: World):
        self._world = world
        self.requests = True
        """Whether new requests come in."""
        self.restart()

    def restart(self) -> None:
        world = self._world
        self._changed: set[str] = set()
        self._desired = Table(EndpointDesired, lambda endpoint, _: self._changed.add(endpoint))
        self._observed = Table(EndpointObserved, lambda endpoint, _: self._changed.add(endpoint))
        self._table: RoutingTable[Request, None] = RoutingTable()
        self._running: list[Request] = []
        self._source, self.epoch = "router-1", world.epoch
        self._meter = UsageMeter(self._source, self.epoch, world.now)
        self._outbox: deque[list[UsageRecorded]] = deque()
        self._sending: Iterator[str] | None = None
        self._second = world.now.replace(microsecond=0)
        self._reader = Reader(world.bus, self._desired, self._observed)
        self._update()

    def turns(self) -> list[Turn]:
        turns: list[Turn] = []
        if self._reader.behind():
            turns.append(self._read)
        if self.requests and self._table.entries:
            turns += [self._begin] * _MORE
        if self._running or self._waiting():
            turns += [self._finish] * _MORE
        if self._world.now >= self._meter.next_cut(_USAGE_SECONDS):
            turns.append(self._cut)
        if self._outbox:
            turns.append(self._send_usage)
        if self._world.now >= self._second + timedelta(seconds=1):
            turns.append(self._tell_load)
        return turns

    def behind(self) -> bool:
        return bool(self._reader.behind() or self._outbox)

    def idle(self) -> bool:
        """Whether no request is under way."""
        return not self._running and not self._waiting()

    # The table, as router.app

    def _read(self) -> str:
        self._reader.poll(self._world.rng)
        self._update()
        return "read"

    def _update(self) -> None:
        changed, self._changed = self._changed, set()
        for name in sorted(changed):
            desired = self._desired.entries.get(name)
            change = self._table.apply(name, desired, self._observed.entries, self._world.seconds)
            assert not change.problems, change.problems
            entry = self._table.entries.get(name.encode())
            self._world.watch.routed(name, dict(entry.route.traffic) if entry is not None else None)
            for deployment in change.deployments:
                self._pump(deployment)

    # Requests, as router.exchange and router.gateway

    def _begin(self) -> str:
        world = self._world
        name = world.rng.choice(sorted(self._table.entries))
        entry = self._table.entries[name]
        if entry.deployments and world.happens(_PINNED):
            deployment = entry.deployments[world.rng.choice(sorted(entry.deployments))]
        else:
            turned = entry.turn()
            if turned is None:
                return f"request to {name.decode()}: no traffic"
            deployment = turned
            world.watch.turned(entry.route.name, deployment.name)
        request = Request(deployment, world.seconds)
        room = deployment.admit(world.seconds)
        if isinstance(room, Instance):
            return f"request to {deployment.name}: {self._send(request, room)}"
        if room is Verdict.NOT_READY or room is Verdict.TOO_MANY:
            return self._end(request, _NOT_READY if room is Verdict.NOT_READY else _TOO_MANY)
        deployment.waiting[request] = None
        return f"request to {deployment.name} waits: {room.name}"

    def _send(self, request: Request, instance: Instance[None]) -> str:
        request.instance = instance
        process = self._process(instance)
        if not process.alive or not process.answers:
            request.deployment.eject(instance, self._world.seconds)
            self._release(request)
            return f"{instance.id} refused, {self._again(request)}"
        if not request.handed:
            request.deployment.tally.handed += 1
            key = f"{request.deployment.endpoint}/{request.deployment.name}"
            self._world.watch.accounts.handed[self.epoch, key] += 1
        request.handed += 1
        self._running.append(request)
        return f"sent to {instance.id}"

    def _again(self, request: Request) -> str:
        room = request.deployment.readmit(self._world.seconds)
        if isinstance(room, Instance):
            return self._send(request, room)
        if room is Verdict.NOT_READY:
            return self._end(request, _BAD_GATEWAY if request.handed else _NOT_READY)
        request.deployment.waiting[request] = None
        request.deployment.waiting.move_to_end(request, last=False)
        return "waits again"

    def _finish(self) -> str:
        """A request that runs comes to its end, or one that waits gives up."""
        world = self._world
        waiting = self._waiting()
        if not self._running or (waiting and world.rng.random() < 0.2):
            request = world.rng.choice(waiting)
            self._pump(request.deployment)
            if request in request.deployment.waiting:
                if world.seconds - request.began < request.deployment.route.timeout:
                    return "a request waits on"
                del request.deployment.waiting[request]
                return self._end(request, _TIMED_OUT)
            return "a waiting request got its turn"
        request = self._running.pop(world.rng.randrange(len(self._running)))
        instance = request.instance
        assert instance is not None
        process = self._process(instance)
        if process.serves:
            instance.failures = 0
            self._release(request)
            return self._end(request, _OK)
        if process.alive:
            self._release(request)
            return self._end(request, _TIMED_OUT)
        request.deployment.eject(instance, world.seconds)
        self._release(request)
        if may_be_sent(request.handed, idempotent=request.deployment.route.idempotent):
            return f"lost {instance.id} under a request, {self._again(request)}"
        return self._end(request, _BAD_GATEWAY)

    def _release(self, request: Request) -> None:
        assert request.instance is not None
        request.deployment.release(request.instance)
        assert request.instance.outstanding >= 0, "a slot was given back twice"
        request.instance = None

    def _end(self, request: Request, status: int) -> str:
        request.deployment.tally.ended(status, self._world.seconds - request.began)
        self._pump(request.deployment)
        return f"request to {request.deployment.name} ended with {status}"

    def _pump(self, deployment: "Deployment[Request, None]") -> None:
        now = self._world.seconds
        while (served := deployment.serve(now)) is not None:
            self._send(*served)
        if deployment.waiting and not deployment.usable(now) and not deployment.recovering(now):
            abandoned = list(deployment.waiting)
            deployment.waiting.clear()
            for request in abandoned:
                self._end(request, _NOT_READY)

    def _waiting(self) -> list[Request]:
        return [request for deployment in self._table.deployments.values() for request in deployment.waiting]

    def _process(self, instance: Instance[None]) -> Process:
        return self._world.machine.processes[instance.id]

    # Load and usage, as router.reporting

    def _tell_load(self) -> str:
        at, self._second = self._second, self._world.now.replace(microsecond=0)
        for (endpoint, name), deployment in self._table.deployments.items():
            if deployment.route.autoscaled:
                sample = deployment.tally.take_second(endpoint, name, self._source, at, deployment.in_flight)
                id = f"{self._source}/{at:%s}/{sample.key()}"
                self._world.bus.publish(sample, id=id, source=self._source, now=self._world.now)
        return "told load"

    def _cut(self) -> str:
        counters = ((key, deployment.tally.handed) for key, deployment in self._table.deployments.items())
        records = self._meter.cut(self._world.now, counters)
        closed = [self._meter.forget(key) for key in self._table.forget_removed()]
        for interval in (records, [record for record in closed if record is not None]):
            if interval:
                self._outbox.append(interval)
        return f"cut usage: {len(records)} records"

    def _send_usage(self) -> str:
        """An interval after the other; a crash may come between two of its records."""
        self._world.tell_usage(self._outbox[0].pop(0))
        if not self._outbox[0]:
            self._outbox.popleft()
        return "sent usage"
