"""The router's side that faces the clients: HTTP/1.1 connections.

A request is checked as soon as its head is there and answered in its turn: requests that are pipelined wait here. Its
body is read as a whole (it is needed again where the request is retried) unless it is long: see `upload`. The parser is
llhttp in its strict mode, which refuses whatever two readers could understand differently (bare LF, folded lines, both
length headers or two of one, chunk sizes that are none); what it leaves open is refused here. After a malformed request
nothing more is read.
"""

import asyncio
import logging
from collections import deque
from time import time
from typing import cast

import httptools

from router.admission import check
from router.exchange import Exchange
from router.gateway import Gateway
from router.guard import Peer
from router.headers import RequestHead
from router.outcomes import HEAD_TOO_LARGE, INTERNAL, MALFORMED, SLOW_CLIENT, TOO_LARGE, Refusal
from router.request import Request
from router.target import origin_form
from router.tunnel import Tunnel
from router.upload import STEP_BYTES, WHOLE_BYTES, Upload

log = logging.getLogger(__name__)

LINGER_SECONDS = 1.0
"""How long what a client still sends is read and dropped after a last answer: closing at once would reset the
connection, and the client might never see the answer."""

_DRAIN_BYTES = 64 << 10
"""Up to this length the body of a refused request is read so that the connection can be kept."""

_WRITE_BUFFER_BYTES = 512 << 10
_QUEUE, _BODY = 1, 2
_SLASH = ord("/")


