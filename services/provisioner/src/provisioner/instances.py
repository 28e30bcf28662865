"""The instances that run, and what happens to them: started, found again, ready, failed, drained, ended.

Books are kept here, decisions are the reconciler's: it hears of every death, and `changed` is called for whatever may
need a new look.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from contracts.messages import DeploymentDesired, DeploymentError, EndpointDesired, EndpointObserved
from contracts.messages import OnlineDeploymentSpec as Spec
from contracts.messages.endpoints import EventReason
from provisioner.compute.prepared import Prepared
from provisioner.compute.probes import probe
from provisioner.compute.process import InstanceProcess, NotStarted, ProcessCompute
from provisioner.compute.variables import overruled
from provisioner.core.failures import Exit, not_started, why_ended
from provisioner.core.lifecycle import PROVEN, Event, Instance, Phase, Place
from provisioner.core.told import created, unready
from provisioner.events import Events
from provisioner.identity.injection import SecretsInjectionError
from provisioner.instruments import INSTANCES
from provisioner.meter import InstanceMeter

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tracked:
    """An instance and what belongs to it while it runs."""

    instance: Instance
    process: InstanceProcess
    prober: "asyncio.Task[None] | None" = None
    failed: bool = False


class Trust(Protocol):
    """What instances are given to prove who they are, and the secrets that they are trusted with."""

    def variables(self, endpoint: EndpointDesired, deployment: str, instance: str, spec: Spec) -> Mapping[str, str]:
        """The environment variables of a new instance. Raises SecretsInjectionError."""

    def forget(self, instance: str) -> None:
        """The instance has ended."""


class Keeper(Protocol):
    """Who is told what becomes of instances."""

    def changed(self, endpoint: str) -> None:
        """Something is not as it was."""

    def died(self, place: Place, ready_seconds: float | None, error: DeploymentError) -> None:
        """An instance of `place` ended, or is given up, although it was wanted; it was ready for that long."""

    def newest_spec(self, place: Place) -> Spec | None:
        """The newest specification of the place's generation: its probes may change without a new generation."""


