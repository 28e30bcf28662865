"""An endpoint as it is, for everyone who reads the log.

PURE, see the package. A function of how things are now, and of what was last told only to know whether a deployment
has ever worked.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from contracts.messages import DeploymentError, DeploymentObserved, DeploymentState, EndpointDesired, EndpointObserved
from contracts.messages import Instance as InstanceObserved
from provisioner.core.lifecycle import Deaths, Instance, Phase, Place

NEVER_READY = 0
"""The generation of a deployment of which no instance was ever ready."""

# Readers know four states: one that is to get ready again is, to each of them, one that is to get ready.
_TOLD: Mapping[Phase, Literal["Starting", "Ready", "Draining", "Failed"]] = {
    Phase.STARTING: "Starting",
    Phase.READY: "Ready",
    Phase.UNREADY: "Starting",
    Phase.FAILED: "Failed",
    Phase.DRAINING: "Draining",
    Phase.STOPPING: "Draining",
}


def observe(
    endpoint: str,
    desired: EndpointDesired | None,
    wanted: Mapping[str, int],
    instances: Sequence[Instance],
    deaths: Mapping[Place, Deaths],
    previous: EndpointObserved | None,
) -> EndpointObserved | None:
    """The document for `endpoint`; None when nothing is left of it.

    An endpoint's own state is about the endpoint: a deployment that fails leaves it Succeeded, as on Azure.
    """
    if desired is None and not instances:
        return None
    names = {instance.place.deployment for instance in instances}
    names |= desired.deployments.keys() if desired is not None else set()
    deployments = {}
    for name in sorted(names):
        own = [instance for instance in instances if instance.place.deployment == name]
        before = previous.deployments.get(name) if previous is not None else None
        if desired is None or name not in desired.deployments:
            deployments[name] = _going(own, before)
        elif name not in wanted:
            generation = desired.deployments[name].generation
            deployments[name] = DeploymentObserved(generation=generation, state="Succeeded", desired_instances=0)
        else:
            first = Place(endpoint, name, desired.deployments[name].generation, 0)
            deployments[name] = _deployment(first, wanted[name], own, deaths, before)
    generation = desired.generation if desired is not None else previous.generation if previous is not None else 0
    state: Literal["Deleting", "Succeeded"] = "Deleting" if desired is None else "Succeeded"
    return EndpointObserved(endpoint=endpoint, generation=generation, state=state, deployments=deployments)


def _deployment(
    first: Place,
    wanted: int,
    instances: Sequence[Instance],
    deaths: Mapping[Place, Deaths],
    before: DeploymentObserved | None,
) -> DeploymentObserved:
    ready = [instance for instance in instances if instance.phase is Phase.READY]
    current = [instance for instance in ready if instance.place.generation == first.generation]
    told = before.generation if before is not None else NEVER_READY
    generation = max((instance.place.generation for instance in ready), default=told)
    error = _error(first, instances, deaths)
    state: DeploymentState
    if error is not None:
        state = "Failed"
    elif len(current) == wanted and len(instances) == wanted:
        state, generation = "Succeeded", first.generation
    elif told == NEVER_READY and not ready:
        state = "Creating"
    elif any(instance.place.generation != first.generation for instance in instances) or generation != first.generation:
        state = "Updating"
    else:
        state = "Scaling"
    return DeploymentObserved(
        generation=generation, state=state, desired_instances=wanted, instances=_told(instances), error=error
    )


def _error(first: Place, instances: Sequence[Instance], deaths: Mapping[Place, Deaths]) -> DeploymentError | None:
    """Why a place of the current generation has no ready instance, when that is no accident; the latest to be tried."""
    ready = {instance.place for instance in instances if instance.phase is Phase.READY}
    failing = [
        (record.retry_at, record.error)
        for place, record in deaths.items()
        if place[:3] == first[:3] and record.failing and place not in ready
    ]
    return max(failing, key=lambda each: each[0])[1] if failing else None


def _going(instances: Sequence[Instance], before: DeploymentObserved | None) -> DeploymentObserved:
    """A deployment that is no longer desired, while its instances end."""
    return DeploymentObserved(
        generation=before.generation if before is not None else NEVER_READY,
        state="Deleting",
        desired_instances=0,
        instances=_told(instances),
    )


def _told(instances: Sequence[Instance]) -> tuple[InstanceObserved, ...]:
    return tuple(
        InstanceObserved(
            id=instance.id,
            generation=instance.place.generation,
            state=_TOLD[instance.phase],
            address=instance.address,
            started_at=instance.started_at,
        )
        for instance in sorted(instances, key=lambda each: (each.started_at, each.id))
    )
