"""What simulations found, as small as it gets."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from contracts.messages import (
    Artifact,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
)
from provisioner.announcer import Announcer
from provisioner.core.lifecycle import Deaths, Instance, Phase, Place
from provisioner.core.observe import observe
from provisioner.core.plan import Timing, remembered
from provisioner.reconciler import Reconciler

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)

SPEC = OnlineDeploymentSpec(code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"))


def test_a_deployment_with_all_its_instances_ready_has_not_failed() -> None:
    """In seeds 557 and 648 a deployment is scaled in from 2 while its first place waits to be tried again; that place's
    deaths were remembered, and reported as Failed, for as long as the other instance lived."""
    blue = DeploymentDesired(generation=2, spec=SPEC, code=Artifact(digest="c" * 64, name="src"))
    desired = EndpointDesired(
        endpoint="shop",
        generation=2,
        created_at=NOON,
        updated_at=NOON,
        spec=OnlineEndpointSpec(),
        deployments={"blue": blue},
    )
    first, second = Place("shop", "blue", 2, 0), Place("shop", "blue", 2, 1)
    ready = [Instance("i", second, "127.0.0.1:1", NOON, Phase.READY, since=0.0)]
    deaths = {first: Deaths.after(None, None, 0.0, DeploymentError(code="InternalServerError", message="died"))}
    deaths = remembered(desired, {"blue": 1}, ready, deaths)
    document = observe("shop", desired, {"blue": 1}, ready, deaths, None)
    assert document is not None
    assert document.deployments["blue"].state == "Succeeded"


def test_an_endpoint_remains_until_the_log_says_nothing_of_it_any_more() -> None:
    """An endpoint must not be made anew before its predecessor's tombstone is written: it never would be, and
    generations would go back."""
    document = EndpointObserved(endpoint="shop", generation=5, state="Deleting")
    nothing: Any = SimpleNamespace(adopt=list)
    reconciler = Reconciler({}, {}, nothing, nothing, nothing, nothing, Timing())
    announcer = Announcer(nothing, {"shop": document}, reconciler.told)
    reconciler.begin(announcer, nothing)
    announcer.tell("shop", None)
    assert reconciler.remains("shop")
