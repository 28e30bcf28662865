"""What is wrong with a command: every problem at once, each with its field, Azure's code and the next step.

PURE, see the package. `contracts` has checked forms already (names, ranges, unknown fields); here a command meets the
state that it would change.
"""

from contracts.messages import (
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    GetLogs,
    Problem,
    PutDeployment,
    RegenerateKey,
    RegisterAsset,
    SetAutoscale,
    UpdateEndpoint,
)
from provisioner.core.validation import assets, autoscale, deployments, endpoints
from provisioner.core.world import Command, World


def check(command: Command, world: World) -> tuple[Problem, ...]:
    """Every reason not to apply `command`; none when it can be applied."""
    match command:
        case CreateEndpoint():
            return tuple(endpoints.create(command, world))
        case UpdateEndpoint():
            return tuple(endpoints.update(command, world))
        case DeleteEndpoint():
            return tuple(endpoints.missing(command.endpoint, world))
        case RegenerateKey():
            return tuple(endpoints.regenerate_key(command, world))
        case PutDeployment():
            return tuple(deployments.put(command, world))
        case DeleteDeployment():
            return tuple(deployments.delete(command, world))
        case GetLogs():
            return tuple(deployments.get_logs(command, world))
        case SetAutoscale():
            return tuple(autoscale.put(command, world))
        case RegisterAsset():
            return tuple(assets.register(command, world))
    raise TypeError(f"{type(command).__name__} is not a command of the provisioner")
