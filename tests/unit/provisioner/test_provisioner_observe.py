"""What is told of an endpoint: the states of deployments as a table of what is there."""

from datetime import UTC, datetime

import pytest

from contracts.messages import (
    Artifact,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
)
from provisioner.core.lifecycle import Deaths, Instance, Phase, Place
from provisioner.core.observe import NEVER_READY, observe

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ERROR = DeploymentError(code="UserScriptInitFailed", message="x")
CONFIGURATION = CodeConfiguration(code="/src", scoring_script="score.py")
CODE = Artifact(digest="c" * 64, name="src")
STARTING, READY, FAILED, DRAINING, STOPPING = (
    Phase.STARTING,
    Phase.READY,
    Phase.FAILED,
    Phase.DRAINING,
    Phase.STOPPING,
)


def desired(generation: int = 5) -> EndpointDesired:
    spec = OnlineDeploymentSpec(code_configuration=CONFIGURATION)
    return EndpointDesired(
        endpoint="shop",
        generation=9,
        created_at=NOON,
        updated_at=NOON,
        spec=OnlineEndpointSpec(),
        deployments={"blue": DeploymentDesired(generation=generation, spec=spec, code=CODE)},
    )


def instances(*there: tuple[int, Phase]) -> list[Instance]:
    return [
        Instance(f"i{number}", Place("shop", "blue", generation, number), "127.0.0.1:1", NOON, phase, 0.0)
        for number, (generation, phase) in enumerate(there)
    ]


def before(generation: int) -> EndpointObserved:
    told = DeploymentObserved(generation=generation, state="Succeeded", desired_instances=1)
    return EndpointObserved(endpoint="shop", generation=7, state="Succeeded", deployments={"blue": told})


@pytest.mark.parametrize(
    ("there", "wanted", "worked", "state", "generation"),
    [
        # First start
        ([], 1, NEVER_READY, "Creating", 0),
        ([(5, STARTING)], 1, NEVER_READY, "Creating", 0),
        ([(5, READY)], 1, NEVER_READY, "Succeeded", 5),
        ([], 0, NEVER_READY, "Succeeded", 5),
        # More, fewer, or one that is replaced
        ([(5, READY), (5, STARTING)], 2, NEVER_READY, "Scaling", 5),
        ([(5, READY), (5, STARTING)], 2, 5, "Scaling", 5),
        ([(5, READY), (5, READY)], 2, 5, "Succeeded", 5),
        ([(5, READY), (5, DRAINING)], 1, 5, "Scaling", 5),
        ([(5, READY), (5, STOPPING)], 1, 5, "Scaling", 5),
        ([(5, STARTING)], 1, 5, "Scaling", 5),
        ([(5, Phase.UNREADY)], 1, 5, "Scaling", 5),
        ([], 1, 5, "Scaling", 5),
        # Another version
        ([(4, READY)], 1, 4, "Updating", 4),
        ([(4, READY), (5, STARTING)], 1, 4, "Updating", 4),
        ([(4, READY), (5, READY)], 1, 4, "Updating", 5),
        ([(4, DRAINING), (5, READY)], 1, 5, "Updating", 5),
        ([(5, STARTING)], 1, 4, "Updating", 4),
        ([(5, READY)], 1, 5, "Succeeded", 5),
    ],
)
def test_the_state_of_a_deployment(
    there: list[tuple[int, Phase]], wanted: int, worked: int, state: str, generation: int
) -> None:
    document = observe("shop", desired(), {"blue": wanted}, instances(*there), {}, before(worked))
    assert document is not None
    blue = document.deployments["blue"]
    assert (blue.state, blue.generation, blue.desired_instances) == (state, generation, wanted)
    assert (document.generation, document.state) == (9, "Succeeded")


def place(generation: int, number: int) -> Place:
    return Place("shop", "blue", generation, number)


def deaths(wait: float, at: float = 10.0) -> Deaths:
    return Deaths(1, at + wait, failing=wait > 0, proven=False, error=ERROR)


@pytest.mark.parametrize(
    ("there", "records", "failed"),
    [
        ([], {place(5, 0): deaths(1)}, True),
        ([(5, STARTING)], {place(5, 0): deaths(1)}, True),  # the next try does not make it better yet
        ([(5, READY)], {place(5, 0): deaths(1)}, False),  # now it is
        ([(5, STARTING)], {place(5, 0): deaths(0)}, False),  # an accident
        ([(4, READY)], {place(5, 0): deaths(1)}, True),  # the older version serves, the new one fails
        ([(5, READY)], {place(4, 0): deaths(1)}, False),
        ([(5, READY), (5, STARTING)], {place(5, 1): deaths(1)}, True),
    ],
)
def test_a_deployment_has_failed_while_a_place_goes_on_failing(
    there: list[tuple[int, Phase]], records: dict[Place, Deaths], failed: bool
) -> None:
    document = observe("shop", desired(), {"blue": 1}, instances(*there), records, before(5))
    assert document is not None
    blue = document.deployments["blue"]
    assert (blue.state == "Failed") == failed
    assert blue.error == (ERROR if failed else None)


def test_the_error_is_that_of_the_place_that_is_tried_last() -> None:
    later = Deaths(3, 99.0, failing=True, proven=False, error=ERROR.model_copy(update={"message": "later"}))
    records = {place(5, 0): deaths(1), place(5, 1): later}
    document = observe("shop", desired(), {"blue": 2}, [], records, None)
    assert document is not None
    assert document.deployments["blue"].error == later.error


def test_instances_are_told_under_the_names_of_the_contract() -> None:
    there = [(5, phase) for phase in (STARTING, READY, Phase.UNREADY, FAILED, DRAINING, STOPPING)]
    document = observe("shop", desired(), {"blue": 1}, instances(*there), {}, None)
    assert document is not None
    told = [each.state for each in document.deployments["blue"].instances]
    assert told == ["Starting", "Ready", "Starting", "Failed", "Draining", "Draining"]


def test_a_deployment_and_an_endpoint_go_with_their_last_instance() -> None:
    empty = desired().replace(deployments={})
    going = observe("shop", empty, {}, instances((5, DRAINING)), {}, before(5))
    assert going is not None
    assert going.deployments["blue"].state == "Deleting"
    assert going.state == "Succeeded"
    gone = observe("shop", empty, {}, [], {}, before(5))
    assert gone is not None
    assert not gone.deployments
    deleting = observe("shop", None, {}, instances((5, DRAINING)), {}, before(5))
    assert deleting is not None
    assert (deleting.state, deleting.generation, deleting.deployments["blue"].state) == ("Deleting", 7, "Deleting")
    assert observe("shop", None, {}, [], {}, before(5)) is None


def test_a_batch_deployment_has_no_instances_and_nothing_to_wait_for() -> None:
    spec = BatchDeploymentSpec(code_configuration=CONFIGURATION)
    batch = desired().replace(
        spec=BatchEndpointSpec(), deployments={"main": DeploymentDesired(generation=5, spec=spec, code=CODE)}
    )
    document = observe("shop", batch, {}, [], {}, None)
    assert document is not None
    assert document.deployments == {"main": DeploymentObserved(generation=5, state="Succeeded", desired_instances=0)}
