"""A request on its way to an instance of its deployment, perhaps to another, and its answer's way back.

The decisions are made in `picking` and `retries`; this module carries them out.
"""

from time import monotonic

from router.gateway import LiveDeployment, LiveInstance
from router.headers import request_head
from router.mirror import Nobody
from router.outcomes import (
    BAD_REPLY,
    CLIENT_GONE,
    INSTANCE_DIED,
    NOT_READY,
    QUEUED_TOO_LONG,
    SWITCHED,
    TOO_MANY,
    Refusal,
)
from router.picking import Instance, Verdict
from router.request import CONNECTING, SENT, STREAMING, WAITING, Request
from router.retries import at_deadline, may_be_sent
from router.stall import Stall
from router.tunnel import Tunnel
from router.upstream import UpstreamConnection, connect


class Delivery(Request):
    """One request that has its deployment."""

    __slots__ = ()

    # The way to an instance

    def enter(self, deployment: LiveDeployment) -> None:
        """Look for an instance of `deployment`, or wait for one."""
        gateway, route = self.gateway, deployment.route
        self._deadlines = gateway.request_deadlines[route.timeout]
        now = gateway.loop.time()
        self.sent_at = now
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

    def served(self, instance: LiveInstance, now: float) -> None:
        """It waited, and its turn has come: `instance` has room."""
        self.sent_at = now
        self.send(instance)

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
        self._leave()
        self._cut_or_refuse(refusal)

    def _again(self) -> None:
        """Look for an instance once more, before those that wait."""
        assert self.deployment is not None
        deployment = self.deployment
        self.phase = WAITING
        self.upstream = None
        if self.client is None:
            return self._end(CLIENT_GONE)
        now = self.gateway.loop.time()
        room = deployment.readmit(now)
        if isinstance(room, Instance):
            return self.served(room, now)
        if room is Verdict.NOT_READY:
            return self.not_ready()
        self._held = True
        deployment.waiting[self] = None
        deployment.waiting.move_to_end(self, last=False)
        return None

    # The answer

    def answering(self) -> bool:
        """The answer's head is complete. False when nobody waits for it any more, and the exchange has ended."""
        assert self.instance is not None
        if self.instance.doubtful:
            self.instance.answered(self.deployment.route.concurrency if self.deployment is not None else 0)
        if self.client is None:
            self._release()
            self._end(CLIENT_GONE)
            return False
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
        """The instance answered with something that is not HTTP; it is not asked this again."""
        assert self.deployment is not None
        assert self.instance is not None
        self.gateway.misbehaved(self.deployment, self.instance)
        self._release()
        self._cut_or_refuse(self._about(BAD_REPLY))

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
        self._leave()
        return self._end(CLIENT_GONE)

    def client_is_slow(self) -> None:
        """Too much waits to be read by the client: the model's answer must wait too. All such waits together may take
        as long as a request may."""
        upstream, deployment = self.upstream, self.deployment
        if self.tunnel is not None:
            self.tunnel.client_chokes(True)
        elif upstream is not None and deployment is not None:
            if self._stall is None:
                self._stall = Stall(
                    self.gateway.loop, deployment.route.timeout, lambda: self.guarded(self._client_too_slow)
                )
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
        if phase is SENT and self.instance is not None and not self.uploading:
            self.gateway.timed_out(deployment, self.instance, self.sent_at)
        self._leave()
        return self._cut_or_refuse(self._about(refusal))

    def not_ready(self) -> None:
        """It was taken out of the queue: there is nothing to wait for."""
        self._refuse(self._about(INSTANCE_DIED if self.handed else NOT_READY))

    def _client_too_slow(self) -> None:
        self._leave()
        self._cut(CLIENT_GONE)
