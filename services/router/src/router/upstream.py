"""The router's side that faces the models: connections to instances, kept alive and reused.

An `UpstreamConnection` carries one exchange at a time. It translates the instance's answer into the client's as the
bytes come, and lets go of both as soon as the answer is complete. An instance runs somebody's code, so nothing that it
sends is trusted to be HTTP: whatever it says out of turn closes its connection.
"""

import asyncio
from typing import TYPE_CHECKING, cast

import httptools

from router.gateway import Gateway, LiveInstance
from router.headers import SWITCH, BadReply, client_status, read_reply, without_cors
from router.outcomes import SWITCHED, status_line
from router.retries import Phase
from router.tunnel import Tunnel

if TYPE_CHECKING:
    from router.delivery import Delivery

CONNECT_SECONDS = 2.0
IDLE_SECONDS = 4.0
"""How long an idle connection is kept: less than the servers that people put into containers keep theirs (uvicorn: 5),
so that a request is not written to a connection which its peer is just closing."""

_HEAD_BYTES = 64 << 10
_JOINED = 2  # a head and what came of a body in one read: cheaper to join than to write apart
_NO_CONTENT, _NOT_MODIFIED = 204, 304
SENT = Phase.SENT


class UpstreamConnection(asyncio.Protocol):
    """One connection to one instance."""

    __slots__ = (
        "_broken",
        "_chunked",
        "_complete",
        "_fed",
        "_gateway",
        "_headers",
        "_instance",
        "_out",
        "_parser",
        "_reason",
        "_replied",
        "_status",
        "_to_the_end",
        "_transport",
        "exchange",
        "idle_since",
        "tunnel",
    )

    _transport: asyncio.Transport

    def __init__(self, gateway: Gateway, instance: LiveInstance):
        self._gateway, self._instance = gateway, instance
        self._parser = httptools.HttpResponseParser(self)
        self.exchange: Delivery | None = None
        self.tunnel: Tunnel | None = None
        self.idle_since = 0.0
        self._broken = False  # not to be used for another request
        self._begin()

    def _begin(self) -> None:
        self._headers: list[tuple[bytes, bytes]] = []
        self._out: list[bytes] = []  # for the client, not yet written
        self._reason = b""
        self._status = 0
        self._fed = 0  # bytes since the last that was content of a body
        self._replied = self._complete = self._chunked = self._to_the_end = False

    # For the exchange

    def usable(self) -> bool:
        """Whether a request may be written to it."""
        return not self._transport.is_closing()

    def send(self, exchange: "Delivery", *pieces: bytes) -> None:
        """Hand a request to the model."""
        self.exchange = exchange
        if len(pieces) <= _JOINED:
            self._transport.write(b"".join(pieces))
        else:
            self._transport.writelines(pieces)

    def write(self, data: bytes) -> None:
        """A part of the request's body."""
        self._transport.write(data)

    def park(self) -> None:
        """Keep the connection for the next request to its instance."""
        self.idle_since = self._gateway.loop.time()
        self._instance.connections.append(self)

    def pause(self) -> None:
        """Read no more for now."""
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        self._transport.resume_reading()

    def close(self) -> None:
        """Close an idle connection."""
        self._transport.close()

    def abort(self) -> None:
        """Give up the connection, and the exchange on it; the instance sees it break."""
        self.exchange = None
        self._transport.abort()

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.idle_since = self._gateway.loop.time()
        self._gateway.upstreams.add(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            if self.tunnel is not None:
                return self.tunnel.from_model(data)
            return self._transport.abort()  # nothing was asked
        self._fed += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, BadReply):
                return self._bad(str(error.__context__))
            return self._failed(exchange, error.__context__ or error)
        except httptools.HttpParserUpgrade as upgrade:
            if self._status == SWITCHED:
                return self._switch(exchange, data[upgrade.args[0] :])
            self._broken = True
        except httptools.HttpParserError as error:
            if not self._complete:
                return self._bad(str(error))
            self._broken = True
        if self._fed > _HEAD_BYTES and not self._complete:
            return self._bad(f"more than {_HEAD_BYTES} bytes of headers, chunk extensions or trailers")
        if self._replied:
            try:
                self._pass_on(exchange)
            except Exception as error:
                self._failed(exchange, error)
        return None

    def eof_received(self) -> None:
        """The instance sends no more, so it cannot answer any more either: its connection is closed. What is complete
        by then, or ends with the connection, is an answer; anything else is a broken one."""

    def pause_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.model_chokes(True)
        elif self.exchange is not None and self.exchange.upload is not None:
            self.exchange.upload.hold()

    def resume_writing(self) -> None:
        if self.tunnel is not None:
            self.tunnel.model_chokes(False)
        elif self.exchange is not None and self.exchange.upload is not None:
            self.exchange.upload.release()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gateway.upstreams.discard(self)
        del self._parser  # it refers back to this object
        exchange, self.exchange = self.exchange, None
        if self.tunnel is not None:
            self.tunnel.model_closed()
        elif exchange is None:
            if self in self._instance.connections:
                self._instance.connections.remove(self)
        elif self._replied and self._to_the_end and exc is None:
            self._broken = True
            self.exchange = exchange
            self.on_message_complete()
            exchange.guarded(lambda: self._pass_on(exchange))
        else:
            exchange.guarded(exchange.upstream_lost)

    # From the parser

    def on_status(self, status: bytes) -> None:
        self._reason += status

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._replied:  # a trailer is not passed on
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._complete:  # an answer that nobody asked for
            self._broken = True
            return
        status = self._parser.get_status_code()
        exchange = self.exchange
        assert exchange is not None
        if status < 200:
            if status == SWITCHED and exchange.head.upgrade and self._parser.should_upgrade():
                head = read_reply(self._headers, with_length=False)
                self._out += (status_line(status), exchange.ids, *head.lines, *SWITCH, b"\r\n")
                self._status = status
                return
            if status == SWITCHED or status < 100:
                raise BadReply(f"the status {status}")
            self._headers.clear()
            self._reason = b""
            return
        self._broken = not self._parser.should_keep_alive()
        if exchange.uploading:  # an answer before its request is complete: what is left of that is nobody's
            self._broken = exchange.close = True
        self._status = 424 if status >= 300 else status
        if exchange.watch is not None:
            exchange.watch.status = status
        bodiless = status in (_NO_CONTENT, _NOT_MODIFIED)
        head = read_reply(self._headers, with_length=not bodiless)
        if exchange.head.cors:
            head.lines = without_cors(head.lines)
        out = self._out
        out += (client_status(status, self._reason), exchange.ids)
        out += head.lines
        if bodiless:
            if status == _NOT_MODIFIED:
                out.append(b"content-length: 0\r\n")
        elif not head.has_length:
            self._to_the_end = not head.chunked
            if exchange.head.version != "1.0":
                self._chunked = exchange.head.method != b"HEAD"
                out.append(b"transfer-encoding: chunked\r\n")
        out.append(b"connection: close\r\n\r\n" if exchange.close else b"\r\n")
        self._replied = True
        self._fed = 0
        if exchange.head.method == b"HEAD":  # its parser waits for a body that does not come
            self._broken = self._complete = True

    def on_body(self, data: bytes) -> None:
        self._fed = 0
        exchange = self.exchange
        if exchange is not None and exchange.watch is not None:
            exchange.watch.add(data)
        if self._complete:
            self._broken = True
        elif self._chunked:
            self._out += (b"%x\r\n" % len(data), data, b"\r\n")
        else:
            self._out.append(data)

    def on_message_complete(self) -> None:
        if self._replied and not self._complete:
            self._complete = True
            if self._chunked:
                self._out.append(b"0\r\n\r\n")

    # To the client

    def _pass_on(self, exchange: "Delivery") -> None:
        """Write what there is for the client; let go of an answer that is complete."""
        if exchange.phase is SENT and not exchange.answering():
            return self.abort()
        client = exchange.client
        assert client is not None
        out = self._out
        if not self._complete:
            self._out = []
            if out:
                client.write(b"".join(out))
            return exchange.flowing() if self.exchange is exchange else None
        status = self._status
        exchange.let_go()
        self.exchange = None
        self._begin()
        if self._broken or self._transport.get_write_buffer_size():
            self._transport.close()
        else:
            self.park()
        client.write(b"".join(out))
        return exchange.answered(status)

    def _switch(self, exchange: "Delivery", rest: bytes) -> None:
        """`rest` is what the instance has said in the new protocol already."""
        try:
            self.tunnel = exchange.switched(b"".join(self._out))
        except Exception as error:
            return self._failed(exchange, error)
        self.exchange = None
        if self.tunnel is None:
            self._transport.abort()
        elif rest:
            self.tunnel.from_model(rest)
        return None

    def _failed(self, exchange: "Delivery", error: BaseException) -> None:
        """An error of ours, not the instance's."""
        self.abort()
        exchange.broke(error)

    def _bad(self, reason: str) -> None:
        exchange = self.exchange
        assert exchange is not None
        self._gateway.complain(exchange.deployment, self._instance, reason)
        self.abort()
        exchange.bad_reply()


def connect(gateway: Gateway, exchange: "Delivery", instance: LiveInstance) -> None:
    """Open a connection to `instance` and give it to `exchange`, or tell it that there is none."""
    task = gateway.loop.create_task(_connect(gateway, exchange, instance))
    gateway.connecting.add(task)
    task.add_done_callback(gateway.connecting.discard)


async def _connect(gateway: Gateway, exchange: "Delivery", instance: LiveInstance) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            _, connection = await gateway.loop.create_connection(
                lambda: UpstreamConnection(gateway, instance), instance.host, instance.port
            )
    except (OSError, UnicodeError):  # TimeoutError is the first; a host name that is none the second
        exchange.guarded(lambda: exchange.connect_failed(instance))
    except Exception as error:
        exchange.broke(error)
    else:
        exchange.guarded(lambda: exchange.connected(instance, connection))
