"""The routing table: which endpoint a name means now.

PURE: `now` is any monotonic clock in seconds, an argument. No clock and no I/O may enter this module.

An endpoint's entry is immutable and replaced as a whole, in one step, between two requests: no request sees the keys
of one document and the split of another. What lives on from entry to entry is the position in an unchanged split, and
each deployment's instances, queue and counters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from contracts.messages import EndpointDesired, EndpointObserved
from router.guard import Guard
from router.picking import Deployment, Instance
from router.routes import DeploymentRoute, EndpointRoute, route_of
from router.split import Split
from router.sticky import choice

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[T, C]):
    """One endpoint's entry. `deployments` is keyed as the header azureml-model-deployment names them. `mirror` gives a
    turn to the mirrored deployment, or to nobody (""); `origins` are those whose pages may ask."""

    route: EndpointRoute
    split: Split
    deployments: Mapping[bytes, Deployment[T, C]]
    mirror: Split | None = None
    guard: Guard | None = None
    origins: frozenset[bytes] = frozenset()

    def turn(self) -> Deployment[T, C] | None:
        """The deployment that the split sends the next request to; None when none has a positive weight."""
        name = self.split.next()
        deployment = self.deployments.get(name.encode()) if name is not None else None
        if deployment is not None:
            deployment.tally.turns += 1
        return deployment

    def sticky(self, value: bytes) -> Deployment[T, C] | None:
        """The deployment that requests with this value keep; None when none has a positive weight."""
        name = choice(value, self.route.traffic)
        return self.deployments.get(name.encode()) if name is not None else None

    def mirrored(self) -> Deployment[T, C] | None:
        """The deployment that gets a copy of the next request, if one does."""
        return self.deployments.get((self.mirror.next() or "").encode()) if self.mirror is not None else None


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
        self.find: Callable[[bytes], Endpoint[T, C] | None] = self.entries.get
        """A name's entry. Another one stands here while endpoints wait to be read, see `following`."""
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
            same = before if before is not None and before.route.name == route.name else None
            self.entries[key] = Endpoint(
                route,
                _split(route, same),
                {each[1].encode(): self.deployments.setdefault(each, Deployment(*each)) for each in present},
                same.mirror if same is not None and same.route.mirror == route.mirror else _mirror(route.mirror),
                _guard(route, same.guard if same is not None else None),
                frozenset(origin.encode() for origin in route.rules.cors_origins),
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


def _split(route: EndpointRoute, before: Endpoint[T, C] | None) -> Split:
    """The place in an unchanged split is kept."""
    return before.split if before is not None and before.route.traffic == route.traffic else Split(route.traffic)


def _mirror(mirrored: Mapping[str, int]) -> Split | None:
    share = sum(mirrored.values())
    return Split({**mirrored, "": 100 - share}) if share else None


def _guard(route: EndpointRoute, before: Guard | None) -> Guard | None:
    """None for an endpoint that anybody may ask from anywhere, as often as they like. With the same rules as before the
    counts go on."""
    rules = route.rules
    if not (route.private or rules.allowed_networks or rules.requests_per_second or rules.connections):
        return None
    made = Guard(
        private=route.private,
        networks=rules.allowed_networks,
        rate=rules.requests_per_second,
        room=rules.connections,
    )
    return before if before is not None and before.rules == made.rules else made
