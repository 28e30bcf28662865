"""The routing table: which endpoint a name means now.

PURE: `now` is any monotonic clock in seconds, an argument. No clock and no I/O may enter this module.

An endpoint's entry is immutable and replaced as a whole, in one step, between two requests: no request sees the keys
of one document and the split of another. What lives on from entry to entry is the position in an unchanged split, and
each deployment's instances, queue and counters.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from contracts.messages import EndpointDesired, EndpointObserved
from router.picking import Deployment, Instance
from router.routes import DeploymentRoute, EndpointRoute, route_of
from router.split import Split

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[T, C]):
    """One endpoint's entry. `deployments` is keyed as the header azureml-model-deployment names them."""

    route: EndpointRoute
    split: Split
    deployments: Mapping[bytes, Deployment[T, C]]

    def turn(self) -> Deployment[T, C] | None:
        """The deployment that the split sends the next request to; None when none has a positive weight."""
        name = self.split.next()
        deployment = self.deployments.get(name.encode()) if name is not None else None
        if deployment is not None:
            deployment.tally.turns += 1
        return deployment


@dataclass(frozen=True, slots=True)
class Change(Generic[T, C]):
    """What the shell must see to after an update: queues that may move, and instances that are not to be used again."""

    deployments: tuple[Deployment[T, C], ...]
    gone: tuple[Instance[C], ...]
    problems: tuple[str, ...]


class RoutingTable(Generic[T, C]):
    """Entries by the endpoint's name in lower case: a host name has no case. Of names that differ by case only, the
    endpoint that was created first is routed. `deployments` are all that live: those in an entry, and those that were
    removed and still have requests or counts."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Endpoint[T, C]] = {}
        self.deployments: dict[tuple[str, str], Deployment[T, C]] = {}
        self._claims: dict[bytes, dict[str, EndpointDesired]] = {}
        self._removed: set[tuple[str, str]] = set()

    def apply(
        self, name: str, desired: EndpointDesired | None, observed: Mapping[str, EndpointObserved], now: float
    ) -> Change[T, C]:
        """Replace the entry of endpoint `name`, given its desired document (None: deleted) and all observed ones."""
        key, holder = self._claim(name, desired)
        route = route_of(holder, observed.get(holder.endpoint)) if holder is not None else None
        before = self.entries.pop(key, None)
        changed: dict[tuple[str, str], DeploymentRoute] = {}
        if before is not None:
            changed |= {(before.route.name, each): DeploymentRoute() for each in before.route.deployments}
            self._removed |= changed.keys()
        if route is not None:
            present = {(route.name, each): setting for each, setting in route.deployments.items()}
            changed |= present
            self._removed -= present.keys()
            self.entries[key] = Endpoint(
                route,
                before.split if before is not None and _same_split(before.route, route) else Split(route.traffic),
                {each[1].encode(): self.deployments.setdefault(each, Deployment(*each)) for each in present},
            )
        gone = [
            instance for each, setting in changed.items() for instance in self.deployments[each].apply(setting, now)
        ]
        return Change(
            tuple(self.deployments[each] for each in changed), tuple(gone), route.problems if route is not None else ()
        )

    def forget_removed(self) -> list[tuple[str, str]]:
        """Drop the removed deployments that have no request left; returns which."""
        forgotten = [each for each in self._removed if self.deployments[each].in_flight == 0]
        for each in forgotten:
            self._removed.discard(each)
            del self.deployments[each]
        return forgotten

    def _claim(self, name: str, desired: EndpointDesired | None) -> tuple[bytes, EndpointDesired | None]:
        key = name.lower().encode()
        claims = self._claims.setdefault(key, {})
        claims.pop(name, None)
        if desired is not None:
            claims[name] = desired
        if not claims:
            del self._claims[key]
        return key, min(claims.values(), key=lambda document: (document.created_at, document.endpoint), default=None)


def _same_split(before: EndpointRoute, after: EndpointRoute) -> bool:
    return before.name == after.name and before.traffic == after.traffic
