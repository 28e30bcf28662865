"""What is wrong with commands about endpoints.

PURE, see the package.
"""

from collections.abc import Iterator, Mapping

from contracts.endpoint_rules import rules_of
from contracts.messages import (
    BatchEndpointSpec,
    CreateEndpoint,
    EndpointDesired,
    OnlineEndpointSpec,
    Problem,
    RegenerateKey,
    Traffic,
    UpdateEndpoint,
)
from provisioner.core.validation.quotas import over_quota
from provisioner.core.world import World

MOST_MIRRORED = 50
"""Percent of an endpoint's traffic."""


def create(command: CreateEndpoint, world: World) -> Iterator[Problem]:
    """Every reason not to make the endpoint."""
    name = command.endpoint
    if name in world.endpoints:
        message = f"'{name}' exists: update it, or choose another name"
        yield Problem(code="EndpointAlreadyExists", field="endpoint", message=message)
    elif name in world.deleting:
        message = f"'{name}' is still being deleted: try again when it is gone"
        yield Problem(code="ResourceNotReady", field="endpoint", message=message)
    if len(world.endpoints) >= world.quotas.endpoints:
        yield over_quota("endpoint", "endpoints", len(world.endpoints) + 1, world.quotas.endpoints, "endpoints")
    if isinstance(command.spec, BatchEndpointSpec) and (default := command.spec.defaults.deployment_name):
        message = f"a new endpoint has no deployment '{default}' yet: create it, then update the endpoint's default"
        yield Problem(code="ResourceNotFound", field="spec.defaults.deployment_name", message=message)
    if isinstance(command.spec, OnlineEndpointSpec):
        yield from _properties("spec.properties", command.spec.properties)


def update(command: UpdateEndpoint, world: World) -> Iterator[Problem]:
    """Every reason not to change the endpoint."""
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from missing(command.endpoint, world)
        if command.traffic is not None:
            yield from _sum(command.traffic)
        return
    if isinstance(endpoint.spec, OnlineEndpointSpec):
        yield from _routing(command, endpoint)
    else:
        for field in ("traffic", "mirror_traffic", "public_network_access"):
            if getattr(command, field) is not None:
                message = f"'{endpoint.endpoint}' is a batch endpoint and has no traffic: set defaults.deployment_name"
                yield Problem(code="BadArgument", field=field, message=message)
    if command.defaults is not None:
        if isinstance(endpoint.spec, OnlineEndpointSpec):
            message = f"'{endpoint.endpoint}' is an online endpoint and has no default deployment: set its traffic"
            yield Problem(code="BadArgument", field="defaults", message=message)
        elif (default := command.defaults.deployment_name) and default not in endpoint.deployments:
            yield no_deployment("defaults.deployment_name", default, endpoint)


def _routing(command: UpdateEndpoint, endpoint: EndpointDesired) -> Iterator[Problem]:
    """What is wrong with where requests shall go."""
    if command.properties is not None:
        yield from _properties("properties", command.properties)
    if command.traffic is not None:
        yield from _sum(command.traffic)
        yield from _unknown_targets("traffic", command.traffic, endpoint)
    if command.mirror_traffic is not None:
        yield from _mirror(command.mirror_traffic)
        yield from _unknown_targets("mirror_traffic", command.mirror_traffic, endpoint)
    traffic = endpoint.traffic if command.traffic is None else command.traffic
    mirrored = endpoint.mirror_traffic if command.mirror_traffic is None else command.mirror_traffic
    for name, share in mirrored.items():
        if share and traffic.get(name):
            field = "traffic" if command.mirror_traffic is None else "mirror_traffic"
            message = f"'{name}' cannot get live and mirrored traffic: take one of them away"
            yield Problem(code="BadArgument", field=f"{field}.{name}", message=message)


def _properties(field: str, properties: Mapping[str, str]) -> Iterator[Problem]:
    for name, message in rules_of(properties)[1].items():
        yield Problem(code="BadArgument", field=f"{field}.{name}", message=message)


def _mirror(mirrored: Traffic) -> Iterator[Problem]:
    shares = {name: share for name, share in mirrored.items() if share}
    if len(shares) > 1:
        message = f"{len(shares)} deployments are named ({', '.join(shares)}): traffic is mirrored to one"
        yield Problem(code="BadArgument", field="mirror_traffic", message=message)
    for name, share in shares.items():
        if share > MOST_MIRRORED:
            message = f"{share} % is too much: at most {MOST_MIRRORED} % of the traffic is mirrored"
            yield Problem(code="BadArgument", field=f"mirror_traffic.{name}", message=message)


def _sum(traffic: Traffic) -> Iterator[Problem]:
    total = sum(traffic.values())
    if total not in (0, 100):
        message = f"the percentages sum to {total}: they must sum to 100, or all be 0"
        yield Problem(code="BadArgument", field="traffic", message=message)


def _unknown_targets(field: str, traffic: Traffic, endpoint: EndpointDesired) -> Iterator[Problem]:
    for name in traffic:
        if name not in endpoint.deployments:
            yield no_deployment(f"{field}.{name}", name, endpoint)


def regenerate_key(command: RegenerateKey, world: World) -> Iterator[Problem]:
    """Every reason not to replace a key."""
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from missing(command.endpoint, world)
    elif endpoint.keys is None:
        message = f"'{command.endpoint}' takes tokens ({endpoint.spec.auth_mode}) and has no keys"
        yield Problem(code="BadArgument", field="endpoint", message=message)


def missing(endpoint: str, world: World) -> Iterator[Problem]:
    """A problem when there is no such endpoint."""
    if endpoint not in world.endpoints:
        message = f"there is no endpoint '{endpoint}': create it first, or check the name"
        yield Problem(code="ResourceNotFound", field="endpoint", message=message)


def no_deployment(field: str, name: str, endpoint: EndpointDesired) -> Problem:
    """`field` names a deployment that the endpoint does not have."""
    known = ", ".join(sorted(endpoint.deployments)) or "no deployment"
    message = f"'{name}' is not on '{endpoint.endpoint}', which has {known}"
    return Problem(code="ResourceNotFound", field=field, message=message)
