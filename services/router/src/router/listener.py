"""The listening socket: opened, swept for clients that take too long, and drained."""

import asyncio
import contextlib
import logging
import ssl

from router.gateway import Gateway
from router.server import ClientConnection
from router.upstream import IDLE_SECONDS

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 2.0
_HANDSHAKE_SECONDS = 10.0
_BACKLOG = 1024


class Listener:
    """Serves `gateway` on its ports, with TLS where a context is given."""

    def __init__(self, gateway: Gateway):
        self._gateway = gateway
        self._servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None

    async def start(
        self, host: str, port: int, tls: ssl.SSLContext | None, *, private: bool = False, shared: bool = False
    ) -> int:
        """Listen on another port, and return which; `port` 0 takes a free one. Those who come to a `private` one may
        ask endpoints that are not public; other processes listen on a `shared` one too. Raises OSError when the port
        is taken."""
        server = await self._gateway.loop.create_server(
            lambda: ClientConnection(self._gateway, private=private),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if tls is not None else None,
            backlog=_BACKLOG,
            reuse_port=shared,
        )
        self._servers.append(server)
        if self._timer is None:
            self._sweep()
        taken: int = server.sockets[0].getsockname()[1]
        return taken

    async def drain(self, seconds: float) -> None:
        """Accept nobody new, close idle connections, and wait until every request is answered: at most `seconds`, or,
        if that is longer, as long as one of those that are under way may take."""
        gateway = self._gateway
        gateway.draining = True
        seconds = max(seconds, gateway.request_deadlines.longest())
        for server in self._servers:
            server.close()
        for client in tuple(gateway.clients):
            client.drain()
        if gateway.clients:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await gateway.drained.wait()
        if gateway.clients:
            log.warning("%d connections were cut: they were not done after %g s", len(gateway.clients), seconds)
        for client in tuple(gateway.clients):
            client.abort()
        for upstream in tuple(gateway.upstreams):
            upstream.abort()
        for task in gateway.connecting:
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()

    def _sweep(self) -> None:
        loop = self._gateway.loop
        now = loop.time()
        for client in tuple(self._gateway.clients):
            try:
                client.sweep(now)
            except Exception:  # of ours; the others are looked after all the same
                log.exception("the router failed on a client that takes too long: its connection is cut")
                client.abort()
        for upstream in tuple(self._gateway.upstreams):
            if upstream.tunnel is not None:
                upstream.tunnel.sweep(now)
            elif upstream.exchange is None and now - upstream.idle_since > IDLE_SECONDS:
                upstream.close()
        self._timer = loop.call_later(_SWEEP_SECONDS, self._sweep)
