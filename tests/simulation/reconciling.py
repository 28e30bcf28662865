"""The provisioner's way to its instances, as provisioner.reconciler, with processes of the simulated machine."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from math import ceil

from contracts.instance_time import InstanceTime
from contracts.messages import (
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    ScaleDecision,
)
from provisioner.core import counts, observe, plan
from provisioner.core.failures import Exit, never_ready, no_longer_alive, not_started, why_ended
from provisioner.core.health import readiness_deadline
from provisioner.core.lifecycle import Deaths, Event, Instance, Phase, Place
from provisioner.core.plan import Drain, Kill, Start, Step, Stop, Timing

from .machine import NotStarted, Process, Turn
from .preparing import Preparation
from .world import World

TIMING = Timing(drain_seconds=2.0, stop_seconds=10.0)


class Reconciler:
    """What one life of a provisioner knows of instances. `tell` is True when the log says so already."""

    def __init__(
        self,
        world: World,
        desired: Mapping[str, EndpointDesired],
        decisions: Mapping[str, ScaleDecision],
        time: InstanceTime,
        changed: set[str],
        told_of: Callable[[str], bool],
        latest: Callable[[str], EndpointObserved | None],
        tell: Callable[[str, EndpointObserved | None], bool],
    ):
        self.changed = changed
        self._world, self._desired, self._decisions, self._time = world, desired, decisions, time
        self._told_of, self._latest, self._tell = told_of, latest, tell
        self._instances: dict[str, Instance] = {}
        self._deaths: dict[Place, Deaths] = {}
        self._templates: dict[tuple[str, str, int], DeploymentDesired] = {}
        self._look_at: dict[str, float] = {}
        self._preparation = Preparation(world, changed)

    def turns(self) -> list[Turn]:
        turns: list[Turn] = []
        if self.changed or any(at <= self._world.seconds for at in self._look_at.values()):
            turns.append(self._reconcile_any)
        heard = [news for id in self._instances if (news := self._news(self._world.machine.processes[id])) is not None]
        return turns + heard + self._preparation.turns()

    def remains(self, endpoint: str) -> bool:
        """Whether instances of `endpoint`, or news in the log, are still there."""
        return self._told_of(endpoint) or bool(self._of(endpoint))

    def adopt(self) -> None:
        """Take over what runs already; where it stands is guessed from its process."""
        told_to = self._world.machine.told_to
        for process in self._world.machine.alive():
            phase = Phase.STOPPING if process.stopping else Phase.READY if process.answers else Phase.STARTING
            self._track(process, phase)
            since = process.started_at if told_to is None else max(process.started_at, told_to)
            self._count(process, since)
            self.changed.add(process.place.endpoint)

    def told(self, endpoint: str, document: EndpointObserved | None) -> None:
        """The log says `document`: the grace of those that it says to drain begins."""
        draining = {
            instance.id
            for deployment in (document.deployments.values() if document is not None else ())
            for instance in deployment.in_state("Draining")
        }
        for instance in self._of(endpoint):
            if instance.phase is Phase.DRAINING and instance.told_at is None and instance.id in draining:
                self._instances[instance.id] = replace(instance, told_at=self._world.seconds)
                self.changed.add(endpoint)

    def _of(self, endpoint: str) -> list[Instance]:
        return [instance for instance in self._instances.values() if instance.place.endpoint == endpoint]

    def _reconcile_any(self) -> str:
        due = {endpoint for endpoint, at in self._look_at.items() if at <= self._world.seconds}
        endpoint = self._world.rng.choice(sorted(self.changed | due))
        self.changed.discard(endpoint)
        self._look_at.pop(endpoint, None)
        steps = self._reconcile(endpoint)
        return f"reconciled {endpoint}: {', '.join(map(_short, steps)) or 'nothing to do'}"

    def _reconcile(self, endpoint: str) -> tuple[Step, ...]:
        desired = self._desired.get(endpoint)
        wanted = counts.wanted_instances(desired, self._decisions) if desired is not None else {}
        for name, (deployment, _) in (desired.online() if desired is not None else {}).items():
            self._templates[endpoint, name, deployment.generation] = deployment
        others = {place: record for place, record in self._deaths.items() if place.endpoint != endpoint}
        own = {place: record for place, record in self._deaths.items() if place.endpoint == endpoint}
        own = plan.remembered(desired, wanted, self._of(endpoint), own)
        self._deaths = {**others, **own}
        made = plan.plan(endpoint, desired, wanted, self._of(endpoint), own, self._world.seconds, TIMING)
        for step in made.steps:
            self._apply(step)
        starts = [step.place for step in made.steps if isinstance(step, Start)]
        for generation in dict.fromkeys(place[:3] for place in starts):
            self._start([place for place in starts if place[:3] == generation])
        self._check_surge(endpoint, wanted)
        own = {place: record for place, record in self._deaths.items() if place.endpoint == endpoint}
        document = observe.observe(endpoint, desired, wanted, self._of(endpoint), own, self._latest(endpoint))
        if self._tell(endpoint, document):
            self.told(endpoint, document)
        if made.look_at is not None:
            self._look_at[endpoint] = made.look_at
        needed = {place[1:3] for place in own} | {instance.place[1:3] for instance in self._of(endpoint)}
        if desired is not None:
            needed |= {(name, deployment.generation) for name, (deployment, _) in desired.online().items()}
        self._preparation.keep(endpoint, needed)
        return made.steps

    def _check_surge(self, endpoint: str, wanted: Mapping[str, int]) -> None:
        for name in {instance.place.deployment for instance in self._of(endpoint)}:
            live = [each for each in self._of(endpoint) if each.place.deployment == name and each.live]
            most = wanted.get(name, 0) + ceil(wanted.get(name, 0) * plan.SURGE)
            assert len(live) <= most, f"{endpoint}/{name} has {len(live)} live instances, at most {most} may be"
            places = {instance.place for instance in live}
            assert len(places) == len(live), f"two live instances of {endpoint}/{name} have one place: {live}"

    def _apply(self, step: Step) -> None:
        world = self._world
        match step:
            case Drain(id):
                self._happen(id, Event.DRAIN)
            case Stop(id):
                self._happen(id, Event.STOP)
                world.machine.terminate(world.machine.processes[id])
            case Kill(id):
                world.machine.kill(world.machine.processes[id])

    def _start(self, places: list[Place]) -> None:
        """Start instances of one generation, when all that they are made of is there."""
        world, (endpoint, name, generation, _) = self._world, places[0]
        template = self._templates[endpoint, name, generation]
        prepared = self._preparation.of(endpoint, name, template)
        for place in places:
            if isinstance(prepared, DeploymentError):
                self._died(place, None, prepared)
                self.changed.add(endpoint)
            elif prepared:
                try:
                    process = world.machine.start(place, template, refuses=world.happens(world.chaos.refuse))
                except NotStarted as error:
                    self._died(place, None, not_started(str(error)))
                    self.changed.add(endpoint)
                else:
                    self._track(process, Phase.STARTING)
                    self._count(process, process.started_at)

    def _track(self, process: Process, phase: Phase) -> None:
        place = process.place
        self._instances[process.id] = Instance(
            process.id, place, process.address, process.started_at, phase, self._world.seconds
        )
        self._templates.setdefault((place.endpoint, place.deployment, place.generation), process.template)

    def _count(self, process: Process, since: datetime) -> None:
        place = process.place
        self._time.begin(process.id, place.endpoint, place.deployment, process.instance_type, since)

    # What happens to instances

    def _news(self, process: Process) -> Turn | None:
        """Hear what became of a process, if anything did."""
        instance = self._instances[process.id]
        spec = self._templates[instance.place[:3]].spec
        assert isinstance(spec, OnlineDeploymentSpec)
        age = (self._world.now - process.started_at).total_seconds()
        if not process.alive:
            return lambda: self._exited(process)
        if instance.phase is Phase.STARTING and process.serves:
            return lambda: self._ready(process)
        if instance.phase is Phase.STARTING and age > readiness_deadline(spec.readiness_probe):
            return lambda: self._condemned(process, never_ready(age, b""))
        if instance.phase is Phase.READY and process.hangs:
            return lambda: self._condemned(process, no_longer_alive(30, "timed out", b""))
        return None

    def _ready(self, process: Process) -> str:
        self._happen(process.id, Event.HEALTHY)
        return f"heard that {process.id} is ready"

    def _condemned(self, process: Process, error: DeploymentError) -> str:
        self._failed(self._instances[process.id], error)
        self._happen(process.id, Event.CONDEMNED)
        return f"gave up {process.id}"

    def _exited(self, process: Process) -> str:
        instance = self._instances[process.id]
        if instance.live:
            self._failed(instance, why_ended(Exit(1), None, b""))
        self._happen(process.id, Event.EXITED)
        process.noticed_at = self._world.now
        self._time.end(process.id, self._world.now)
        del self._instances[process.id]
        return f"heard that {process.id} has ended"

    def _happen(self, id: str, event: Event) -> None:
        instance = self._instances[id] = self._instances[id].after(event, self._world.seconds)
        self.changed.add(instance.place.endpoint)

    def _failed(self, instance: Instance, error: DeploymentError) -> None:
        ready_seconds = self._world.seconds - instance.since if instance.phase is Phase.READY else None
        self._died(instance.place, ready_seconds, error)

    def _died(self, place: Place, ready_seconds: float | None, error: DeploymentError) -> None:
        self._deaths[place] = Deaths.after(self._deaths.get(place), ready_seconds, self._world.seconds, error)


def _short(step: Step) -> str:
    return f"{type(step).__name__} {step.place if isinstance(step, Start) else step.instance}"
