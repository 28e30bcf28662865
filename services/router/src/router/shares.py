"""What one of several router processes may do of what an endpoint allows.

PURE: documents in, documents out. No clock and no I/O may enter this module.

Each process knows its own requests only, so each has a part of a limit that is meant for all of them, and the parts add
up to the limit. No part is less than 1: a limit that is smaller than the number of processes is exceeded by those that
would have none.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from contracts.endpoint_rules import CONNECTIONS, REQUESTS_PER_SECOND
from contracts.messages import (
    DeploymentDesired,
    EndpointDesired,
    EndpointObserved,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
)
from router.table import Change, RoutingTable

T = TypeVar("T")
C = TypeVar("C")


class Share(NamedTuple):
    """The process `number` (from 1 on) of `of`."""

    number: int = 1
    of: int = 1

    def part(self, total: int) -> int:
        """This process's part of a limit."""
        return max(1, total // self.of + (self.number <= total % self.of))


class SharedTable(RoutingTable[T, C]):
    """A routing table with this process's part of every limit."""

    def __init__(self, share: Share):
        super().__init__()
        self._share = share

    def apply(
        self, name: str, desired: EndpointDesired | None, observed: Mapping[str, EndpointObserved], now: float
    ) -> Change[T, C]:
        return super().apply(name, desired and shared(desired, self._share), observed, now)


def shared(desired: EndpointDesired, share: Share) -> EndpointDesired:
    """The document with its limits cut to the share. A property that is no number stays, and is told as any."""
    if share.of == 1 or not isinstance(desired.spec, OnlineEndpointSpec):
        return desired
    properties = {
        name: str(share.part(int(text)))
        if name in (REQUESTS_PER_SECOND, CONNECTIONS) and text.isascii() and text.isdigit() and int(text)
        else text
        for name, text in desired.spec.properties.items()
    }
    return desired.model_copy(
        update={
            "spec": desired.spec.model_copy(update={"properties": properties}),
            "deployments": {
                **desired.deployments,
                **{name: _deployment(each, spec, share) for name, (each, spec) in desired.online().items()},
            },
        }
    )


def _deployment(desired: DeploymentDesired, spec: OnlineDeploymentSpec, share: Share) -> DeploymentDesired:
    settings = spec.request_settings
    most = share.part(settings.max_concurrent_requests_per_instance)
    limits = settings.model_copy(update={"max_concurrent_requests_per_instance": most})
    return desired.model_copy(update={"spec": spec.model_copy(update={"request_settings": limits})})
