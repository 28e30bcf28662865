"""The loop that makes instances what the documents ask for: it gathers, has `plan` decide, applies, and tells.

It works endpoint by endpoint, when something about one changed (a document, a decision, an instance) or when the last
plan said to look again. An error about one endpoint delays that one alone.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from contracts.messages import (
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    ScaleDecision,
)
from provisioner.announcer import Announcer
from provisioner.compute.probes import probe
from provisioner.compute.process import InstanceProcess, NotStarted, ProcessCompute
from provisioner.core.counts import wanted_instances
from provisioner.core.failures import Exit, not_started, why_ended
from provisioner.core.lifecycle import Deaths, Event, Instance, Phase, Place
from provisioner.core.observe import observe
from provisioner.core.plan import Drain, Kill, Start, Step, Stop, Timing, plan, remembered
from provisioner.instruments import DEATHS, INSTANCES
from provisioner.meter import InstanceMeter

log = logging.getLogger(__name__)

_AFTER_ERROR_SECONDS = 5.0


@dataclass(slots=True)
class Tracked:
    """An instance and what belongs to it while it runs."""

    instance: Instance
    process: InstanceProcess
    prober: "asyncio.Task[None] | None" = None
    failed: bool = False


@dataclass(slots=True)
class _Endpoint:
    """What is remembered of one endpoint."""

    instances: dict[str, Tracked] = field(default_factory=dict)
    deaths: dict[Place, Deaths] = field(default_factory=dict)
    templates: dict[tuple[str, int], DeploymentDesired] = field(default_factory=dict)
    """What instances of a deployment's generation are made of, by (deployment, generation)."""
    timer: asyncio.TimerHandle | None = None


