"""A router's connections without sockets: bytes go in at chosen cuts, in a chosen order, and what comes out is read.

The loop is a queue of calls, and its time goes on when it is told to, so a run is the same each time. A test file that
uses it puts `connect` in the place of `router.delivery.connect`.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import httptools

from router.admission import Limits
from router.gateway import Gateway, LiveDeployment
from router.server import ClientConnection
from router.upstream import UpstreamConnection

from .conftest import OK, SUFFIX, Documents

_SWEEP_SECONDS = 2.0

Whole = tuple[str, bytes, bytes]
"""A message: the first line, the other lines of its head, the body."""


class Timer:
    """A call that is due later."""

    def __init__(self, due: float, callback: Callable[[], object]):
        self.due, self.callback = due, callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """Calls what is due when it is told to."""

    def __init__(self, wire: "Wire") -> None:
        self.wire = wire
        self._now = 1000.0
        self._due: deque[Callable[[], object]] = deque()
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self._now

    def call_soon(self, callback: Callable[..., object], *args: object) -> None:
        self._due.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Timer:
        return self.call_at(self._now + delay, callback, *args)

    def call_at(self, due: float, callback: Callable[..., object], *args: object) -> Timer:
        self._timers.append(Timer(due, lambda: callback(*args)))
        return self._timers[-1]

    def advance(self, seconds: float) -> None:
        """Let time pass, and do what is due in it."""
        end = self._now + seconds
        self.run()
        while (timer := min(self._timers, key=lambda each: each.due, default=None)) and timer.due <= end:
            self._timers.remove(timer)
            if not timer.cancelled:
                self._now = max(self._now, timer.due)
                timer.callback()
                self.run()
        self._now = end

    def run(self, calls: int | None = None) -> None:
        """Until nothing is due, or for a number of calls."""
        while self._due and calls != 0:
            self._due.popleft()()
            calls = None if calls is None else calls - 1


class Transport:
    """One side's end of a connection."""

    def __init__(self, loop: Loop, protocol: Any):
        self._loop, self._protocol = loop, protocol
        self.sent = bytearray()
        self.paused = self.closed = self.aborted = False
        protocol.connection_made(self)

    def deliver(self, data: bytes) -> bool:
        """Whether it was read."""
        if self.paused or self.closed:
            return False
        if data:
            self._protocol.data_received(data)
        return True

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.sent += data

    def writelines(self, pieces: Iterable[bytes]) -> None:
        self.write(b"".join(pieces))

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.aborted = not self.closed
        self.close()

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        """There is no buffer."""

    def get_extra_info(self, _: str) -> None:
        return None


class ModelTransport(Transport):
    """The router's end of a connection to a model, which answers each whole request with the wire's reply."""

    def __init__(self, wire: "Wire", protocol: Any, instance: str):
        super().__init__(wire.loop, protocol)
        self._wire, self._instance = wire, instance
        self._read = 0

    def write(self, data: bytes) -> None:
        super().write(data)
        for message, end in messages(bytes(self.sent[self._read :]), httptools.HttpRequestParser):
            self._read += end
            self._wire.requests.append(message)
            self._wire.asked.append(self._instance)
            if self._instance not in self._wire.silent:
                self._loop.call_soon(self._say, deque(self._wire.reply))

    def _say(self, pieces: "deque[bytes]") -> None:
        while pieces and self.deliver(pieces[0]):
            pieces.popleft()
            if pieces and self._wire.breathes:
                return self._loop.call_soon(self._say, pieces)
        if not pieces and self._wire.dies:
            self.close()
        return None


@dataclass
class Outcome:
    """What both sides have seen at the end; of an answer that was cut off the client has only a part."""

    answers: list[Whole]
    rest: bytes
    aborted: bool
    requests: list[Whole]

    @property
    def statuses(self) -> list[int]:
        return [int(line.split(" ")[1]) for line, _, _ in self.answers]


class Wire:
    """Clients and a model, and the router between them. `silent` are the instances that never answer, `asked` those
    that got the requests; `reply` are the pieces in which the model's answer comes,
    `dies` whether it closes the connection after them, `breathes` whether the loop goes on between two of them."""

    def __init__(self, limits: Limits, *, idempotent: bool = False, instances: int = 1):
        self.loop = Loop(self)
        self.gateway = Gateway(cast(Any, self.loop), SUFFIX, limits)
        self.requests: list[Whole] = []
        self.asked: list[str] = []
        self.silent: set[str] = set()
        self.reply: list[bytes] = [OK]
        self.dies = self.breathes = False
        deployment = Documents.deployment(idempotent=idempotent, max_concurrent_requests_per_instance=100)
        self.gateway.changed(
            self.gateway.table.apply(
                "diabetes",
                Documents.desired({"blue": deployment}, {"blue": 100}),
                {
                    "diabetes": Documents.observed(
                        {"blue": {f"i{at}": f"127.0.0.1:{at}" for at in range(1, instances + 1)}}
                    )
                },
                self.loop.time(),
            )
        )

    @property
    def blue(self) -> LiveDeployment:
        return self.gateway.table.deployments["diabetes", "blue"]

    def client(self) -> Transport:
        """A new client's connection."""
        return Transport(self.loop, ClientConnection(self.gateway))

    def advance(self, seconds: float) -> None:
        """Let time pass, and clients be looked after as the listener does."""
        while seconds > 0:
            self.loop.advance(min(seconds, _SWEEP_SECONDS))
            for client in tuple(self.gateway.clients):
                client.sweep(self.loop.time())
            self.loop.run()
            seconds -= _SWEEP_SECONDS

    def run(self, pieces: Iterable[bytes], *, breath: Iterator[int | None] | None = None) -> Outcome:
        """Send a client's bytes; `breath` says how much the loop does after each piece (None: all that is due)."""
        client = self.client()
        for piece in pieces:
            while not client.deliver(piece) and not client.closed:
                self.loop.run()
            self.loop.run(next(breath, None) if breath is not None else None)
        self.loop.run()
        return self.outcome(client)

    def outcome(self, client: Transport) -> Outcome:
        sent = bytes(client.sent)
        answers, end = [], 0
        for answer, size in messages(sent, httptools.HttpResponseParser):
            answers.append(answer)
            end += size
        return Outcome(answers, sent[end:], client.aborted, self.requests)


def connect(gateway: Gateway, exchange: Any, instance: Any) -> None:
    """In the place of `router.upstream.connect`."""
    loop = cast(Loop, gateway.loop)
    connection = UpstreamConnection(gateway, instance)
    ModelTransport(loop.wire, connection, instance.id)
    loop.call_soon(exchange.connected, instance, connection)


def messages(data: bytes, kind: type) -> Iterator[tuple[Whole, int]]:
    """The whole messages that `data` begins with, each with its length. Ids, which are different each time, are left
    out, and chunks are put together."""
    while data:
        message = _Message()
        parser = kind(message)
        for at in range(len(data)):
            parser.feed_data(data[at : at + 1])
            if message.complete:
                break
        if not message.complete:
            return
        head = data[: data.index(b"\r\n\r\n")].partition(b"\r\n")
        lines = re.sub(rb"(?m)^(x-request-id|transfer-encoding): [^\r]*\r?\n?", b"", head[2])
        yield (head[0].decode(), lines, bytes(message.body)), at + 1
        data = data[at + 1 :]


class _Message:
    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """`data` in pieces that end at these places."""
    places = [0, *sorted(place % (len(data) + 1) for place in at), len(data)]
    return [data[low:high] for low, high in pairwise(places)]
