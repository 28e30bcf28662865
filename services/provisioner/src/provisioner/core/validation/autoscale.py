"""What is wrong with autoscale settings.

PURE, see the package.
"""

from collections.abc import Iterator

from contracts.messages import AutoscaleSetting, OnlineDeploymentSpec, Problem, SetAutoscale
from provisioner.core.validation import quotas
from provisioner.core.validation.endpoints import missing, no_deployment
from provisioner.core.world import World

METRICS = (
    "RequestsPerMinute",
    "RequestLatency",
    "CpuUtilizationPercentage",
    "CpuMemoryUtilizationPercentage",
    "DiskUtilization",
)
"""The metrics that signals are published for, by Azure's names."""


def put(command: SetAutoscale, world: World) -> Iterator[Problem]:
    """Every reason not to set, or remove, the setting."""
    name, endpoint = command.deployment, world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from missing(command.endpoint, world)
    elif (deployment := endpoint.deployments.get(name)) is None:
        yield no_deployment("deployment", name, endpoint)
    elif not isinstance(deployment.spec, OnlineDeploymentSpec):
        message = f"'{name}' is a batch deployment: only online deployments scale by rules"
        yield Problem(code="BadArgument", field="deployment", message=message)
    elif command.autoscale is not None:
        field = "autoscale.profiles.0.capacity.maximum"
        yield from quotas.machine(field, command.endpoint, name, deployment.spec, command.autoscale, world)
    if command.autoscale is not None:
        yield from _setting(command.autoscale, world)


def _setting(autoscale: AutoscaleSetting, world: World) -> Iterator[Problem]:
    for at, profile in enumerate(autoscale.profiles):
        where = f"autoscale.profiles.{at}"
        yield from quotas.instances(f"{where}.capacity.maximum", profile.capacity.maximum, world)
        for index, rule in enumerate(profile.rules):
            metric = rule.metric_trigger.metric_name
            if metric not in METRICS:
                field = f"{where}.rules.{index}.metric_trigger.metric_name"
                message = f"'{metric}' is unknown: use one of {', '.join(METRICS)}"
                yield Problem(code="BadArgument", field=field, message=message)
