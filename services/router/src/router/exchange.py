"""One request on its way: to a deployment, to an instance, perhaps to another, and back.

An exchange is made when a request's head is read. It begins when its turn on the connection has come and its body is
complete, or is too long to wait for (then it has an `upload`). Every way out goes through `_end`, which gives back what
it holds and tells the client's connection. The decisions are made in `picking` and `retries`; this module carries them
out.
"""

from time import monotonic, time
from typing import TYPE_CHECKING

from router.admission import choose
from router.deadlines import Deadlines
from router.gateway import Gateway, LiveDeployment, LiveInstance
from router.headers import RequestHead, request_head
from router.mirror import Comparison, Nobody, Watch
from router.outcomes import (
    BAD_REPLY,
    CLIENT_GONE,
    INSTANCE_DIED,
    INTERNAL,
    NOT_READY,
    QUEUED_TOO_LONG,
    SWITCHED,
    TOO_MANY,
    Refusal,
    answer,
)
from router.picking import Instance, Verdict
from router.retries import Phase, at_deadline, may_be_sent
from router.stall import Stall
from router.tokens import UnknownKey
from router.tunnel import Tunnel
from router.upload import Upload
from router.upstream import UpstreamConnection, connect

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from router.server import ClientConnection

WAITING, CONNECTING, SENT, STREAMING, DONE = Phase  # as globals: looking up an Enum's member costs more


