"""What may be promised: counts of things, and the machine's own cores and memory.

PURE, see the package. Instances share the machine: an instance type is a promise, and more is promised than there is,
as most instances idle most of the time. How many times over is a setting.
"""

from collections.abc import Iterator

from contracts.catalog import Catalog, InstanceType
from contracts.messages import AutoscaleSetting, DeploymentDesired, OnlineDeploymentSpec, Problem
from provisioner.core.world import World


def over_quota(field: str, what: str, asked: int, limit: int, setting: str) -> Problem:
    """There would be more of `what` than may be; `setting` is the name of the limit's field in Quotas."""
    variable = f"ENDPUNKT_QUOTA_{setting.upper()}"
    message = f"{asked} {what} would be over the quota of {limit} ({variable}): take fewer, or raise the setting"
    return Problem(code="OutOfQuota", field=field, message=message)


def instances(field: str, count: int, world: World) -> Iterator[Problem]:
    """A problem when one deployment would have too many instances."""
    limit = world.quotas.instances_per_deployment
    if count > limit:
        yield over_quota(field, "instances of a deployment", count, limit, "instances_per_deployment")


def promised(spec: OnlineDeploymentSpec, autoscale: AutoscaleSetting | None) -> int:
    """The most instances that a deployment may have."""
    if autoscale is not None and autoscale.enabled:
        return autoscale.profiles[0].capacity.maximum
    return spec.instance_count


def machine(
    field: str,
    endpoint: str,
    deployment: str,
    spec: OnlineDeploymentSpec,
    autoscale: AutoscaleSetting | None,
    world: World,
) -> Iterator[Problem]:
    """Problems when all online deployments together, with this one as it is asked for, would be promised more than the
    machine may promise. A change that promises less than before is never refused."""
    kind = world.catalog.instance_types.get(spec.instance_type)
    if kind is None:
        return
    if kind.memory_gib > world.machine.memory_gib:
        message = (
            f"an instance of {spec.instance_type} has {kind.memory_gib:g} GiB of memory, and this machine has "
            f"{world.machine.memory_gib:.1f} GiB: use a smaller instance type"
        )
        yield Problem(code="OutOfQuota", field="spec.instance_type", message=message)
        return
    others = [
        (promised(other_spec, other.autoscale), world.catalog.instance_types.get(other_spec.instance_type))
        for name, document in world.endpoints.items()
        for at, (other, other_spec) in document.online().items()
        if (name, at) != (endpoint, deployment)
    ]
    document = world.endpoints.get(endpoint)
    before = document.deployments.get(deployment) if document is not None else None
    cpu_before, memory_before = _promise_of(before, world.catalog)
    count = promised(spec, autoscale)
    quotas, has = world.quotas, world.machine
    for asked, rest, had, limit, unit, sum_of, setting in (
        (
            count * kind.vcpus,
            sum(number * other.vcpus for number, other in others if other is not None),
            cpu_before,
            has.cores * quotas.overcommit_cpu,
            "vCPUs",
            f"{has.cores:g} cores x {quotas.overcommit_cpu:g}",
            "ENDPUNKT_OVERCOMMIT_CPU",
        ),
        (
            count * kind.memory_gib,
            sum(number * other.memory_gib for number, other in others if other is not None),
            memory_before,
            has.memory_gib * quotas.overcommit_memory,
            "GiB of memory",
            f"{has.memory_gib:.1f} GiB x {quotas.overcommit_memory:g}",
            "ENDPUNKT_OVERCOMMIT_MEMORY",
        ),
    ):
        if asked + rest > limit and asked > had:
            message = (
                f"{count} x {spec.instance_type} would promise {asked:g} {unit}, with the other online deployments "
                f"{asked + rest:g} {unit} of {limit:.4g} ({sum_of}, {setting}): use fewer or smaller instances, delete "
                "a deployment, or raise the setting"
            )
            yield Problem(code="OutOfQuota", field=field, message=message)


def _promise_of(deployment: DeploymentDesired | None, catalog: Catalog) -> tuple[float, float]:
    """The vCPUs and GiB that a deployment is promised already."""
    if deployment is None or not isinstance(deployment.spec, OnlineDeploymentSpec):
        return 0.0, 0.0
    kind: InstanceType | None = catalog.instance_types.get(deployment.spec.instance_type)
    count = promised(deployment.spec, deployment.autoscale)
    return (count * kind.vcpus, count * kind.memory_gib) if kind is not None else (0.0, 0.0)
