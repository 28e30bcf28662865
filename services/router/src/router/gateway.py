"""What all connections of one router process share."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from router.admission import Limits
from router.deadlines import Deadlines
from router.picking import Deployment, Instance
from router.request_ids import RequestIds
from router.table import Change, Endpoint, RoutingTable
from router.tokens import Tokens

if TYPE_CHECKING:
    from router.delivery import Delivery
    from router.server import ClientConnection
    from router.tracing import Tracing
    from router.upstream import UpstreamConnection

log = logging.getLogger(__name__)

_TICK = 0.001  # the loop counts in whole milliseconds, and a timer may be a fraction of one early
_COMPLAIN_SECONDS = 10.0

LiveInstance = Instance["UpstreamConnection"]
LiveDeployment = Deployment["Delivery", "UpstreamConnection"]
LiveEndpoint = Endpoint["Delivery", "UpstreamConnection"]


@dataclass(slots=True)
class Gateway:
    """The routing table, the limits and the counters of one event loop. `suffix` is what follows an endpoint's name in
    a host name, such as `.local.inference.localhost`. `ask_issuers` has the issuers of tokens asked for new keys, and
    calls when that is done."""

    loop: asyncio.AbstractEventLoop
    suffix: bytes
    limits: Limits = field(default_factory=Limits)
    tracing: "Tracing | None" = None
    tokens: Tokens = field(default_factory=Tokens)
    ask_issuers: Callable[[Callable[[], None]], None] = lambda asker: asker()
    table: RoutingTable["Delivery", "UpstreamConnection"] = field(default_factory=RoutingTable)
    ids: RequestIds = field(default_factory=RequestIds)
    clients: "set[ClientConnection]" = field(default_factory=set)
    upstreams: "set[UpstreamConnection]" = field(default_factory=set)
    connecting: set[asyncio.Task[None]] = field(default_factory=set)
    unrouted: Counter[tuple[str, int]] = field(default_factory=Counter)
    draining: bool = False
    drained: asyncio.Event = field(default_factory=asyncio.Event)
    complained_at: float = float("-inf")
    request_deadlines: "DeadlinesBySeconds" = field(init=False)
    queue_deadlines: "DeadlinesBySeconds" = field(init=False)

    def __post_init__(self) -> None:
        self.request_deadlines = DeadlinesBySeconds(self.loop, lambda each: each.guarded(each.deadline_passed))
        self.queue_deadlines = DeadlinesBySeconds(self.loop, lambda each: each.guarded(each.queue_wait_passed))

    def changed(self, change: Change["Delivery", "UpstreamConnection"]) -> None:
        """Follow an update of the table: move its queues, close what leads to instances that are gone."""
        for problem in change.problems:
            log.warning("%s", problem)
        for instance in change.gone:
            close_idle(instance)
        for deployment in change.deployments:
            self.pump(deployment)

    def pump(self, deployment: LiveDeployment) -> None:
        """Give waiting requests the instances that have room; refuse them when there is nothing to wait for."""
        now = self.loop.time()
        while (served := deployment.serve(now)) is not None:
            each, instance = served
            try:  # as `guarded` does
                each.served(instance, now)
            except Exception as error:
                each.broke(error)
        if deployment.waiting and not deployment.usable(now) and not deployment.recovering(now):
            abandoned = list(deployment.waiting)
            deployment.waiting.clear()
            for each in abandoned:
                each.guarded(each.not_ready)

    def eject(self, deployment: LiveDeployment, instance: LiveInstance) -> None:
        """Stop sending to an instance that refused or broke a connection, until its back-off has passed."""
        until = deployment.eject(instance, self.loop.time())
        self._ejected(deployment, instance, until, "refused or broke a connection")

    def misbehaved(self, deployment: LiveDeployment, instance: LiveInstance) -> None:
        """Stop sending to an instance whose answer is not HTTP, where there is another."""
        until = deployment.misbehaved(instance, self.loop.time())
        self._ejected(deployment, instance, until, "answered with something that is not HTTP/1.1")

    def timed_out(self, deployment: LiveDeployment, instance: LiveInstance, sent_at: float) -> None:
        """Stop sending to an instance that answers nothing any more, where there is another."""
        until = deployment.timed_out(instance, sent_at, self.loop.time())
        self._ejected(deployment, instance, until, "did not answer in time, several times in a row")

    def _ejected(self, deployment: LiveDeployment, instance: LiveInstance, until: float | None, reason: str) -> None:
        if until is not None:
            log.info(
                "%s/%s: instance %s at %s:%d %s; it gets no requests for a moment",
                *(deployment.endpoint, deployment.name, instance.id, instance.host, instance.port, reason),
            )
            close_idle(instance)
            self.loop.call_at(until + _TICK, self.pump, deployment)

    def complain(self, deployment: LiveDeployment | None, instance: LiveInstance, reason: str) -> None:
        """Log what is wrong with an instance's answer; now and then, since somebody's code could do it all the time."""
        now = self.loop.time()
        if deployment is not None and now - self.complained_at > _COMPLAIN_SECONDS:
            self.complained_at = now
            log.warning(
                "%s/%s: instance %s answered with something that is not HTTP/1.1: %s (more of this kind is counted, "
                "as status 502, but not logged for %g s)",
                *(deployment.endpoint, deployment.name, instance.id, reason, _COMPLAIN_SECONDS),
            )


class DeadlinesBySeconds(dict[float, "Deadlines[Delivery]"]):
    """A queue of deadlines for each duration that somebody asks for."""

    def __init__(self, loop: asyncio.AbstractEventLoop, expired: "Callable[[Delivery], None]"):
        super().__init__()
        self._loop, self._expired = loop, expired

    def __missing__(self, seconds: float) -> "Deadlines[Delivery]":
        made = self[seconds] = Deadlines(self._loop, seconds, self._expired)
        return made

    def longest(self) -> float:
        """The longest duration that somebody waits for now; 0 when nobody does."""
        return max((seconds for seconds, deadlines in self.items() if len(deadlines)), default=0.0)


def close_idle(instance: LiveInstance) -> None:
    """Close an instance's idle connections."""
    idle, instance.connections[:] = instance.connections[:], []
    for connection in idle:
        connection.close()