class Reconciler:
    """`desired` and `decisions` are live tables; `changed` is called for whatever changes in them."""

    def __init__(
        self,
        desired: Mapping[str, EndpointDesired],
        decisions: Mapping[str, ScaleDecision],
        compute: ProcessCompute,
        meter: InstanceMeter,
        timing: Timing,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._desired = desired
        self._decisions = decisions
        self._compute = compute
        self._meter = meter
        self._timing = timing
        self._clock = clock
        self._endpoints: dict[str, _Endpoint] = {}
        self._changed: set[str] = set()
        self._woken = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._announcer: Announcer | None = None
        self.idle = asyncio.Event()
        """Set while no instance runs."""
        self.idle.set()

    def changed(self, endpoint: str) -> None:
        """Look at `endpoint` soon."""
        self._changed.add(endpoint)
        self._woken.set()

    def remains(self, endpoint: str) -> bool:
        """Whether instances of `endpoint` are still there, or the log still says something of it."""
        state = self._endpoints.get(endpoint)
        told = self._announcer is not None and self._announcer.speaks_of(endpoint)
        return told or (state is not None and bool(state.instances))

    def running(self) -> list[Tracked]:
        """Every instance."""
        return [tracked for state in self._endpoints.values() for tracked in state.instances.values()]

    def begin(self, announcer: Announcer) -> None:
        """Take over the instances that run already, and look at every endpoint that there is or was."""
        self._announcer = announcer
        for process in self._compute.adopt():
            self._adopt(process)
        for endpoint in self._desired.keys() | announcer.endpoints() | self._endpoints.keys():
            self.changed(endpoint)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._changed:
                endpoint = self._changed.pop()
                try:
                    self._reconcile(endpoint)
                except Exception:
                    log.exception("cannot reconcile '%s'; trying again in %g s", endpoint, _AFTER_ERROR_SECONDS)
                    self._look_at(endpoint, self._clock() + _AFTER_ERROR_SECONDS)
                # Starting processes takes milliseconds each: others get their turn in between.
                await asyncio.sleep(0)

    def stop_all(self) -> None:
        """From now on nothing is wanted: every instance drains and ends, and `idle` is set at last."""
        self._stopping = True
        for endpoint in self._endpoints:
            self.changed(endpoint)

    def told(self, endpoint: str, document: EndpointObserved | None) -> None:
        """The log says `document`: routers learn from it which instances drain, so their grace begins now."""
        draining = {
            instance.id
            for deployment in (document.deployments.values() if document is not None else ())
            for instance in deployment.in_state("Draining")
        }
        state = self._endpoints.get(endpoint)
        for tracked in state.instances.values() if state is not None else ():
            instance = tracked.instance
            if instance.phase is Phase.DRAINING and instance.told_at is None and instance.id in draining:
                tracked.instance = replace(instance, told_at=self._clock())
                self.changed(endpoint)

    def stop_waiting(self) -> None:
        """The log cannot be reached and the time to stop has come: drain without having told."""
        for tracked in self.running():
            if tracked.instance.phase is Phase.DRAINING and tracked.instance.told_at is None:
                tracked.instance = replace(tracked.instance, told_at=self._clock())
                self.changed(tracked.instance.place.endpoint)

    def _reconcile(self, endpoint: str) -> None:
        assert self._announcer is not None
        desired = self._desired.get(endpoint)
        state = self._endpoints.setdefault(endpoint, _Endpoint())
        wanted = wanted_instances(desired, self._decisions) if desired is not None else {}
        for name, (deployment, _) in (desired.online() if desired is not None else {}).items():
            state.templates[name, deployment.generation] = deployment
        instances = [tracked.instance for tracked in state.instances.values()]
        state.deaths = remembered(desired, wanted, instances, state.deaths)
        target = None if self._stopping else desired
        made = plan(endpoint, target, wanted, instances, state.deaths, self._clock(), self._timing)
        for step in made.steps:
            self._apply(state, step)
        instances = [tracked.instance for tracked in state.instances.values()]
        document = observe(endpoint, desired, wanted, instances, state.deaths, self._announcer.latest(endpoint))
        if self._announcer.tell(endpoint, document):
            self.told(endpoint, document)
        self._look_at(endpoint, made.look_at)
        self._tidy(endpoint, state, desired)

    def _look_at(self, endpoint: str, when: float | None) -> None:
        state = self._endpoints.setdefault(endpoint, _Endpoint())
        if state.timer is not None:
            state.timer.cancel()
        if when is not None:
            wait = max(0.0, when - self._clock())
            state.timer = asyncio.get_running_loop().call_later(wait, self.changed, endpoint)

    def _tidy(self, endpoint: str, state: _Endpoint, desired: EndpointDesired | None) -> None:
        """Forget what nothing needs any more."""
        needed = {tracked.instance.place[1:3] for tracked in state.instances.values()}
        needed |= {place[1:3] for place in state.deaths}
        if desired is not None:
            needed |= {(name, deployment.generation) for name, (deployment, _) in desired.online().items()}
        before = {name for name, _ in state.templates}
        state.templates = {of: template for of, template in state.templates.items() if of in needed}
        for name in before - {name for name, _ in state.templates}:
            self._compute.failed_console(endpoint, name).unlink(missing_ok=True)
        if desired is None and not state.templates:
            del self._endpoints[endpoint]

    # Steps

    def _apply(self, state: _Endpoint, step: Step) -> None:
        match step:
            case Start(place):
                self._start(state, place)
            case Drain(id):
                self._happen(state.instances[id], Event.DRAIN)
            case Stop(id):
                self._happen(state.instances[id], Event.STOP)
                state.instances[id].process.terminate()
            case Kill(id):
                log.warning("%s did not end within %g s: killing it", id, self._timing.stop_seconds)
                state.instances[id].process.kill()

    def _start(self, state: _Endpoint, place: Place) -> None:
        id = f"{place.endpoint}-{place.deployment}-{secrets.token_hex(4)}"
        try:
            process = self._compute.start(id, place, state.templates[place.deployment, place.generation])
        except NotStarted as error:
            log.error("cannot start an instance of %s/%s: %s", place.endpoint, place.deployment, error)
            self._died(state, place, None, not_started(str(error)))
            self.changed(place.endpoint)
            return
        log.info("started %s at %s, process %d", id, process.record.address, process.record.pid)
        self._track(process, Phase.STARTING, process.record.started_at)

    def _adopt(self, process: InstanceProcess) -> None:
        record, status = process.record, process.folder.status()
        if record.stopping:
            phase = Phase.STOPPING
        elif status is not None and status.state == "ready" and status.pid == record.pid:
            # It was in traffic a moment ago: to ask first would take it out for no reason. Its probe goes on.
            phase = Phase.READY
        else:
            phase = Phase.STARTING
        try:
            self._track(process, phase, self._meter.counted_to(record))
        except ProcessLookupError:
            process.folder.remove()
            return
        log.info("adopted %s at %s, process %d, %s", record.id, record.address, record.pid, phase)

    def _track(self, process: InstanceProcess, phase: Phase, counted_to: datetime) -> None:
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
        state = self._endpoints.setdefault(record.place.endpoint, _Endpoint())
        state.instances[record.id] = tracked
        state.templates.setdefault((record.place.deployment, record.place.generation), record.template)
        self._meter.begin(record, counted_to)
        self._count()
        if phase in (Phase.STARTING, Phase.READY):
            watching = probe(
                record.address,
                process.folder,
                lambda: self._spec(tracked),
                phase is Phase.READY,
                lambda: self._on_ready(tracked),
                lambda error: self._on_condemned(tracked, error),
            )
            tracked.prober = asyncio.create_task(watching, name=f"probe {record.id}")

    def _spec(self, tracked: Tracked) -> OnlineDeploymentSpec:
        """The newest specification of the instance's generation: its probes may change without a new generation."""
        place = tracked.instance.place
        template = self._endpoints[place.endpoint].templates.get((place.deployment, place.generation))
        spec = template.spec if template is not None else tracked.process.record.spec
        assert isinstance(spec, OnlineDeploymentSpec)
        return spec

    # What happens to instances

    def _happen(self, tracked: Tracked, event: Event) -> None:
        tracked.instance = tracked.instance.after(event, self._clock())
        if tracked.prober is not None and not tracked.instance.live:
            tracked.prober.cancel()
        self._count()
        self.changed(tracked.instance.place.endpoint)

    def _on_ready(self, tracked: Tracked) -> None:
        self._happen(tracked, Event.HEALTHY)
        took = (datetime.now(UTC) - tracked.instance.started_at).total_seconds()
        log.info("%s is ready after %.2f s", tracked.instance.id, took)

    def _on_condemned(self, tracked: Tracked, error: DeploymentError) -> None:
        self._failed(tracked, error)
        self._happen(tracked, Event.CONDEMNED)

    def _on_exit(self, tracked: Tracked, ended: Exit) -> None:
        instance, folder = tracked.instance, tracked.process.folder
        if instance.live:
            self._failed(tracked, why_ended(ended, folder.status(), folder.log_tail()))
        self._happen(tracked, Event.EXITED)
        self._meter.end(instance.id, datetime.now(UTC))
        del self._endpoints[instance.place.endpoint].instances[instance.id]
        if tracked.failed:
            folder.keep_console(self._compute.failed_console(instance.place.endpoint, instance.place.deployment))
        self._count()
        log.info("%s ended (%s)", instance.id, "unknown" if ended.code is None else ended.code)
        removing = asyncio.create_task(asyncio.to_thread(folder.remove))
        self._background.add(removing)
        removing.add_done_callback(self._background.discard)

    def _failed(self, tracked: Tracked, error: DeploymentError) -> None:
        tracked.failed = True
        instance = tracked.instance
        ready_seconds = self._clock() - instance.since if instance.phase is Phase.READY else None
        self._died(self._endpoints[instance.place.endpoint], instance.place, ready_seconds, error)
        log.warning("%s failed: %s: %s", instance.id, error.code, error.message)

    def _died(self, state: _Endpoint, place: Place, ready_seconds: float | None, error: DeploymentError) -> None:
        DEATHS.inc()
        state.deaths[place] = Deaths.after(state.deaths.get(place), ready_seconds, self._clock(), error)

    def _count(self) -> None:
        running = self.running()
        for phase in Phase:
            INSTANCES.labels(phase).set(sum(tracked.instance.phase is phase for tracked in running))
        if running:
            self.idle.clear()
        else:
            self.idle.set()
