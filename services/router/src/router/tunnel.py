"""A connection that speaks another protocol, such as WebSocket, once an instance has agreed to it (101).

From there on the router passes bytes both ways and reads none of them, until either side closes. The tunnel holds the
instance's slot as long as it lasts; neither side is read faster than the other takes it.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from router.server import ClientConnection
    from router.upstream import UpstreamConnection


class Tunnel:
    """`ended` is called once, when either side has closed; what was still to be written goes out first."""

    __slots__ = ("_client", "_ended", "_upstream")

    def __init__(self, client: "ClientConnection", upstream: "UpstreamConnection", ended: Callable[[], None]):
        self._client, self._upstream, self._ended = client, upstream, ended

    def from_client(self, data: bytes) -> None:
        """Bytes for the instance."""
        self._upstream.write(data)

    def from_model(self, data: bytes) -> None:
        """Bytes for the client."""
        self._client.write(data)

    def client_chokes(self, chokes: bool) -> None:
        """The client does not take what it is sent, or does again."""
        (self._upstream.pause if chokes else self._upstream.resume)()

    def model_chokes(self, chokes: bool) -> None:
        """The instance does not take what it is sent, or does again."""
        (self._client.hold_body if chokes else self._client.release_body)()

    def client_closed(self) -> None:
        """The client hung up."""
        self._upstream.tunnel = None
        self._upstream.close()
        self._ended()

    def model_closed(self) -> None:
        """The instance hung up. The client's connection is closed when its exchange ends."""
        self._ended()