class ClientConnection(asyncio.Protocol):
    """One client's connection."""

    __slots__ = (
        "_active",
        "_body",
        "_body_bytes",
        "_choked",
        "_continue",
        "_deaf",
        "_early",
        "_fed",
        "_gateway",
        "_headers",
        "_held",
        "_linger",
        "_parser",
        "_peer",
        "_queue",
        "_read",
        "_receiving",
        "_silent",
        "_since",
        "_stepped",
        "_touched",
        "_transport",
        "_tunnel",
        "_url",
        "_watched",
    )

    _transport: asyncio.Transport

    def __init__(self, gateway: Gateway, *, private: bool = False):
        self._gateway = gateway
        self._peer = Peer(private=private)
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Exchange] = deque()
        self._active: Exchange | None = None  # begun and not ended
        self._receiving: Exchange | None = None  # its head is complete, its body is not
        self._headers: list[tuple[bytes, bytes]] = []
        self._url = b""
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._read = 0  # bytes of the last read
        self._fed = 0  # bytes since the last complete head or message
        self._silent = 0  # bytes since the last that was content of a body
        self._watched: Exchange | None = None  # whose body the last sweep saw coming, see `_trickles`
        self._stepped = 0  # how much of `_fed` had come at `_since`
        self._since = 0.0
        self._touched = gateway.loop.time()
        self._continue = False  # a client waits for 100 Continue, which must not go before an earlier answer
        self._choked = False  # it does not fetch its answers
        self._deaf = False  # nothing more is read from this client
        self._linger = False  # it may still be sending, though
        self._early: list[bytes] = []  # sent in another protocol, before the instance has agreed to it
        self._tunnel: Tunnel | None = None
        self._held = 0  # why it is not read for now: the sum of _QUEUE and _BODY

    @property
    def peer(self) -> Peer:
        """Where it comes from."""
        return self._peer

    # From the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        self._peer.address = (transport.get_extra_info("peername") or ("",))[0]
        self._gateway.clients.add(self)
        if self._gateway.draining:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            return self._through(data)
        if self._receiving is not None or not self._fed:
            self._touched = self._gateway.loop.time()
        self._read = size = len(data)
        self._fed += size
        self._silent += size
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:  # its request has been read, and is the last one
            self._through(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            self._failed(error)
        except httptools.HttpParserError as error:
            self._end_with(MALFORMED.about(reason=str(error) or "it cannot be parsed"))
        else:
            limits = self._gateway.limits
            if self._receiving is None:
                if self._fed > limits.head_bytes:
                    self._end_with(HEAD_TOO_LARGE.about(limit=limits.head_bytes, count=limits.headers))
            elif self._silent > 2 * limits.head_bytes:  # its head may be among them
                self._end_with(MALFORMED.about(reason="its chunk extensions or trailers are too long"))

    def _through(self, data: bytes) -> None:
        """What comes after the last request: dropped, or another protocol."""
        if self._tunnel is not None:
            self._tunnel.from_client(data)
            return
        last = self._queue[-1] if self._queue else self._active
        if last is not None and last.head.upgrade and data:
            self._early.append(data)
            self._hold(_BODY)  # at most one read of it is kept

    def eof_received(self) -> bool:
        """The client sends no more: half a request is none, and what it asked for whole it still gets. (Whether it is
        gone altogether, nobody can know before something is written to it.) So it is without TLS. With TLS it is gone:
        the loop takes its close_notify for the end of both ways, and `connection_lost` comes next."""
        if self._transport.get_extra_info("ssl_object") is not None:
            return False
        if self._deaf:
            last = self._queue[-1] if self._queue else self._active
            return last is not None and not last.head.upgrade  # another protocol ends when either side does
        if self._mid_request():
            self._end_with(MALFORMED.about(reason="it ends before it is complete"))
            return True
        return self._last()

    def connection_lost(self, exc: Exception | None) -> None:
        gateway = self._gateway
        gateway.clients.discard(self)
        if gateway.draining and not gateway.clients:
            gateway.drained.set()
        self._deaf = True
        del self._parser  # it refers back to this object
        self._peer.left()
        self._queue.clear()
        self._receiving = self._watched = None
        self._body.clear()
        active, self._active = self._active, None
        if active is not None:
            active.guarded(active.client_gone)

    def pause_writing(self) -> None:
        self._choked = True
        if self._active is not None:
            self._active.guarded(self._active.client_is_slow)

    def resume_writing(self) -> None:
        self._choked = False
        if self._active is not None:
            self._active.guarded(self._active.client_reads)
        else:
            self._next()

    # From the parser

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._receiving is None:  # a trailer is not passed on
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        headers, self._headers = self._headers, []
        url, self._url = self._url, b""
        gateway, parser = self._gateway, self._parser
        limits = gateway.limits
        head = RequestHead(parser.get_method(), parser.get_http_version())
        self._receiving = exchange = Exchange(gateway, self, head)
        upgrade = parser.should_upgrade()
        exchange.close = gateway.draining or head.version == "1.0" or upgrade or not parser.should_keep_alive()
        # A head that begins amid a read is not counted by `_fed`, and `_read` counts what follows it as well: both only
        # say that it is worth counting.
        if (self._fed > limits.head_bytes or self._read > limits.head_bytes) and (
            _size(head.method, url, headers) > limits.head_bytes
        ):
            refusal: Refusal | None = HEAD_TOO_LARGE.about(limit=limits.head_bytes, count=limits.headers)
        else:
            if url[0] != _SLASH:
                url, headers = origin_form(url, headers, head.version)
            refusal = check(
                head,
                url,
                headers,
                upgrade=upgrade,
                peer=self._peer,
                now=self._touched,
                tokens=gateway.tokens,
                clock=time,
                find=gateway.table.find,
                suffix=gateway.suffix,
                limits=limits,
            )
        self._fed = 0
        if refusal is not None:
            exchange.refusal = refusal
            if refusal.close or head.expects or head.chunked or (head.length or 0) > _DRAIN_BYTES:
                self._end_with(refusal)
        else:
            self._continue = head.expects
            if (head.length or 0) > WHOLE_BYTES:
                self._upload(exchange)
            self._say_continue()

    def on_body(self, data: bytes) -> None:
        exchange = self._receiving
        if exchange is None:
            return
        self._silent = 0
        if exchange.refusal is not None:
            return
        self._body_bytes += len(data)
        if self._body_bytes > self._gateway.limits.body_bytes:
            self._end_with(TOO_LARGE.about(limit=self._gateway.limits.body_bytes))
        elif exchange.upload is not None:
            exchange.body_part(data)
        else:
            self._body.append(data)
            if self._body_bytes > WHOLE_BYTES:
                self._upload(exchange)

    def on_message_complete(self) -> None:
        exchange, self._receiving = self._receiving, None
        if exchange is None:
            return None
        self._fed = self._silent = 0
        self._continue = False
        self._body_bytes = 0
        if exchange.close:
            self._deaf = True
        if exchange.upload is not None:
            return exchange.guarded(exchange.body_ended)
        exchange.body, self._body = self._body, []
        return self._enqueue(exchange)

    def _upload(self, exchange: Exchange) -> None:
        """Its body is too long to wait for."""
        exchange.upload = Upload(self, chunked=exchange.head.chunked)
        gathered, self._body = self._body, []
        for data in gathered:
            exchange.body_part(data)
        self._enqueue(exchange)

    # Requests in their turn

    def _enqueue(self, exchange: Exchange) -> None:
        if self._active is None and not self._queue and not self._choked:
            self._active = exchange
            try:  # as `guarded` does
                exchange.begin()
            except Exception as error:
                exchange.broke(error)
        else:
            self._queue.append(exchange)
            if len(self._queue) >= self._gateway.limits.pipelined and not self._deaf:
                self._hold(_QUEUE)

    def finished(self, exchange: Request) -> None:
        """Its answer is written: the next one's turn."""
        self._active = None
        self._touched = self._gateway.loop.time()
        if self._receiving is exchange:  # the rest of its body is not wanted
            self._receiving = None
            self._deaf = self._linger = True
        if exchange.close:
            self._close()
        elif self._queue:
            if len(self._queue) == self._gateway.limits.pipelined and not self._deaf:
                self._release(_QUEUE)
            # Not from here: a long row of refusals would nest as deep.
            self._gateway.loop.call_soon(self._next)
        else:
            self._say_continue()

    def _next(self) -> None:
        """Begin the next request, unless the client has not even fetched the answer before it."""
        if self._active is None and self._queue and not self._choked:
            self._active = exchange = self._queue.popleft()
            exchange.guarded(exchange.begin)
            self._say_continue()

    def _say_continue(self) -> None:
        """Its turn has come: nothing else is being answered, or it is itself."""
        if self._continue and not self._queue and self._active in (None, self._receiving):
            self._continue = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _end_with(self, refusal: Refusal) -> None:
        """Answer the request that is being read with `refusal`, after those before it, and read nothing more."""
        if self._deaf:
            return
        exchange = self._receiving or Exchange(self._gateway, self, RequestHead(b"", ""))
        self._receiving = None
        self._body.clear()
        self._deaf = self._linger = True
        exchange.close = True
        if exchange is self._active:
            exchange.body_refused(refusal)
        else:
            exchange.refusal = refusal
            if exchange.upload is None:  # else it is in the queue
                self._enqueue(exchange)

    def _failed(self, error: Exception) -> None:
        """An error of ours, not the client's, before its request was whole: 500, and nobody knows what follows."""
        exchange = self._receiving = self._receiving or Exchange(self._gateway, self, RequestHead(b"", ""))
        request_id = exchange.request_id.decode()
        log.error("the router failed on a request (x-request-id: %s)", request_id, exc_info=error.__context__ or error)
        if self._deaf:
            return self.abort()
        return self._end_with(INTERNAL)

    def _close(self) -> None:
        """Close after the last answer."""
        self._queue.clear()
        self._deaf = True
        if self._linger:
            self._release(_QUEUE | _BODY)  # what still comes is read and dropped
            self._gateway.loop.call_later(LINGER_SECONDS, self._transport.close)
        else:
            self._transport.close()

    def _hold(self, reason: int) -> None:
        if not self._held:
            self._transport.pause_reading()
        self._held |= reason

    def _release(self, reason: int) -> None:
        if self._held and not self._held & ~reason:
            self._transport.resume_reading()
        self._held &= ~reason

    # For the exchange, the sweep and the end

    def hold_body(self) -> None:
        """Nobody takes more of the body for now."""
        self._hold(_BODY)

    def release_body(self) -> None:
        """The body goes on."""
        self._release(_BODY)

    def write(self, data: bytes) -> None:
        """Write a part of the answer."""
        self._transport.write(data)

    def switched(self, tunnel: Tunnel) -> None:
        """What the client sends belongs to `tunnel` now."""
        self._tunnel = tunnel
        for data in self._early:
            tunnel.from_client(data)
        self._early.clear()
        self._release(_BODY)

    def abort(self) -> None:
        """Break the connection: an answer that was cut off must not look whole."""
        self._transport.abort()

    def sweep(self, now: float) -> None:
        """Look whether the client has been waited for long enough."""
        limits = self._gateway.limits
        quiet = now - self._touched
        if self._active is not None:
            return
        if not self._deaf and self._mid_request():
            if self._receiving is not None:
                if self._trickles(self._receiving, now):
                    self._end_with(self._receiving.refusal or SLOW_CLIENT.about(seconds=limits.receive_seconds))
            elif quiet > limits.receive_seconds:
                self._end_with(SLOW_CLIENT.about(seconds=limits.receive_seconds))
        elif quiet > limits.keep_alive_seconds:
            # An answer that the client has not fetched by now is lost with the connection.
            (self._transport.abort if self._transport.get_write_buffer_size() else self._transport.close)()

    def _trickles(self, exchange: Exchange, now: float) -> bool:
        """Whether too little of its body comes: less than STEP_BYTES in the time that a client has, or not all in that
        time if it is only read to be dropped. Here and not where it is read, which costs every request something."""
        if exchange is not self._watched or (exchange.refusal is None and self._fed - self._stepped >= STEP_BYTES):
            self._watched, self._stepped, self._since = exchange, self._fed, now
        return now - self._since > self._gateway.limits.receive_seconds

    def drain(self) -> None:
        """What has come whole is answered, and so is a request that is coming in; that one, or else the last of those,
        is told that the connection closes. Without any, it does so now."""
        if self._receiving is not None:
            self._receiving.close = True
        elif (self._deaf or not self._mid_request()) and not self._last():
            self._close()

    def _last(self) -> bool:
        """Read no more requests: the last one that has come closes the connection. False when there is none."""
        last = self._queue[-1] if self._queue else self._active
        if last is not None and not self._deaf:
            last.close = self._deaf = self._linger = True
        return last is not None

    def _mid_request(self) -> bool:
        # A head that began amid a read is not counted by `_fed`, but known by its target.
        return self._receiving is not None or self._fed > 0 or self._url != b""


def _size(method: bytes, url: bytes, headers: list[tuple[bytes, bytes]]) -> int:
    """The bytes of a head, where it is written as usual."""
    first_line, last_line = len(method) + len(url) + len("  HTTP/1.1\r\n"), 2
    return first_line + sum(len(name) + len(value) + 4 for name, value in headers) + last_line
