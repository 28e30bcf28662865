"""The management API: reads the tables, then listens until it is told to stop."""

import asyncio
from datetime import UTC, datetime

from contracts.artifacts.store import ArtifactStore
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader
from contracts.shell.identity import tenant_id
from contracts.shell.secrets import Sealer, admin_token
from contracts.shell.service import until_first
from contracts.shell.signing import Signer
from contracts.shell.tls import server_context
from studio.assets import Assets
from studio.commands import Commands
from studio.connections import ConnectionRoutes
from studio.endpoints import Endpoints
from studio.identity import IdentityDocuments
from studio.resources import Resources
from studio.scoring import ScoringTokens
from studio.server import Server, application
from studio.settings import StudioSettings
from studio.tables import Tables
from studio.uploads import Uploads


class Studio:
    """One process. It keeps nothing: everything it knows is on the bus."""

    def __init__(self, settings: StudioSettings, kafka: KafkaSettings):
        self._settings = settings
        self._kafka = kafka
        self._server: Server | None = None

    def not_ready(self) -> list[str]:
        """It listens when its tables are caught up."""
        return [] if self._server is not None else ["its tables to catch up with the log"]

    def addresses(self) -> dict[str, str]:
        """Where the API is."""
        if self._server is None:
            return {}
        return {"management": f"https://127.0.0.1:{self._server.port}"}

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set. Raises the log reader's error."""
        home = self._settings.home
        context = server_context(home, "studio", ["localhost", "127.0.0.1"])
        publisher = Publisher(self._kafka, self._settings.source)
        tables = Tables(datetime.now(UTC))
        reader = Reader(self._kafka, tables.sinks, DeadLetters(publisher, "studio"), on_batch=tables.notify)
        commands = Commands(publisher, tables, self._settings.reply_seconds)
        app = application(admin_token(home), self._settings.idle_seconds)
        store = ArtifactStore(self._settings.artifact_store, self._settings.artifacts, self._settings.largest_artifact)
        endpoints = Endpoints(tables, commands, Sealer(home), self._settings.scoring_url, tenant_id(home))
        tokens = ScoringTokens(tables, Signer(home, self._settings.identity_issuer))
        app.add_routes(endpoints.routes())
        app.add_routes(tokens.routes())
        app.add_routes(Resources(tables, commands).routes())
        app.add_routes(Assets(tables, commands).routes())
        app.add_routes(Uploads(store, self._settings.largest_artifact, self._settings.idle_seconds).routes())
        app.add_routes(ConnectionRoutes(home).routes())
        app.add_routes(IdentityDocuments(home).routes())
        server = Server(app, context)
        try:
            await publisher.start()
            await reader.start()
            assert reader.failed is not None
            await server.start(self._settings.host, self._settings.studio_port)
            self._server = server
            await until_first(stop.wait(), reader.failed)
        finally:
            await server.stop()
            await reader.stop()
            await publisher.stop()
