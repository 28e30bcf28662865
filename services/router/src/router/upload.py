"""A request's body that goes to the model as it comes, since it is too long to be kept.

Bytes wait here until the request has an instance; then they are written on at once. What is in the way is bounded on
both sides: a client is not read while an instance is waited for, or while the instance does not read.
"""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from router.upstream import UpstreamConnection

WHOLE_BYTES = 1 << 20
"""Up to this length a body is gathered first, and can so be sent again. Of a longer one this much waits at most."""

STEP_BYTES = 16 << 10
"""A client that sends less than this within request_timeout_ms is given up: it holds an instance."""


class Sender(Protocol):
    """The client's connection, as far as an upload needs it."""

    def hold_body(self) -> None:
        """Read no more for now."""

    def release_body(self) -> None:
        """Read on."""


class Upload:
    """`chunked`: the client did not say how long the body is, so the model is not told either."""

    __slots__ = ("_client", "_pending", "_pending_bytes", "_step", "_upstream", "chunked", "complete")

    def __init__(self, client: Sender, *, chunked: bool):
        self._client: Sender | None = client
        self.chunked = chunked
        self.complete = False
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._step = 0
        self._upstream: UpstreamConnection | None = None

    def add(self, data: bytes) -> bool:
        """A part has come; whether the client has sent enough since this last was so."""
        if self._upstream is not None:
            self._upstream.write(self._framed(data))
        else:
            self._pending.append(data)
            self._pending_bytes += len(data)
            if self._pending_bytes > WHOLE_BYTES:
                self.hold()
        self._step += len(data)
        if self._step < STEP_BYTES:
            return False
        self._step = 0
        return True

    def end(self) -> None:
        """All of it has come."""
        self.complete = True
        if self._upstream is not None and self.chunked:
            self._upstream.write(b"0\r\n\r\n")

    def begin(self, upstream: "UpstreamConnection") -> None:
        """The request's head has been written to `upstream`: what has come follows, and what will come."""
        self._upstream = upstream
        self.release()
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        for data in pending:
            upstream.write(self._framed(data))
        if self.complete and self.chunked:
            upstream.write(b"0\r\n\r\n")

    def hold(self) -> None:
        """Nobody takes more for now."""
        if self._client is not None:
            self._client.hold_body()

    def release(self) -> None:
        """More is taken."""
        if self._client is not None:
            self._client.release_body()

    def drop(self) -> None:
        """The request has ended, or its client is gone: nobody takes or sends the rest."""
        self._client = self._upstream = None
        self._pending = []

    def _framed(self, data: bytes) -> bytes:
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
