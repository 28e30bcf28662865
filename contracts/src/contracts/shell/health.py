"""The side door of a service: /healthz, /readyz and /metrics, by aiohttp, off every hot path."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest


class Health:
    """Serves a service's state. `not_ready()` gives the reasons why it is not ready yet: none means ready;
    `addresses()` tells where it listens for its own work; `warnings()` what a person should see to though it works."""

    def __init__(
        self,
        not_ready: Callable[[], list[str]],
        addresses: Callable[[], dict[str, str]],
        warnings: Callable[[], list[str]] = list,
    ):
        self._not_ready = not_ready
        self._addresses = addresses
        self._warnings = warnings
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, told by `self.port`."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive", "warnings": self._warnings()})

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._not_ready()
        state = {
            "ready": not reasons,
            "waiting_for": reasons,
            "addresses": self._addresses(),
            "warnings": self._warnings(),
        }
        return web.json_response(state, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})
