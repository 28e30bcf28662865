"""The router: reads the table from Kafka, answers requests by it, and tells what it saw."""

import asyncio
import time

from prometheus_client import REGISTRY

from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader
from contracts.shell.service import until_first
from contracts.shell.telemetry import is_collecting
from contracts.shell.tls import server_context
from router.admission import Limits
from router.certificates import Certificates
from router.following import Following
from router.gateway import Gateway
from router.issuers import Issuers
from router.listener import Listener
from router.memory import keep_large_pieces, start_with_a_table
from router.metrics import RouterMetrics
from router.ports import reachable
from router.reporting import Reporter
from router.settings import RouterSettings
from router.shares import SharedTable

SILENT_SECONDS = 5.0
"""So long the log may be silent before that is worth a warning: an idle broker answers every second."""


class Router:
    """The service. It listens once its table has caught up; with Kafka gone, the last table goes on serving."""

    def __init__(self, settings: RouterSettings, kafka: KafkaSettings):
        self._settings = settings
        self._kafka = kafka
        self._reader: Reader | None = None
        self._port = self._private_port = 0

    def not_ready(self) -> list[str]:
        """Ready means that the port is open, which it is as soon as the table is complete."""
        return [] if self._port else ["the tables of endpoints.desired and endpoints.observed"]

    def warnings(self) -> list[str]:
        """With Kafka gone it goes on with the table of then, and says so."""
        heard_at = self._heard_at()
        silent = time.time() - heard_at if heard_at is not None else 0.0
        if silent < SILENT_SECONDS:
            return []
        return [
            f"Kafka has not answered for {silent:.0f} s: requests go by the table of then, and usage waits; "
            "look at the broker (KAFKA_BOOTSTRAP_SERVERS)"
        ]

    def _heard_at(self) -> float | None:
        return self._reader.heard_at() if self._reader is not None else None

    def addresses(self) -> dict[str, str]:
        """Where requests go."""
        settings = self._settings
        places = (
            ("scoring", settings.host, self._port),
            ("private_scoring", settings.private_host, self._private_port),
        )
        return {name: f"https://{reachable(host)}:{port}" for name, host, port in places if port}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then finish every request, and tell the usage to the last one."""
        settings = self._settings
        keep_large_pieces()
        gateway = Gateway(
            asyncio.get_running_loop(), settings.suffix.encode(), Limits(body_bytes=settings.max_body_bytes)
        )
        if shared := settings.share.of > 1:
            gateway.table = SharedTable(settings.share)
        if is_collecting():
            from router.tracing import Tracing

            gateway.tracing = Tracing()
        gateway.tokens.issuer = settings.issuer
        issuers = Issuers(gateway.tokens, settings.home, settings.oidc_authority)
        gateway.ask_issuers = issuers.ask
        publisher = Publisher(self._kafka, settings.source)
        dead_letters = DeadLetters(publisher, "router")
        following = Following(gateway)
        reader = Reader(self._kafka, following.tables, dead_letters, following.update)
        listener = Listener(gateway)
        reporter = Reporter(
            gateway, publisher, settings.source, settings.usage_seconds, settings.home, settings.is_former_source
        )
        self._reader = reader
        metrics = RouterMetrics(gateway, lambda: following.read_at, self._heard_at, lambda: following.waiting)
        certificates = Certificates(
            lambda: server_context(settings.home, "router", settings.certificate_hosts), settings.certificates
        )
        REGISTRY.register(metrics)

        async def serve() -> None:
            await publisher.start()
            start_with_a_table()
            await reader.start()
            following.begin()
            if settings.private_port is not None:
                self._private_port = await listener.start(
                    settings.private_host, settings.private_port, certificates.context, private=True, shared=shared
                )
            self._port = await listener.start(settings.host, settings.router_port, certificates.context, shared=shared)

            async def follow() -> None:
                await following.finish(dead_letters)
                assert reader.failed is not None
                await reader.failed

            await until_first(
                follow(), reporter.tell_load(), reporter.tell_usage(), certificates.keep(), issuers.keep()
            )

        try:
            await until_first(self._stopped(stop, listener), serve())
        finally:
            await listener.drain(settings.drain_seconds)
            await reporter.flush()
            await reader.stop()
            await publisher.stop()
            REGISTRY.unregister(metrics)

    async def _stopped(self, stop: asyncio.Event, listener: Listener) -> None:
        """While the last requests end, the table changes and load and usage are told as ever."""
        await stop.wait()
        await listener.drain(self._settings.drain_seconds)
