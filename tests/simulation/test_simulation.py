"""All cores on one bus: seeded interleavings, duplicates, crashes. Each seed is a simulation of its own.

SIMULATION_SEEDS runs others: one (17), several (17,23), a range (0-999). A failure names its seed and tells the way.
"""

import os
import random
from dataclasses import replace

import pytest

from contracts.messages import EndpointDesired

from .house import House
from .people import Script, batch_endpoint, jobs, models, random_script
from .world import CALM, STORM, weather

_STEPS = 1200
_COMMANDS = 14


def _seeds(text: str) -> list[int]:
    ranges = [part.partition("-") for part in text.split(",")]
    return [seed for first, _, last in ranges for seed in range(int(first), int(last or first) + 1)]


SEEDS = _seeds(os.environ.get("SIMULATION_SEEDS", "0-15"))
FEW = SEEDS[:4]


def everything(seed: int) -> dict[str, Script]:
    """Two endpoints that come and go, a model, and jobs."""
    rng = random.Random(seed)
    online = {name: random_script(name, _COMMANDS, rng, deletes=True) for name in ("shop", "bank")}
    return {**online, "models": models(), "night": batch_endpoint("night", rng), **jobs("night", 3, rng)}


def two_endpoints(seed: int) -> dict[str, Script]:
    """Scripts whose every command meets what the ones before it on its endpoint have left, and nothing else."""
    rng = random.Random(seed)
    return {name: random_script(name, _COMMANDS, rng, deletes=False) for name in ("shop", "bank")}


def result(house: House) -> dict[str, object]:
    """What came of it, without the times and the keys, which are new each time."""
    changing = {"created_at": True, "updated_at": True, "keys": True}
    documents = {name: each.model_dump(exclude=changing) for name, each in house.watch.desired.items()}
    return {
        "documents": documents,
        "outcomes": {id: each for id, each in house.watch.outcomes.items() if "stray" not in id},
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_goes_wrong_all_comes_to_rest_as_it_is_desired_and_every_use_is_paid_once(seed: int) -> None:
    house = House(seed, everything(seed), weather(seed))
    house.run(_STEPS)
    house.settle()


@pytest.mark.parametrize("seed", FEW)
def test_usage_that_was_dropped_is_called_lost_as_soon_as_later_usage_shows_it(seed: int) -> None:
    house = House(seed, two_endpoints(seed), replace(STORM, lose=0.2))
    house.run(_STEPS)
    house.settle()  # which compares what is called lost with the gaps that there are
    assert house.watch.accounts.dropped > 0
    assert sum(rollup.lost for rollup in house.watch.accounts.rollups.values()) > 0


@pytest.mark.parametrize("seed", FEW)
def test_all_usage_metered_again_changes_nothing(seed: int) -> None:
    house = House(seed, two_endpoints(seed))
    house.run(_STEPS)
    house.settle()
    before = dict(house.watch.accounts.rollups)
    house.metering.rewind()
    house.deal()
    assert house.watch.accounts.rollups == before


@pytest.mark.parametrize("seed", FEW)
def test_commands_to_one_endpoint_end_the_same_whatever_goes_on_around_them(seed: int) -> None:
    results = []
    for order in range(4):
        house = House(f"{seed}/{order}", two_endpoints(seed), STORM if order else CALM, one_outcome=True)
        house.run(_STEPS // 2)
        house.settle()
        results.append(result(house))
    assert all(each == results[0] for each in results)


def test_a_restart_of_everybody_after_any_step_changes_nothing() -> None:
    scripts = {"shop": two_endpoints(1)["shop"][:6]}
    results = []
    for step in range(0, 150, 5):
        house = House("restarts", scripts, CALM, one_outcome=True)
        house.run(step)
        house.restart(*house.services)
        house.settle()
        results.append(result(house))
    assert all(each == results[0] for each in results)


@pytest.mark.parametrize("seed", FEW)
def test_a_house_that_restarts_somebody_after_every_step_gets_well_when_that_ends(seed: int) -> None:
    house = House(seed, two_endpoints(seed), CALM, one_outcome=True)
    undisturbed = House(seed, two_endpoints(seed), CALM, one_outcome=True)
    for _ in range(400):
        house.step(0.2)
        house.restart(house.world.rng.choice(house.services))
    for each in (house, undisturbed):
        each.settle()
    assert result(house) == result(undisturbed)


def test_every_command_again_changes_nothing_where_all_were_accepted() -> None:
    house = House("again", {"shop": accepted(two_endpoints(2)["shop"])}, CALM, one_outcome=True)
    house.settle()
    before: dict[str, EndpointDesired] = dict(house.watch.desired)
    house.provisioner.rewind()
    house.settle()
    assert house.watch.desired == before


def accepted(script: Script) -> Script:
    """The commands of a script that are accepted, for the others left out."""
    house = House("first", {"shop": script}, CALM)
    house.settle()
    return [each for each in script if hasattr(house.watch.outcomes[each.id], "generation")]