class Exchange:
    """One request and its answer. `ids` are the header lines that its answer has in any case."""

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
        "span",
        "started",
        "tunnel",
        "upload",
        "upstream",
        "watch",
    )

    _deadlines: "Deadlines[Exchange]"
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

    # The way to an instance

    def begin(self) -> None:
        """Take a turn of the split, or the named deployment, and look for an instance."""
        head, gateway = self.head, self.gateway
        if head.unsure and self.refusal is None:
            head.unsure = False
            return self._verify()
        if gateway.tracing is not None:
            self.span = gateway.tracing.begin(head)
        self.ids += head.client_id
        if self.refusal is not None:
            self.ids += head.told
            return self._refuse(self.refusal)
        endpoint = gateway.table.find(head.name)
        deployment = choose(head, endpoint, gateway.suffix, self.request_id)
        self.ids += head.told
        if isinstance(deployment, Refusal):
            return self._refuse(deployment)
        self.enter(deployment)
        if endpoint is not None and endpoint.mirror is not None and head.pin is None and self.phase is not DONE:
            copied = endpoint.mirrored()
            if copied is not None:
                self._mirror(copied)
        return None

    def _verify(self, *, asked: bool = False) -> None:
        """Look at its token again, whose key was not known; `asked`: its issuer has been asked meanwhile."""
        if self.phase is DONE:
            return None
        gateway = self.gateway
        endpoint = gateway.table.find(self.head.name)
        if endpoint is not None:
            try:
                self.refusal = gateway.tokens.check(self.head.authorization, endpoint.route, time())
            except UnknownKey:
                if not asked:
                    return gateway.ask_issuers(lambda: self._verify(asked=True))
                self.refusal = gateway.tokens.unknown_key(endpoint.route)
        return self.begin()

    def enter(self, deployment: LiveDeployment) -> None:
        """Look for an instance of `deployment`, or wait for one."""
        gateway, route = self.gateway, deployment.route
        self._deadlines = gateway.request_deadlines[route.timeout]
        now = gateway.loop.time()
        self.started = monotonic()  # finer than the loop's time, which counts milliseconds
        self.deployment = deployment
        self.ids += deployment.label
        room = deployment.admit(now)
        if isinstance(room, Instance):
            self._deadlines.add(self, now)
            return self.send(room)
        if room is Verdict.NOT_READY:
            return self._refuse(self._about(NOT_READY))
        if room is Verdict.TOO_MANY:
            return self._refuse(self._about(TOO_MANY))
        self._deadlines.add(self, now)
        self._held = room is Verdict.HOLD
        deployment.waiting[self] = None
        if not self._held:
            gateway.queue_deadlines[route.queue_wait].add(self, now)
        return None

    def _mirror(self, target: LiveDeployment) -> None:
        """Send a copy of this request to `target`, unless its body is not kept or it asks for another protocol."""
        if self.upload is None and not self.head.upgrade:
            comparison = Comparison(target.tally.mirrored)
            copy = Exchange(self.gateway, Nobody(), self.head)
            copy.request_id, copy.body = self.request_id, self.body
            self.watch, copy.watch = comparison.live, comparison.copy
            copy.enter(target)

    def send(self, instance: LiveInstance) -> None:
        """Go to `instance`, whose slot this exchange holds now."""
        self.instance = instance
        idle = instance.connections
        while idle:
            connection = idle.pop()
            if connection.usable():
                return self._hand(connection)
        self.phase = CONNECTING
        return connect(self.gateway, self, instance)

    def connected(self, instance: LiveInstance, connection: UpstreamConnection) -> None:
        """The connection that was asked for is open. It is kept for others if this exchange has ended."""
        if not connection.usable():
            self.connect_failed(instance)
        elif self.phase is CONNECTING:
            self._hand(connection)
        else:
            connection.park()

    def connect_failed(self, instance: LiveInstance) -> None:
        """Nothing was handed to a model: try another instance."""
        assert self.deployment is not None
        self.gateway.eject(self.deployment, instance)
        if self.phase is CONNECTING:
            self._release()
            self._again()

    def _hand(self, connection: UpstreamConnection) -> None:
        assert self.deployment is not None
        self.upstream = connection
        self.phase = SENT
        tally = self.deployment.tally
        if self.handed:
            tally.retries += 1
        else:
            tally.handed += 1
        self.handed += 1
        if (upload := self.upload) is not None:
            connection.send(self, request_head(self.head, self.request_id, None))
            return upload.begin(connection)
        body = self.body
        connection.send(self, request_head(self.head, self.request_id, sum(map(len, body))), *body)
        return None

    # A body that goes on as it comes

    @property
    def uploading(self) -> bool:
        """The client has more of the body to send."""
        return self.upload is not None and not self.upload.complete

    def body_part(self, data: bytes) -> None:
        """A part of the body of an `upload` has come: the client may take as long again for the next."""
        assert self.upload is not None
        if self.upload.add(data) and self.phase is SENT:
            self.flowing()

    def body_ended(self) -> None:
        """All of the body has come: the model has its whole time."""
        assert self.upload is not None
        self.upload.end()
        if self.phase is SENT:
            self.flowing()

    def body_refused(self, refusal: Refusal) -> None:
        """What follows in the body cannot be passed on."""
        if self.phase is WAITING and self.deployment is not None:
            self.deployment.waiting.pop(self, None)
        self._abort_upstream()
        self._release()
        self._cut_or_refuse(refusal)

    def _again(self) -> None:
        """Look for an instance once more, before those that wait."""
        assert self.deployment is not None
        deployment = self.deployment
        self.phase = WAITING
        self.upstream = None
        if self.client is None:
            return self._end(CLIENT_GONE)
        room = deployment.readmit(self.gateway.loop.time())
        if isinstance(room, Instance):
            return self.send(room)
        if room is Verdict.NOT_READY:
            return self.not_ready()
        self._held = True
        deployment.waiting[self] = None
        deployment.waiting.move_to_end(self, last=False)
        return None

    # The answer

    def answering(self) -> bool:
        """The answer's head is complete. False when nobody waits for it any more, and the exchange has ended."""
        if self.client is None:
            self._release()
            self._end(CLIENT_GONE)
            return False
        assert self.instance is not None
        if self.instance.failures or self.instance.room:
            self.instance.answered(self.deployment.route.concurrency if self.deployment is not None else 0)
        self.phase = STREAMING
        self.body = []  # it is not sent again
        return True

    def switched(self, head: bytes) -> Tunnel | None:
        """The instance has agreed to another protocol, with this `head`; None when nobody waits for it any more."""
        client, upstream = self.client, self.upstream
        if client is None or upstream is None or isinstance(client, Nobody):
            self._release()
            self._end(CLIENT_GONE)
            return None
        self.phase = STREAMING
        self._deadlines.remove(self)  # it may last
        client.write(head)
        self.tunnel = Tunnel(client, upstream, self._tunnel_ended)
        client.switched(self.tunnel)
        return self.tunnel

    def _tunnel_ended(self) -> None:
        self._release()
        self._end(SWITCHED)

    def flowing(self) -> None:
        """A part of the answer has passed, and more will come: it may take as long again."""
        self._deadlines.again(self, self.gateway.loop.time())

    def let_go(self) -> None:
        """The answer is complete: the connection to the instance is another's now."""
        if self._stall is not None and self._stall.lasts and self.upstream is not None:
            self._stall.end()
            self.upstream.resume()
        self.upstream = None

    def answered(self, status: int) -> None:
        """The whole answer has been written to the client."""
        self._release()
        if (watch := self.watch) is not None:
            self.watch = None
            watch.ended(answered=True)
        self._end(status)

    def bad_reply(self) -> None:
        """The instance answered with something that is not HTTP; it is not asked again."""
        self._release()
        self._cut_or_refuse(self._about(BAD_REPLY))

    def failed(self) -> None:
        """The router itself failed on this request."""
        if self.phase is WAITING and self.deployment is not None:
            self.deployment.waiting.pop(self, None)
        self._abort_upstream()
        self._release()
        self._cut_or_refuse(INTERNAL)

    def upstream_lost(self) -> None:
        """The instance's connection broke before the answer was complete."""
        assert self.deployment is not None
        assert self.instance is not None
        self.gateway.eject(self.deployment, self.instance)
        self._release()
        idempotent = self.deployment.route.idempotent and self.upload is None  # what went on is not kept
        if self.phase is SENT and may_be_sent(self.handed, idempotent=idempotent):
            self._again()
        else:
            self._cut_or_refuse(self._about(INSTANCE_DIED))

    # The client

    def client_gone(self) -> None:
        """The client hung up. A model that has the request keeps its slot until it answers or its time is over: it is
        still working on it."""
        self.client = None
        if self.tunnel is not None:
            return self.tunnel.client_closed()
        if self.phase is SENT and not self.uploading:
            if self.upload is not None:
                self.upload.drop()
            return None
        if self.phase is WAITING:
            if self.deployment is not None:
                self.deployment.waiting.pop(self, None)
        else:
            self._abort_upstream()
            self._release()
        return self._end(CLIENT_GONE)

    def client_is_slow(self) -> None:
        """Too much waits to be read by the client: the model's answer must wait too. All such waits together may take
        as long as a request may."""
        upstream, deployment = self.upstream, self.deployment
        if self.tunnel is not None:
            self.tunnel.client_chokes(True)
        elif upstream is not None and deployment is not None:
            if self._stall is None:
                self._stall = Stall(self.gateway.loop, deployment.route.timeout, self._client_too_slow)
            if not self._stall.lasts:
                self._stall.begin()
                upstream.pause()

    def client_reads(self) -> None:
        """The client has caught up."""
        if self.tunnel is not None:
            self.tunnel.client_chokes(False)
        elif self._stall is not None and self._stall.lasts and self.upstream is not None:
            self._stall.end()
            self.upstream.resume()
            self.flowing()

    # The clock

    def queue_wait_passed(self) -> None:
        """max_queue_wait_ms is over. While the deployment recovers, request_timeout_ms is the bound."""
        deployment = self.deployment
        if self.phase is WAITING and not self._held and deployment is not None:
            if deployment.recovering(self.gateway.loop.time()):
                self._held = True
                return
            del deployment.waiting[self]
            self._refuse(self._about(QUEUED_TOO_LONG))

    def deadline_passed(self) -> None:
        """request_timeout_ms is over: since the beginning, or since the last part of the answer."""
        deployment = self.deployment
        assert deployment is not None
        now = self.gateway.loop.time()
        phase = self.phase
        if self._stall is not None and self._stall.lasts:
            return self._deadlines.add(self, now)
        usable = phase is WAITING and deployment.usable(now) > 0
        refusal = at_deadline(phase, self.handed, instance_usable=usable)
        if phase is WAITING:
            del deployment.waiting[self]
        else:
            self._abort_upstream()
            self._release()
        return self._cut_or_refuse(self._about(refusal))

    def not_ready(self) -> None:
        """It was taken out of the queue: there is nothing to wait for."""
        self._refuse(self._about(INSTANCE_DIED if self.handed else NOT_READY))

    def _client_too_slow(self) -> None:
        self._abort_upstream()
        self._release()
        self._cut(CLIENT_GONE)

    # The ends

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
            self.close |= refusal.close or self.gateway.draining or self.uploading
            self.client.write(answer(refusal, self.ids, close=self.close, body=self.head.method != b"HEAD"))
        self._end(refusal.status)

    def _end(self, status: int) -> None:
        if self.phase is DONE:
            return
        self.phase = DONE
        gateway, deployment, client = self.gateway, self.deployment, self.client
        self.client = self.upstream = self.tunnel = None
        self.body = []
        if self._stall is not None:
            self._stall.end()
        if self.watch is not None:
            self.watch.ended(answered=False)
        if self.span is not None and gateway.tracing is not None:
            gateway.tracing.end(self.span, status, deployment.name if deployment is not None else None, self.request_id)
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
        if client is not None:
            client.finished(self)
