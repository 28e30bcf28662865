"""Plans as timelines, and the standing test: a plan that was interrupted anywhere goes on where it stopped."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from contracts.messages import (
    Artifact,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
)
from provisioner.core.lifecycle import Deaths, Event, Instance, Phase, Place
from provisioner.core.plan import SURGE, Drain, Kill, Plan, Start, Step, Stop, Timing, plan, remembered

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
TIMING = Timing(drain_seconds=2, stop_seconds=30)
ERROR = DeploymentError(code="UserScriptInitFailed", message="x")


def document(**generations: int) -> EndpointDesired:
    """An endpoint with these deployments, each of this generation."""
    spec = OnlineDeploymentSpec(code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"))
    code = Artifact(digest="c" * 64, name="src")
    return EndpointDesired(
        endpoint="shop",
        generation=max(generations.values(), default=1),
        created_at=NOON,
        updated_at=NOON,
        spec=OnlineEndpointSpec(),
        deployments={
            name: DeploymentDesired(generation=generation, spec=spec, code=code)
            for name, generation in generations.items()
        },
    )


class Machine:
    """One endpoint's instances, with processes that do as they are told: a compute without a computer."""

    def __init__(self) -> None:
        self.now = 0.0
        self.desired: EndpointDesired | None = None
        self.wanted: dict[str, int] = {}
        self.instances: dict[str, Instance] = {}
        self.deaths: dict[Place, Deaths] = {}
        self.names = iter(f"i{number}" for number in range(100_000))

    def copy(self) -> "Machine":
        other = Machine()
        other.__dict__ |= {**self.__dict__, "instances": dict(self.instances), "deaths": dict(self.deaths)}
        other.names = iter(f"j{number}" for number in range(100_000))
        return other

    def want(self, **deployments: tuple[int, int]) -> None:
        """Want (generation, count) of each deployment."""
        self.desired = document(**{name: generation for name, (generation, _) in deployments.items()})
        self.wanted = {name: count for name, (_, count) in deployments.items()}

    def plan(self) -> Plan:
        instances = list(self.instances.values())
        self.deaths = remembered(self.desired, self.wanted, instances, self.deaths)
        return plan("shop", self.desired, self.wanted, instances, self.deaths, self.now, TIMING)

    def apply(self, step: Step) -> None:
        match step:
            case Start(place):
                id = next(self.names)
                self.instances[id] = Instance(id, place, "a:1", NOON, Phase.STARTING, self.now)
            case Drain(id):
                self.happen(id, Event.DRAIN)
            case Stop(id):
                self.happen(id, Event.STOP)
            case Kill(id):
                self.exit(id)

    def happen(self, id: str, event: Event) -> None:
        self.instances[id] = self.instances[id].after(event, self.now)

    def exit(self, id: str) -> None:
        """The process ends; whether by itself, its phase tells."""
        instance = self.instances.pop(id)
        if instance.live:
            ready = self.now - instance.since if instance.phase is Phase.READY else None
            self.deaths[instance.place] = Deaths.after(self.deaths.get(instance.place), ready, self.now, ERROR)

    def tell(self) -> None:
        """The log says which instances drain."""
        for id, instance in self.instances.items():
            if instance.phase is Phase.DRAINING and instance.told_at is None:
                self.instances[id] = replace(instance, told_at=self.now)

    def ready(self, *generations: int) -> None:
        """Starting instances of these generations (none given: all) become ready."""
        for id, instance in list(self.instances.items()):
            if instance.phase is Phase.STARTING and instance.place.generation in (generations or (instance.place[2],)):
                self.happen(id, Event.HEALTHY)

    def step(self) -> list[Step]:
        """One pass: plan and apply."""
        made = self.plan().steps
        for step in made:
            self.apply(step)
        return list(made)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def settle(self) -> None:
        """Tell, wait and end what ends, until nothing is left to do."""
        for _ in range(100):
            made = self.step()
            self.tell()
            for id, instance in list(self.instances.items()):
                if instance.phase is Phase.STOPPING:
                    self.exit(id)
            look_at = self.plan().look_at
            if look_at is not None and look_at > self.now:
                self.now = look_at
            elif not made and not self.plan().steps:
                return
        raise AssertionError("it never settles")

    def phases(self, deployment: str = "blue") -> list[tuple[int, int, str]]:
        """(generation, number, phase) of each instance, sorted."""
        own = [each for each in self.instances.values() if each.place.deployment == deployment]
        return sorted((each.place.generation, each.place.number, str(each.phase)) for each in own)


