"""A connection that speaks another protocol, such as WebSocket, once an instance has agreed to it (101).

From there on the router passes bytes both ways and reads none of them, until either side closes, or both have been
silent for too long. The tunnel holds the instance's slot as long as it lasts; neither side is read faster than the
other takes it. No tunnel is ever complete, so a graceful stop gives them the time that it has and then cuts them.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.server import ClientConnection
    from router.upstream import UpstreamConnection


IDLE_SECONDS = 300.0
"""How long both sides may be silent: one of them may be gone without a word, and a slot with it. Longer than the pings
of WebSocket libraries are apart (20 to 60 s)."""


class Tunnel:
    """`ended` is called once, when either side has closed; what was still to be written goes out first."""

    __slots__ = ("_client", "_ended", "_moved", "_quiet_since", "_upstream")

    def __init__(self, client: "ClientConnection", upstream: "UpstreamConnection", ended: Callable[[], None]):
        self._client, self._upstream, self._ended = client, upstream, ended
        self._moved = True  # since the last sweep
        self._quiet_since = 0.0

    def from_client(self, data: bytes) -> None:
        """Bytes for the instance."""
        self._moved = True
        self._upstream.write(data)

    def from_model(self, data: bytes) -> None:
        """Bytes for the client."""
        self._moved = True
        self._client.write(data)

    def client_chokes(self, chokes: bool) -> None:
        """The client does not take what it is sent, or does again."""
        (self._upstream.pause if chokes else self._upstream.resume)()

    def model_chokes(self, chokes: bool) -> None:
        """The instance does not take what it is sent, or does again."""
        (self._client.hold_body if chokes else self._client.release_body)()

    def sweep(self, now: float) -> None:
        """Look whether anything has passed lately."""
        if self._moved:
            self._moved, self._quiet_since = False, now
        elif now - self._quiet_since > IDLE_SECONDS:
            self.client_closed()

    def client_closed(self) -> None:
        """The client hung up, or might have."""
        self._upstream.tunnel = None
        self._upstream.close()
        self._ended()

    def model_closed(self) -> None:
        """The instance hung up. The client's connection is closed when its exchange ends."""
        self._ended()
