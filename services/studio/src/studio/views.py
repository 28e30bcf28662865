"""The documents that studio answers with, from the messages on the bus.

PURE: messages in, JSON values out. No clock, no I/O, no web framework. No key enters a document: not its digest and not
its sealed text.
"""

from typing import Any
from uuid import UUID

from contracts.artifacts import artifact_uri
from contracts.identities import principals
from contracts.messages import (
    AssetRegistered,
    BatchJob,
    DeadLetter,
    DeploymentEvent,
    EndpointDesired,
    EndpointObserved,
    MiniBatchEnded,
    OnlineEndpointSpec,
    ScaleDecision,
)

Document = dict[str, Any]


def endpoint(
    desired: EndpointDesired, observed: EndpointObserved | None, scoring_url: str, api_url: str, tenant: UUID
) -> Document:
    """An endpoint with its traffic (0 for the deployments that get none), who its instances are in `tenant`, and the
    state of its deployments."""
    document: Document = {
        "name": desired.endpoint,
        "kind": desired.spec.kind,
        "generation": desired.generation,
        "properties": desired.spec.model_dump(mode="json", exclude={"kind"}),
        "provisioning_state": endpoint_state(desired, observed),
    }
    if desired.spec.kind == "online":
        document["properties"]["identity"] = identity(desired, tenant)
        document |= {
            "traffic": {name: desired.traffic.get(name, 0) for name in desired.deployments},
            "mirror_traffic": desired.mirror_traffic,
            "scoring_uri": f"{scoring_url}/{desired.endpoint}/score",
            "openapi_uri": f"{scoring_url}/{desired.endpoint}/swagger.json",
        }
    else:
        document["scoring_uri"] = f"{api_url}/v1/batchEndpoints/{desired.endpoint}/jobs"
    return document | {
        "deployments": {name: deployment_status(desired, observed, name) for name in desired.deployments},
        "created_at": desired.created_at.isoformat(),
        "updated_at": desired.updated_at.isoformat(),
    }


def identity(desired: EndpointDesired, tenant: UUID) -> Document:
    """Who an online endpoint's instances are, in Azure's form: {"type", "tenant_id", "principal_id",
    "user_assigned_identities": [{"resource_id", "principal_id", "client_id"}]}."""
    assert isinstance(desired.spec, OnlineEndpointSpec)
    who = [principal.model_dump(mode="json") for principal in principals(tenant, desired)]
    own = desired.spec.identity.type == "system_assigned"
    return {
        "type": desired.spec.identity.type,
        "tenant_id": str(tenant),
        "principal_id": who[0]["principal_id"] if own else None,
        "user_assigned_identities": [] if own else who,
    }


def endpoint_state(desired: EndpointDesired, observed: EndpointObserved | None) -> str:
    """The observed state, if it answers for what is desired now."""
    if observed is None:
        return "Creating"
    return observed.state if observed.generation == desired.generation else "Updating"


def deployment(desired: EndpointDesired, observed: EndpointObserved | None, name: str) -> Document:
    """One deployment; `name` must be in `desired`."""
    meant = desired.deployments[name]
    return {
        "name": name,
        "endpoint_name": desired.endpoint,
        "kind": meant.spec.kind,
        "generation": meant.generation,
        "properties": meant.spec.model_dump(mode="json", exclude={"kind"}),
        **deployment_status(desired, observed, name),
    }


def deployment_status(desired: EndpointDesired, observed: EndpointObserved | None, name: str) -> Document:
    """How a deployment is: {"provisioning_state", "error": {"code", "message", "log_tail"} or null}, and for an online
    one {"desired_instances", "ready_instances", "instances": [{"id", "state", …}]}.

    What was observed of another generation of the endpoint, its errors too, says nothing about this one.
    """
    meant = desired.deployments[name]
    seen = observed.deployments.get(name) if observed is not None else None
    current = seen if observed is not None and observed.generation == desired.generation else None
    status: Document = {
        "provisioning_state": current.state if current else "Updating" if seen else "Creating",
        "error": current.error.model_dump(mode="json") if current and current.error else None,
    }
    if meant.spec.kind == "online":
        status |= {
            "desired_instances": current.desired_instances if current else meant.spec.instance_count,
            "ready_instances": len(seen.in_state("Ready")) if seen else 0,
            "instances": [instance.model_dump(mode="json") for instance in seen.instances] if seen else [],
        }
    return status


def autoscale(desired: EndpointDesired, name: str, last: ScaleDecision | None) -> Document | None:
    """A deployment's autoscale setting, in Azure Monitor's spelling, with the last decision; None when it has none."""
    setting = desired.deployments[name].autoscale
    if setting is None:
        return None
    return {
        "name": name,
        "endpoint_name": desired.endpoint,
        "properties": setting.model_dump(mode="json", by_alias=True),
        "decision": decision(last) if last is not None else None,
    }


def decision(message: ScaleDecision) -> Document:
    """A scale decision as it was published."""
    return message.model_dump(mode="json")


def asset(asset: AssetRegistered) -> Document:
    """A registered version of an asset; `id` is what a deployment names, `path` where its contents are kept."""
    return {
        "id": f"azureml:{asset.name}:{asset.version}",
        "name": asset.name,
        "version": asset.version,
        "type": asset.type,
        "description": asset.description,
        "tags": asset.tags,
        "path": artifact_uri(asset.artifact),
        "digest": asset.artifact.digest,
        "created_at": asset.registered_at.isoformat(),
    }


def job(message: BatchJob, progress: list[MiniBatchEnded] | None = None) -> Document:
    """A batch job; with `progress`, the last attempts at its mini-batches, oldest first."""
    document = {
        # What `az` calls its id.
        "name": message.job,
        **message.model_dump(mode="json", exclude={"command"}),
        "input": message.command.input.model_dump(mode="json"),
    }
    if progress is not None:
        document["progress"] = [ended.model_dump(mode="json", exclude={"job"}) for ended in progress]
    return document


def event(message: DeploymentEvent) -> Document:
    """Something that happened to a deployment."""
    return message.model_dump(mode="json", exclude={"endpoint", "deployment"})


def dead_letter(letter: DeadLetter) -> Document:
    """A parked record: where it lies, why, and what it holds."""
    return letter.model_dump(mode="json")