@pytest.fixture
def machine() -> Machine:
    return Machine()


def test_a_deployment_is_started_and_then_left_alone(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    assert machine.step() == [Start(Place("shop", "blue", 2, 0)), Start(Place("shop", "blue", 2, 1))]
    assert machine.plan() == Plan((), None)
    machine.ready()
    assert machine.plan() == Plan((), None)


def test_an_instance_that_dies_is_replaced_in_its_place_after_its_wait(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.exit("i1")
    assert machine.step() == [Start(Place("shop", "blue", 2, 1))]
    machine.ready()
    machine.exit("i2")
    assert machine.plan() == Plan((), look_at=1.0)
    machine.pass_time(1)
    assert machine.step() == [Start(Place("shop", "blue", 2, 1))]
    # The other place has no such record: its instance is replaced at once.
    machine.ready()
    machine.exit("i0")
    assert machine.step() == [Start(Place("shop", "blue", 2, 0))]


def test_an_instance_that_must_go_is_stopped_and_replaced(machine: Machine) -> None:
    machine.want(blue=(2, 1))
    machine.step()
    machine.ready()
    machine.deaths[Place("shop", "blue", 2, 0)] = Deaths.after(None, 5.0, machine.now, ERROR)
    machine.happen("i0", Event.CONDEMNED)
    assert machine.step() == [Stop("i0"), Start(Place("shop", "blue", 2, 0))]
    assert machine.phases() == [(2, 0, "starting"), (2, 0, "stopping")]


def test_one_that_is_not_ready_for_a_while_is_not_replaced_and_goes_first_when_there_is_one_too_many(
    machine: Machine,
) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.happen("i0", Event.UNHEALTHY)
    assert machine.plan() == Plan((), None)
    machine.want(blue=(2, 1))
    assert machine.step() == [Drain("i0")], "a router may not have heard of it yet"


def test_a_version_whose_instances_are_not_ready_for_a_while_is_still_what_has_worked(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.happen("i0", Event.UNHEALTHY)
    machine.happen("i1", Event.UNHEALTHY)
    machine.want(blue=(3, 2))
    assert machine.step() == [Start(Place("shop", "blue", 3, 0))], "nothing of it is ended for one that may be bad"
    machine.exit("i2")
    machine.happen("i0", Event.HEALTHY)
    assert machine.phases() == [(2, 0, "ready"), (2, 1, "unready")]
    assert machine.plan() == Plan((), look_at=1.0)


def test_draining_begins_when_the_log_says_so_and_ends_with_sigkill(machine: Machine) -> None:
    machine.want(blue=(2, 1))
    machine.step()
    machine.ready()
    machine.want(blue=(2, 0))
    assert machine.step() == [Drain("i0")]
    machine.pass_time(60)
    assert machine.plan() == Plan((), None), "the router may not know yet"
    machine.tell()
    assert machine.plan() == Plan((), look_at=62.0)
    machine.pass_time(2)
    assert machine.step() == [Stop("i0")]
    assert machine.plan() == Plan((), look_at=92.0)
    machine.pass_time(30)
    assert machine.step() == [Kill("i0")]
    assert machine.plan() == Plan((), None)


def test_scaling_in_takes_those_that_are_not_ready_first_and_stops_them_at_once(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.want(blue=(2, 3))
    machine.step()
    machine.want(blue=(2, 1))
    assert machine.step() == [Drain("i1"), Stop("i2")]


def test_what_drains_is_not_brought_back(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.want(blue=(2, 1))
    assert machine.step() == [Drain("i1")]
    machine.want(blue=(2, 2))
    assert machine.step() == [Start(Place("shop", "blue", 2, 1))]


def test_a_new_version_comes_up_a_quarter_at_a_time_and_the_old_one_makes_room(machine: Machine) -> None:
    machine.want(blue=(2, 4))
    machine.step()
    machine.ready()
    machine.want(blue=(3, 4))
    assert machine.step() == [Start(Place("shop", "blue", 3, 0))]
    for number in (1, 2, 3):
        assert machine.plan() == Plan((), None)
        machine.ready()
        assert machine.step() == [Drain(f"i{4 - number}"), Start(Place("shop", "blue", 3, number))]
    machine.ready()
    assert machine.step() == [Drain("i0")]
    machine.settle()
    assert machine.phases() == [(3, number, "ready") for number in range(4)]


def test_a_bad_version_replaces_nothing_and_the_good_one_is_kept_at_strength(machine: Machine) -> None:
    machine.want(blue=(2, 2))
    machine.step()
    machine.ready()
    machine.want(blue=(3, 2))
    assert machine.step() == [Start(Place("shop", "blue", 3, 0))]
    machine.exit("i2")
    assert machine.plan() == Plan((), look_at=1.0)
    assert machine.phases() == [(2, 0, "ready"), (2, 1, "ready")]
    # An instance of the good version dies meanwhile: it comes back, although its document is gone.
    machine.exit("i1")
    assert machine.step() == [Start(Place("shop", "blue", 2, 1))]
    machine.ready()
    # More are wanted: only the good version can give them.
    machine.want(blue=(3, 3))
    assert machine.step() == [Start(Place("shop", "blue", 2, 2))]
    # A third version that works replaces both.
    machine.want(blue=(4, 3))
    machine.ready()
    for _ in range(10):
        machine.settle()
        machine.ready()
    assert machine.phases() == [(4, number, "ready") for number in range(3)]
    assert not machine.deaths


def test_a_version_that_never_worked_is_given_up_for_the_next(machine: Machine) -> None:
    machine.want(blue=(2, 1))
    machine.step()
    machine.want(blue=(3, 1))
    assert machine.step() == [Stop("i0"), Start(Place("shop", "blue", 3, 0))]


def test_after_an_update_the_old_version_never_comes_back(machine: Machine) -> None:
    machine.want(blue=(2, 1))
    machine.step()
    machine.ready()
    machine.exit("i0")  # so there is a record that generation 2 has worked
    machine.step()
    machine.want(blue=(3, 1))
    machine.step()
    machine.ready()
    machine.settle()
    (new,) = machine.instances
    machine.exit(new)
    assert machine.step() == [Start(Place("shop", "blue", 3, 0))]


def test_from_none_to_some_starts_only_the_new_version(machine: Machine) -> None:
    machine.want(blue=(2, 1))
    machine.step()
    machine.ready()
    machine.want(blue=(2, 0))
    machine.settle()
    machine.want(blue=(3, 2))
    assert machine.step() == [Start(Place("shop", "blue", 3, 0)), Start(Place("shop", "blue", 3, 1))]


def test_a_deleted_deployment_and_a_deleted_endpoint_drain(machine: Machine) -> None:
    machine.want(blue=(2, 1), green=(3, 1))
    machine.step()
    machine.ready()
    machine.want(blue=(2, 1))
    assert machine.step() == [Drain("i1")]
    machine.settle()
    machine.desired, machine.wanted = None, {}
    assert machine.step() == [Drain("i0")]
    machine.settle()
    assert not machine.instances


def test_deployments_do_not_disturb_each_other(machine: Machine) -> None:
    machine.want(bad=(3, 1), good=(2, 1))
    machine.step()
    machine.ready(2)
    for _ in range(5):
        bad = next(id for id, each in machine.instances.items() if each.place.deployment == "bad")
        machine.exit(bad)
        assert machine.phases("good") == [(2, 0, "ready")]
        machine.now = machine.plan().look_at or machine.now
        assert machine.step() == [Start(Place("shop", "bad", 3, 0))]


# The standing test


def goes_on_from_every_prefix(machine: Machine) -> None:
    """Whatever part of the plan was carried out, the next plan is exactly the rest of it."""
    whole = machine.plan()
    interrupted = machine.copy()
    for done, step in enumerate(whole.steps):
        interrupted.apply(step)
        rest = interrupted.plan().steps
        assert rest == whole.steps[done + 1 :], f"after {whole.steps[: done + 1]}"


def keeps_its_promises(machine: Machine) -> None:
    """What must hold at every step of a plan, for each deployment that is wanted."""
    trial = machine.copy()
    for step in trial.plan().steps:
        before = {id: each for id, each in trial.instances.items() if each.phase is Phase.READY}
        trial.apply(step)
        for name, wanted in trial.wanted.items() if trial.desired is not None else ():
            own = [each for each in trial.instances.values() if each.place.deployment == name]
            ready = sum(each.phase is Phase.READY for each in own)
            were = sum(each.place.deployment == name for each in before.values())
            assert ready >= min(were, wanted), "a step never takes a ready instance that is needed"
    for name, wanted in trial.wanted.items() if trial.desired is not None else ():
        live = sum(each.live for each in trial.instances.values() if each.place.deployment == name)
        assert live <= wanted + math.ceil(wanted * SURGE)


def crash(machine: Machine, chance: random.Random) -> None:
    if machine.instances:
        machine.exit(chance.choice(sorted(machine.instances)))


def update(machine: Machine, chance: random.Random) -> None:
    generation = machine.desired.generation + 1 if machine.desired is not None else 2
    counts = {name: chance.randrange(5) for name in ("blue", "green") if chance.random() < 0.8}
    before = machine.desired.deployments if machine.desired is not None else {}
    kept = {
        name: before[name].generation if name in before and chance.random() < 0.5 else generation for name in counts
    }
    machine.want(**{name: (kept[name], count) for name, count in counts.items()})
    if machine.desired is not None:
        machine.desired = machine.desired.replace(generation=generation)


def condemn(machine: Machine, chance: random.Random) -> None:
    live = sorted(id for id, each in machine.instances.items() if each.live)
    if live:
        id = chance.choice(live)
        instance = machine.instances[id]
        ready = machine.now - instance.since if instance.phase is Phase.READY else None
        machine.deaths[instance.place] = Deaths.after(machine.deaths.get(instance.place), ready, machine.now, ERROR)
        machine.happen(id, Event.CONDEMNED)


EVENTS: list[Callable[[Machine, random.Random], object]] = [
    crash,
    update,
    condemn,
    lambda machine, chance: machine.ready(),
    lambda machine, chance: machine.tell(),
    lambda machine, chance: machine.pass_time(chance.choice([0.5, 2, 40])),
    lambda machine, chance: machine.step(),
    lambda machine, chance: machine.step(),
]


@pytest.mark.parametrize("seed", range(80))
def test_whatever_happens_plans_go_on_from_every_prefix_keep_their_promises_and_arrive(seed: int) -> None:
    machine, chance = Machine(), random.Random(seed)
    update(machine, chance)
    for _ in range(60):
        chance.choice(EVENTS)(machine, chance)
        goes_on_from_every_prefix(machine)
        keeps_its_promises(machine)
    # Nothing bad happens any more: it becomes what is wanted.
    for _ in range(12):
        machine.settle()
        machine.ready()
    assert machine.desired is not None
    expected = sorted(
        (name, machine.desired.deployments[name].generation, Phase.READY)
        for name, count in machine.wanted.items()
        for _ in range(count)
    )
    assert sorted((each.place[1], each.place[2], each.phase) for each in machine.instances.values()) == expected
    assert machine.plan() == Plan((), None)