class Instances:
    """Every instance of this machine, by endpoint."""

    def __init__(
        self,
        compute: ProcessCompute,
        meter: InstanceMeter,
        trust: Trust,
        events: Events,
        keeper: Keeper,
        clock: Callable[[], float],
    ):
        self._compute = compute
        self._meter = meter
        self._trust = trust
        self._events = events
        self._keeper = keeper
        self._clock = clock
        self._tracked: dict[str, Tracked] = {}
        self._clearing: set[asyncio.Task[None]] = set()
        self.idle = asyncio.Event()
        """Set while no instance runs."""
        self.idle.set()

    def running(self) -> list[Tracked]:
        """Every instance."""
        return list(self._tracked.values())

    def of(self, endpoint: str) -> list[Instance]:
        """The instances of an endpoint."""
        return [each.instance for each in self._tracked.values() if each.instance.place.endpoint == endpoint]

    def adopt(self) -> list[Tracked]:
        """Take over the instances that run already."""
        return [tracked for process in self._compute.adopt() if (tracked := self._adopt(process)) is not None]

    async def cleared(self) -> None:
        """Return when what ended instances left behind is cleared up."""
        await asyncio.gather(*self._clearing, return_exceptions=True)

    def start(self, endpoint: EndpointDesired, place: Place, template: DeploymentDesired, prepared: Prepared) -> bool:
        """Start an instance; False when that failed, which `keeper` has been told."""
        id = f"{place.endpoint}-{place.deployment}-{secrets.token_hex(4)}"
        spec = template.spec
        assert isinstance(spec, Spec)
        try:
            variables = self._trust.variables(endpoint, place.deployment, id, spec)
            process = self._compute.start(id, place, template, prepared, variables)
        except (SecretsInjectionError, NotStarted, OSError) as error:
            self._trust.forget(id)
            told = not_started(str(error)) if isinstance(error, OSError) else error.error
            log.error("cannot start an instance of %s/%s: %s", place.endpoint, place.deployment, told.message)
            self._events.tell(place.endpoint, place.deployment, "Failed", f"{told.code}: {told.message}")
            self._keeper.died(place, None, told)
            return False
        record = process.record
        log.info("started %s at %s, process %d", id, record.address, record.pid)
        lacks = self._compute.isolation.not_enforced(record.user)
        self._tell(record.place, id, "Created", created(spec.instance_type, record.address, lacks, overruled(spec)))
        self._tell(record.place, id, "Started", f"process {record.pid} runs and has not answered yet")
        self._track(process, Phase.STARTING, record.started_at)
        return True

    def drain(self, id: str) -> None:
        """Take it out of traffic."""
        self._happen(self._tracked[id], Event.DRAIN)

    def stop(self, id: str) -> None:
        """Ask it to end."""
        tracked = self._tracked[id]
        self._tell(tracked.instance.place, id, "Killing", "it was asked to end")
        self._happen(tracked, Event.STOP)
        tracked.process.terminate()

    def kill(self, id: str) -> None:
        """End it."""
        self._tell(self._tracked[id].instance.place, id, "Killing", "it did not end in time and is ended by force")
        self._tracked[id].process.kill()

    def told(self, endpoint: str, document: EndpointObserved | None) -> None:
        """The log says `document`: routers learn from it which instances drain, so their grace begins now."""
        draining = {
            instance.id
            for deployment in (document.deployments.values() if document is not None else ())
            for instance in deployment.in_state("Draining")
        }
        for id in draining & self._tracked.keys():
            self._grace_begins(self._tracked[id])

    def stop_waiting(self) -> None:
        """The log cannot be reached and the time to stop has come: drain without having told."""
        for tracked in self.running():
            self._grace_begins(tracked)

    def _grace_begins(self, tracked: Tracked) -> None:
        if tracked.instance.phase is Phase.DRAINING and tracked.instance.told_at is None:
            tracked.instance = replace(tracked.instance, told_at=self._clock())
            self._keeper.changed(tracked.instance.place.endpoint)

    def _adopt(self, process: InstanceProcess) -> Tracked | None:
        record, status = process.record, process.folder.status()
        if record.stopping:
            phase = Phase.STOPPING
        elif status is not None and status.state == "ready" and status.pid == record.pid:
            # It was in traffic a moment ago: to ask first would take it out for no reason. Its probe goes on.
            phase = Phase.READY
        else:
            phase = Phase.STARTING
        try:
            tracked = self._track(process, phase, self._meter.counted_to(record))
        except ProcessLookupError:
            self._compute.discard(process, keep_console=True)
            return None
        log.info("adopted %s at %s, process %d, %s", record.id, record.address, record.pid, phase)
        return tracked

    def _track(self, process: InstanceProcess, phase: Phase, counted_to: datetime) -> Tracked:
        record = process.record
        instance = Instance(
            record.id,
            record.place,
            record.address,
            record.started_at,
            phase,
            self._clock(),
            drain_seconds=record.drain_seconds,
        )
        tracked = Tracked(instance, process)
        process.watch(lambda ended: self._on_exit(tracked, ended))
        self._tracked[record.id] = tracked
        self._meter.begin(record, counted_to)
        self._count()
        if tracked.instance.live:
            watching = probe(record.address, process.folder, _Watched(self, tracked), phase is Phase.READY)
            tracked.prober = asyncio.create_task(watching, name=f"probe {record.id}")
        return tracked

    def newest_spec(self, tracked: Tracked) -> Spec:
        """The newest specification of an instance's generation."""
        return self._keeper.newest_spec(tracked.instance.place) or tracked.process.record.spec

    # What happens to instances

    def _happen(self, tracked: Tracked, event: Event) -> None:
        tracked.instance = tracked.instance.after(event, self._clock())
        if tracked.prober is not None and not tracked.instance.live:
            tracked.prober.cancel()
        self._count()
        self._keeper.changed(tracked.instance.place.endpoint)

    def on_ready(self, tracked: Tracked) -> None:
        """It answers, for the first time or again."""
        again = tracked.instance.phase is Phase.UNREADY
        self._happen(tracked, Event.HEALTHY)
        took = (datetime.now(UTC) - tracked.instance.started_at).total_seconds()
        message = "it answers again" if again else f"it answers, {took:.1f} s after its start"
        log.info("%s is ready: %s", tracked.instance.id, message)
        self._tell(tracked.instance.place, tracked.instance.id, "Ready", message)

    def on_unready(self, tracked: Tracked, failures: int, last: str) -> None:
        """It does not answer as a ready one does."""
        self._happen(tracked, Event.UNHEALTHY)
        log.warning("%s is not ready: %s", tracked.instance.id, last)
        self._tell(tracked.instance.place, tracked.instance.id, "ReadinessProbeFailed", unready(failures, last))

    def on_condemned(self, tracked: Tracked, error: DeploymentError) -> None:
        """It must go."""
        reason: EventReason = "LivenessProbeFailed" if tracked.instance.phase in PROVEN else "ReadinessProbeFailed"
        self._tell(tracked.instance.place, tracked.instance.id, reason, error.message)
        self._failed(tracked, error)
        self._happen(tracked, Event.CONDEMNED)

    def _on_exit(self, tracked: Tracked, ended: Exit) -> None:
        instance, process = tracked.instance, tracked.process
        if instance.live:
            error = why_ended(ended, process.folder.status(), process.folder.log_tail())
            self._tell(instance.place, instance.id, "Failed", f"{error.code}: {error.message}")
            self._failed(tracked, error)
        self._happen(tracked, Event.EXITED)
        self._meter.end(instance.id, datetime.now(UTC))
        self._trust.forget(instance.id)
        del self._tracked[instance.id]
        self._count()
        log.info("%s ended (%s)", instance.id, "unknown" if ended.code is None else ended.code)
        clearing = asyncio.create_task(asyncio.to_thread(self._compute.discard, process, tracked.failed))
        self._clearing.add(clearing)
        clearing.add_done_callback(self._cleared)

    def _cleared(self, clearing: "asyncio.Task[None]") -> None:
        self._clearing.discard(clearing)
        if not clearing.cancelled() and (error := clearing.exception()):
            log.error("what an instance left behind could not be cleared up", exc_info=error)

    def _failed(self, tracked: Tracked, error: DeploymentError) -> None:
        tracked.failed = True
        instance = tracked.instance
        log.warning("%s failed: %s: %s", instance.id, error.code, error.message)
        self._keeper.died(instance.place, instance.ready_seconds(self._clock()), error)

    def _tell(self, place: Place, id: str, reason: EventReason, message: str) -> None:
        self._events.tell(place.endpoint, place.deployment, reason, message, id)

    def _count(self) -> None:
        running = self.running()
        for phase in Phase:
            INSTANCES.labels(phase).set(sum(tracked.instance.phase is phase for tracked in running))
        if running:
            self.idle.clear()
        else:
            self.idle.set()


@dataclass(frozen=True, slots=True)
class _Watched:
    """One instance, as its probe sees it. A probe that was cancelled may say one more word, which counts no more."""

    instances: Instances
    tracked: Tracked

    def spec(self) -> Spec:
        return self.instances.newest_spec(self.tracked)

    def ready(self) -> None:
        if self.tracked.instance.live:
            self.instances.on_ready(self.tracked)

    def unready(self, failures: int, last: str) -> None:
        if self.tracked.instance.live:
            self.instances.on_unready(self.tracked, failures, last)

    def condemned(self, error: DeploymentError) -> None:
        if self.tracked.instance.live:
            self.instances.on_condemned(self.tracked, error)
