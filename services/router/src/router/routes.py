"""The routes: what the router must know of an endpoint, made whole from its desired and its observed document.

PURE: messages in, immutable values out. No clock and no I/O may enter this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from contracts.endpoint_rules import EndpointRules, rules_of
from contracts.messages import (
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
)


@dataclass(frozen=True, slots=True)
class InstanceRoute:
    """A Ready instance and where it listens."""

    id: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class DeploymentRoute:
    """How requests to a deployment are treated (seconds), and its Ready instances. `wakes`: it may be at zero instances
    and gets some when there are requests."""

    timeout: float = 5.0
    concurrency: int = 1
    queue_wait: float = 0.5
    idempotent: bool = False
    autoscaled: bool = False
    wakes: bool = False
    desired: int = 0
    instances: tuple[InstanceRoute, ...] = ()


@dataclass(frozen=True, slots=True)
class EndpointRoute:
    """One endpoint. `problems` are what its documents have wrong, for the log; what they are about is left out."""

    name: str
    auth: str = "key"
    created_at: datetime = datetime(1970, 1, 1, tzinfo=UTC)
    digests: tuple[bytes, ...] = ()
    traffic: Mapping[str, int] = field(default_factory=dict)
    mirror: Mapping[str, int] = field(default_factory=dict)
    private: bool = False
    rules: EndpointRules = field(default_factory=EndpointRules)
    deployments: Mapping[str, DeploymentRoute] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def route_of(desired: EndpointDesired, observed: EndpointObserved | None) -> EndpointRoute | None:
    """The route of an online endpoint; None for a batch endpoint, which takes no scoring requests.

    Settings hold as soon as they are desired; instances count as soon as they are observed Ready, whatever generation
    they run: during an update old and new ones serve together.
    """
    if not isinstance(desired.spec, OnlineEndpointSpec):
        return None
    problems: list[str] = []
    seen = observed.deployments if observed is not None else {}
    rules, wrong = rules_of(desired.spec.properties)
    problems += [f"{desired.endpoint}: its property {name} {message}" for name, message in wrong.items()]
    keys = (desired.keys.primary, desired.keys.secondary) if desired.keys is not None else ()
    return EndpointRoute(
        name=desired.endpoint,
        auth=desired.spec.auth_mode,
        created_at=desired.created_at,
        digests=tuple(bytes.fromhex(key.digest) for key in keys),
        traffic=dict(desired.traffic),
        mirror={name: share for name, share in desired.mirror_traffic.items() if share},
        private=desired.spec.public_network_access == "disabled",
        rules=rules,
        deployments={
            name: _deployment(f"{desired.endpoint}/{name}", deployment, spec, seen.get(name), problems)
            for name, (deployment, spec) in desired.online().items()
        },
        problems=tuple(problems),
    )


def _deployment(
    place: str,
    desired: DeploymentDesired,
    spec: OnlineDeploymentSpec,
    observed: DeploymentObserved | None,
    problems: list[str],
) -> DeploymentRoute:
    settings, autoscale = spec.request_settings, desired.autoscale
    instances = []
    for instance in observed.in_state("Ready") if observed is not None else ():
        host, _, port = instance.address.rpartition(":")
        if host and port.isascii() and port.isdigit() and 0 < int(port) < 65536:
            instances.append(InstanceRoute(instance.id, host.strip("[]"), int(port)))
        else:
            problems.append(
                f"{place}: instance {instance.id} has the address '{instance.address}', not host:port: "
                "it gets no requests"
            )
    return DeploymentRoute(
        timeout=settings.request_timeout_ms / 1000,
        concurrency=settings.max_concurrent_requests_per_instance,
        queue_wait=settings.max_queue_wait_ms / 1000,
        idempotent=spec.idempotent,
        autoscaled=autoscale is not None,
        wakes=autoscale is not None and autoscale.enabled and autoscale.profiles[0].capacity.minimum == 0,
        desired=observed.desired_instances if observed is not None else 0,
        instances=tuple(instances),
    )
