"""Documents from messages."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from contracts.identities import system_assigned, user_assigned
from contracts.messages import (
    Artifact,
    AssetReference,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    CodeConfiguration,
    Collection,
    DataCollector,
    DeploymentDesired,
    DeploymentError,
    DeploymentEvent,
    DeploymentObserved,
    DeploymentSpec,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    EndpointSpec,
    EnvironmentReference,
    Instance,
    ManagedIdentity,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    UserAssignedIdentity,
)
from studio import views

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CODE = CodeConfiguration(code="file:///code", scoring_script="score.py")
ARTIFACT = Artifact(digest="ab" * 32, name="code")
TENANT = UUID("00000000-0000-0000-0000-000000000001")
DIGEST, SEALED = "cd" * 32, "c2VhbGVk"


def endpoint(
    spec: EndpointSpec, deployments: dict[str, tuple[int, DeploymentSpec]], generation: int = 7, **traffic: int
) -> EndpointDesired:
    key = EndpointKey(digest=DIGEST, sealed=SEALED)
    return EndpointDesired(
        endpoint="diabetes",
        generation=generation,
        created_at=NOON,
        updated_at=NOON,
        spec=spec,
        keys=EndpointKeys(primary=key, secondary=key),
        traffic=traffic,
        deployments={
            name: DeploymentDesired(generation=at, spec=deployment, code=ARTIFACT)
            for name, (at, deployment) in deployments.items()
        },
    )


def observed(generation: int, state: Any = "Succeeded", **deployments: DeploymentObserved) -> EndpointObserved:
    return EndpointObserved(endpoint="diabetes", generation=generation, state=state, deployments=deployments)


def instances(*states: Any) -> tuple[Instance, ...]:
    return tuple(
        Instance(id=f"i{n}", generation=5, state=state, address="127.0.0.1:1", started_at=NOON)
        for n, state in enumerate(states)
    )


ONLINE = OnlineDeploymentSpec(code_configuration=CODE, instance_count=3)
BATCH = BatchDeploymentSpec(code_configuration=CODE)
FAILED = DeploymentError(code="UserScriptInitFailed", message="init() raised", log_tail=("Traceback", "ValueError"))


def test_an_online_endpoint() -> None:
    desired = endpoint(OnlineEndpointSpec(tags={"a": "b"}), {"blue": (5, ONLINE), "green": (6, ONLINE)}, blue=100)
    seen = observed(7, blue=DeploymentObserved(generation=5, state="Succeeded", desired_instances=2))
    document = views.endpoint(desired, seen, "https://scoring:1", "https://api:2", TENANT)
    assert document["name"] == "diabetes"
    assert document["kind"] == "online"
    assert document["generation"] == 7
    assert document["properties"] == {
        "description": "", "tags": {"a": "b"}, "properties": {}, "auth_mode": "key",
        "public_network_access": "enabled",
        "identity": {
            "type": "system_assigned", "tenant_id": str(TENANT), "user_assigned_identities": [],
            "principal_id": system_assigned(TENANT, "diabetes", NOON).principal_id,
        },
    }  # fmt: skip
    assert document["traffic"] == {"blue": 100, "green": 0}
    assert document["provisioning_state"] == "Succeeded"
    assert document["scoring_uri"] == "https://scoring:1/diabetes/score"
    assert document["openapi_uri"] == "https://scoring:1/diabetes/swagger.json"
    assert {name: part["provisioning_state"] for name, part in document["deployments"].items()} == {
        "blue": "Succeeded",
        "green": "Creating",
    }


def test_who_the_instances_are() -> None:
    ids = ("/subscriptions/s/userAssignedIdentities/a", "/subscriptions/s/userAssignedIdentities/b")
    named = ManagedIdentity(
        type="user_assigned",
        user_assigned_identities=tuple(UserAssignedIdentity(resource_id=id) for id in ids),
    )
    shown = views.identity(endpoint(OnlineEndpointSpec(identity=named), {}), TENANT)
    assert shown == {
        "type": "user_assigned",
        "tenant_id": str(TENANT),
        "principal_id": None,
        "user_assigned_identities": [user_assigned(TENANT, id).model_dump() for id in ids],
    }


def test_a_deployment_shows_what_it_is_made_of() -> None:
    spec = OnlineDeploymentSpec(
        model=AssetReference(path="artifact:x/model", type="mlflow_model"),
        environment=EnvironmentReference(id="azureml:packages:3"),
        data_collector=DataCollector(collections={"request": Collection()}),
    )
    shown = views.deployment(endpoint(OnlineEndpointSpec(), {"blue": (5, spec)}), None, "blue")["properties"]
    assert shown["model"] == {"path": "artifact:x/model", "type": "mlflow_model", "id": None}
    assert shown["environment"] == {"id": "azureml:packages:3", "conda_file": None, "image": None}
    assert shown["code_configuration"] is None
    assert shown["data_collector"]["collections"] == {"request": {"enabled": True, "data": None}}


def test_an_event() -> None:
    event = DeploymentEvent(endpoint="diabetes", deployment="blue", at=NOON, reason="Built", message="in 3 s")
    assert views.event(event) == {
        "instance": None, "at": "2026-11-01T12:00:00Z", "reason": "Built", "message": "in 3 s",
    }  # fmt: skip


def test_a_batch_endpoint_has_jobs_and_its_deployments_no_instances() -> None:
    desired = endpoint(BatchEndpointSpec(), {"linear": (2, BATCH)})
    seen = observed(7, linear=DeploymentObserved(generation=2, state="Succeeded", desired_instances=0))
    document = views.endpoint(desired, seen, "https://scoring:1", "https://api:2", TENANT)
    assert document["scoring_uri"] == "https://api:2/v1/batchEndpoints/diabetes/jobs"
    assert document["deployments"] == {"linear": {"provisioning_state": "Succeeded", "error": None}}
    assert document["provisioning_state"] == "Succeeded"
    assert "traffic" not in document


def test_no_document_has_a_key() -> None:
    desired = endpoint(OnlineEndpointSpec(), {"blue": (5, ONLINE)})
    text = json.dumps([views.endpoint(desired, None, "s", "a", TENANT), views.deployment(desired, None, "blue")])
    assert DIGEST not in text
    assert SEALED not in text


@pytest.mark.parametrize(
    ("seen", "state", "desired_instances", "ready", "error"),
    [
        # Nobody observed anything yet, or not this deployment.
        (None, "Creating", 3, 0, None),
        (observed(7), "Creating", 3, 0, None),
        # The observation is of an earlier generation of the endpoint: instances are what they are, its state is not.
        (
            observed(6, blue=DeploymentObserved(
                generation=5, state="Failed", desired_instances=1, instances=instances("Ready"), error=FAILED
            )),
            "Updating", 3, 1, None,
        ),
        # Or of an endpoint of that name that is gone.
        (
            observed(9, blue=DeploymentObserved(generation=5, state="Succeeded", desired_instances=1)),
            "Updating", 3, 0, None,
        ),
        # A count that was scaled is not the written one.
        (
            observed(7, blue=DeploymentObserved(
                generation=5, state="Succeeded", desired_instances=2, instances=instances("Ready", "Draining", "Ready")
            )),
            "Succeeded", 2, 2, None,
        ),
        (
            observed(7, blue=DeploymentObserved(generation=5, state="Failed", desired_instances=3, error=FAILED)),
            "Failed", 3, 0,
            {"code": "UserScriptInitFailed", "message": "init() raised", "log_tail": ["Traceback", "ValueError"]},
        ),
    ],
)  # fmt: skip
def test_the_state_of_a_deployment_of_an_endpoint_of_generation_7(
    seen: EndpointObserved | None, state: str, desired_instances: int, ready: int, error: Any
) -> None:
    desired = endpoint(OnlineEndpointSpec(), {"blue": (5, ONLINE)})
    document = views.deployment(desired, seen, "blue")
    assert document["provisioning_state"] == state
    assert (document["desired_instances"], document["ready_instances"]) == (desired_instances, ready)
    assert [instance["id"] for instance in document["instances"]] == [
        instance.id for instance in (seen.deployments["blue"].instances if seen and seen.deployments else ())
    ]
    assert document["error"] == error


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (None, "Creating"),
        (observed(6), "Updating"),
        (observed(7), "Succeeded"),
        (observed(7, "Failed"), "Failed"),
        (observed(8), "Updating"),
    ],
)
def test_the_state_of_an_online_endpoint_of_generation_7(seen: EndpointObserved | None, state: str) -> None:
    assert views.endpoint_state(endpoint(OnlineEndpointSpec(), {}), seen) == state
