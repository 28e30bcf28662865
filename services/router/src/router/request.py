"""What a request holds on its way, and how it ends.

Every way out goes through `_end`, which gives back what the request holds, counts it and tells the client's connection.
What is called by the loop (timers, other connections) goes through `guarded`: an error of the router's own ends the
request that it happened to, and no other.
"""

import logging
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, cast

from router.deadlines import Deadlines
from router.gateway import Gateway, LiveDeployment, LiveInstance
from router.headers import RequestHead
from router.mirror import Nobody, Watch
from router.outcomes import CLIENT_GONE, INTERNAL, Refusal, answer
from router.retries import Phase
from router.stall import Stall
from router.tunnel import Tunnel
from router.upload import Upload

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from router.delivery import Delivery
    from router.server import ClientConnection
    from router.upstream import UpstreamConnection

log = logging.getLogger(__name__)

WAITING, CONNECTING, SENT, STREAMING, DONE = Phase  # as globals: looking up an Enum's member costs more


class Request:
    """One request and its answer. `ids` are the header lines that its answer has in any case; `sent_at` is since when
    its instance has it, by the loop's time."""

    __slots__ = (
        "_deadlines",
        "_held",
        "_stall",
        "body",
        "client",
        "close",
        "deployment",
        "gateway",
        "handed",
        "head",
        "ids",
        "instance",
        "phase",
        "refusal",
        "request_id",
        "sent_at",
        "span",
        "started",
        "tunnel",
        "upload",
        "upstream",
        "watch",
    )

    _deadlines: Deadlines[Any]
    sent_at: float
    started: float

    def __init__(self, gateway: Gateway, client: "ClientConnection | Nobody", head: RequestHead):
        self.gateway = gateway
        self.client: ClientConnection | Nobody | None = client
        self.head = head
        self.phase = WAITING
        self.request_id = gateway.ids.next()
        self.ids = b"x-request-id: %b\r\n" % self.request_id
        self.body: list[bytes] = []
        self.refusal: Refusal | None = None
        self.close = False
        self.handed = 0
        self.deployment: LiveDeployment | None = None
        self.instance: LiveInstance | None = None
        self.upstream: UpstreamConnection | None = None
        self.upload: Upload | None = None
        self.tunnel: Tunnel | None = None
        self.watch: Watch | None = None
        self.span: Span | None = None
        self._held = False
        self._stall: Stall | None = None

    @property
    def uploading(self) -> bool:
        """The client has more of the body to send."""
        return self.upload is not None and not self.upload.complete

    # The ends

    def _leave(self) -> None:
        """Give up its place in the queue, or its connection to an instance and the slot there."""
        if self.phase is WAITING and self.deployment is not None:
            self.deployment.waiting.pop(cast("Delivery", self), None)
        self._abort_upstream()
        self._release()

    def _abort_upstream(self) -> None:
        if self.upstream is not None:
            self.upstream.abort()
            self.upstream = None

    def _release(self) -> None:
        if self.deployment is not None and self.instance is not None:
            self.deployment.release(self.instance)
            self.instance = None

    def _cut_or_refuse(self, refusal: Refusal) -> None:
        """Answer with `refusal`, or, where an answer has begun, cut it off so that the client cannot think it whole."""
        if self.client is None:
            self._end(CLIENT_GONE)
        elif self.phase is STREAMING:
            self._cut(refusal.status)
        else:
            self._refuse(refusal)

    def _cut(self, status: int) -> None:
        client, self.client = self.client, None
        if client is not None:
            client.abort()
        self._end(status)

    def _about(self, refusal: Refusal) -> Refusal:
        assert self.deployment is not None
        return refusal.about(**self.deployment.details())

    def _refuse(self, refusal: Refusal) -> None:
        if self.client is not None:
            self.close |= refusal.close or self.uploading
            self.client.write(answer(refusal, self.ids, close=self.close, body=self.head.method != b"HEAD"))
        self._end(refusal.status)

    def _end(self, status: int) -> None:
        if self.phase is DONE:
            return
        self.phase = DONE
        gateway, deployment, client = self.gateway, self.deployment, self.client
        self.client = self.upstream = self.tunnel = None
        self.body = []
        try:
            if self._stall is not None:
                self._stall.end()
            if self.upload is not None:
                self.upload.drop()
            if deployment is None:
                endpoint = gateway.table.find(self.head.name)
                gateway.unrouted[endpoint.route.name if endpoint is not None else "", status] += 1
            else:
                self._deadlines.remove(self)
                deployment.tally.ended(status, monotonic() - self.started)
                if deployment.waiting:
                    gateway.pump(deployment)
            if self.watch is not None:
                self.watch.ended(answered=False)
            if self.span is not None and gateway.tracing is not None:
                name = deployment.name if deployment is not None else None
                gateway.tracing.end(self.span, status, name, self.request_id)
        finally:  # whatever fails: its client's connection goes on
            if client is not None:
                client.finished(self)

    # Errors of the router's own

    def guarded(self, step: Callable[[], None]) -> None:
        """Do a `step` of this request. An error ends it, and nobody else's."""
        try:
            step()
        except Exception as error:
            self.broke(error)

    def broke(self, error: BaseException) -> None:
        """The router itself failed on this request: its log has the cause, and the client 500."""
        log.error("the router failed on a request (x-request-id: %s)", self.request_id.decode(), exc_info=error)
        try:
            self._leave()
            self._cut_or_refuse(INTERNAL)
        except Exception:
            log.exception("and on the end of it, too: its connection is cut")
            self._cut(INTERNAL.status)
