"""The loop that makes instances what the documents ask for: it gathers, has `plan` decide, applies, and tells.

It works endpoint by endpoint, when something about one changed (a document, a decision, an instance, what is being
prepared) or when the last plan said to look again. An error about one endpoint delays that one alone.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from contracts.messages import (
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    ScaleDecision,
)
from provisioner.announcer import Announcer
from provisioner.compute.prepared import Prepared
from provisioner.compute.process import ProcessCompute
from provisioner.core.counts import wanted_instances
from provisioner.core.lifecycle import Deaths, Place
from provisioner.core.observe import observe
from provisioner.core.plan import Drain, Kill, Start, Step, Stop, Timing, plan, remembered
from provisioner.events import Events
from provisioner.instances import Instances, Tracked, Trust
from provisioner.instruments import DEATHS
from provisioner.meter import InstanceMeter
from provisioner.preparation import Preparation

log = logging.getLogger(__name__)

_AFTER_ERROR_SECONDS = 5.0


@dataclass(slots=True)
class _Endpoint:
    """What is remembered of one endpoint."""

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
        trust: Trust,
        events: Events,
        timing: Timing,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._desired = desired
        self._decisions = decisions
        self._compute = compute
        self._events = events
        self._timing = timing
        self._clock = clock
        self._endpoints: dict[str, _Endpoint] = {}
        self._changed: set[str] = set()
        self._woken = asyncio.Event()
        self._stopping = False
        self._announcer: Announcer | None = None
        self._preparation: Preparation | None = None
        self.instances = Instances(compute, meter, trust, events, self, clock)

    @property
    def idle(self) -> asyncio.Event:
        """Set while no instance runs."""
        return self.instances.idle

    def changed(self, endpoint: str) -> None:
        """Look at `endpoint` soon."""
        self._changed.add(endpoint)
        self._woken.set()

    def remains(self, endpoint: str) -> bool:
        """Whether instances of `endpoint` are still there, or the log still says something of it."""
        told = self._announcer is not None and self._announcer.speaks_of(endpoint)
        return told or bool(self.instances.of(endpoint))

    def running(self) -> list[Tracked]:
        """Every instance."""
        return self.instances.running()

    def adopt(self) -> None:
        """Take over the instances that run already."""
        for tracked in self.instances.adopt():
            place, template = tracked.instance.place, tracked.process.record.template
            self._of(place.endpoint).templates.setdefault((place.deployment, place.generation), template)

    def begin(self, announcer: Announcer, preparation: Preparation) -> None:
        """Look at every endpoint that there is or was."""
        self._announcer = announcer
        self._preparation = preparation
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

    def stop_waiting(self) -> None:
        """The log cannot be reached and the time to stop has come: drain without having told."""
        self.instances.stop_waiting()

    def told(self, endpoint: str, document: EndpointObserved | None) -> None:
        """The log says `document`."""
        self.instances.told(endpoint, document)

    def _of(self, endpoint: str) -> _Endpoint:
        return self._endpoints.setdefault(endpoint, _Endpoint())

    def _reconcile(self, endpoint: str) -> None:
        assert self._announcer is not None
        desired = self._desired.get(endpoint)
        state = self._of(endpoint)
        wanted = wanted_instances(desired, self._decisions) if desired is not None else {}
        for name, (deployment, _) in (desired.online() if desired is not None else {}).items():
            state.templates[name, deployment.generation] = deployment
        instances = self.instances.of(endpoint)
        state.deaths = remembered(desired, wanted, instances, state.deaths)
        target = None if self._stopping else desired
        made = plan(endpoint, target, wanted, instances, state.deaths, self._clock(), self._timing)
        self._apply(endpoint, made.steps)
        instances = self.instances.of(endpoint)
        document = observe(endpoint, desired, wanted, instances, state.deaths, self._announcer.latest(endpoint))
        if self._announcer.tell(endpoint, document):
            self.told(endpoint, document)
        self._look_at(endpoint, made.look_at)
        self._tidy(endpoint, state, desired)

    def _look_at(self, endpoint: str, when: float | None) -> None:
        state = self._of(endpoint)
        if state.timer is not None:
            state.timer.cancel()
        if when is not None:
            wait = max(0.0, when - self._clock())
            state.timer = asyncio.get_running_loop().call_later(wait, self.changed, endpoint)

    def _tidy(self, endpoint: str, state: _Endpoint, desired: EndpointDesired | None) -> None:
        """Forget what nothing needs any more."""
        assert self._preparation is not None
        needed = {instance.place[1:3] for instance in self.instances.of(endpoint)}
        needed |= {place[1:3] for place in state.deaths}
        if desired is not None:
            needed |= {(name, deployment.generation) for name, (deployment, _) in desired.online().items()}
        before = {name for name, _ in state.templates}
        state.templates = {of: template for of, template in state.templates.items() if of in needed}
        for name in before - {name for name, _ in state.templates}:
            self._compute.forget_consoles(endpoint, name)
        self._preparation.keep(endpoint, needed)
        if desired is None and not state.templates:
            if state.timer is not None:
                state.timer.cancel()
            del self._endpoints[endpoint]

    # Steps

    def _apply(self, endpoint: str, steps: tuple[Step, ...]) -> None:
        starts: list[Place] = []
        for step in steps:
            match step:
                case Start(place):
                    starts.append(place)
                case Drain(id):
                    self.instances.drain(id)
                case Stop(id):
                    self.instances.stop(id)
                case Kill(id):
                    log.warning("%s did not end within %g s: killing it", id, self._timing.stop_seconds)
                    self.instances.kill(id)
        for generation in dict.fromkeys(place[:3] for place in starts):
            self._start(endpoint, [place for place in starts if place[:3] == generation])

    def _start(self, endpoint: str, places: list[Place]) -> None:
        """Start instances of one deployment's generation, as soon as all that they are made of is here."""
        assert self._preparation is not None
        name, generation = places[0].deployment, places[0].generation
        template = self._of(endpoint).templates[name, generation]
        prepared = self._preparation.of(endpoint, name, template)
        for place in places:
            if isinstance(prepared, DeploymentError):
                log.error("cannot prepare %s/%s: %s: %s", endpoint, name, prepared.code, prepared.message)
                self.died(place, None, prepared)
            elif isinstance(prepared, Prepared) and not self.instances.start(
                self._desired[endpoint], place, template, prepared
            ):
                self._preparation.doubt(endpoint, name, generation)

    # What instances tell

    def died(self, place: Place, ready_seconds: float | None, error: DeploymentError) -> None:
        """An instance of `place` ended although it was wanted, or could not be started."""
        DEATHS.inc()
        now, deaths = self._clock(), self._of(place.endpoint).deaths
        record = deaths[place] = Deaths.after(deaths.get(place), ready_seconds, now, error)
        if (wait := record.retry_at - now) > 0:
            times = "once" if record.count == 1 else f"{record.count} times in a row"
            message = f"instance {place.number} failed {times}: the next one starts in {wait:g} s"
            self._events.tell(place.endpoint, place.deployment, "BackOff", message)
        self.changed(place.endpoint)

    def newest_spec(self, place: Place) -> OnlineDeploymentSpec | None:
        """The newest specification of the place's generation."""
        template = self._of(place.endpoint).templates.get((place.deployment, place.generation))
        spec = template.spec if template is not None else None
        return spec if isinstance(spec, OnlineDeploymentSpec) else None
