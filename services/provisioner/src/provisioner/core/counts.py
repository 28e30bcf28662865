"""How many instances a deployment is to have.

PURE, see the package. The log merges two writers here: the person's document and the autoscaler's decisions.
"""

from collections.abc import Mapping
from datetime import datetime

from contracts.messages import DeploymentDesired, EndpointDesired, OnlineDeploymentSpec, ScaleDecision


def wanted_instances(desired: EndpointDesired, decisions: Mapping[str, ScaleDecision]) -> dict[str, int]:
    """The number of instances for each online deployment of an endpoint; `decisions` are by endpoint/deployment."""
    return {
        name: wanted(deployment, spec, decisions.get(f"{desired.endpoint}/{name}"), desired.created_at)
        for name, (deployment, spec) in desired.online().items()
    }


def wanted(
    deployment: DeploymentDesired, spec: OnlineDeploymentSpec, decision: ScaleDecision | None, created_at: datetime
) -> int:
    """With an enabled autoscale setting, the decided number, or the person's until there is a decision, each within
    the profile's bounds; else the person's. A decision about an earlier endpoint of the same name does not count."""
    if deployment.autoscale is None or not deployment.autoscale.enabled:
        return spec.instance_count
    capacity = deployment.autoscale.profiles[0].capacity
    decided = decision is not None and decision.decided_at >= created_at
    count = decision.instances if decision is not None and decided else spec.instance_count
    return min(max(count, capacity.minimum), capacity.maximum)


def newer(decision: ScaleDecision, known: ScaleDecision | None) -> ScaleDecision:
    """The later decided of the two: a replay never brings back an older decision."""
    return decision if known is None or decision.decided_at >= known.decided_at else known
