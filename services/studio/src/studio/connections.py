"""The routes of connections: credentials go in, sealed, and come out only where somebody asks for them by name.

They are files of this installation, not records: no credential is ever on the bus, and none is in an answer but that of
listSecrets.
"""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from contracts.connections import Connection, ConnectionName, ConnectionSpec
from contracts.envelope import problems_of
from contracts.shell.connections import BadConnection, Connections
from studio import requests
from studio.replies import Refused, missing, rejection
from studio.server import body

_CONNECTION = "/v1/connections/{name}"
_NAME: TypeAdapter[str] = TypeAdapter(ConnectionName)
_RULE = "names have 3 to 33 letters, digits, '-' and '_', and begin with a letter or digit"
_LARGEST = 1000


class ConnectionRoutes:
    """Handlers over the connections in <home>/secrets."""

    def __init__(self, home: Path):
        self._connections = Connections(home)

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [
            web.get("/v1/connections", self.list_connections),
            web.get(_CONNECTION, self.show_connection),
            web.put(_CONNECTION, self.put_connection),
            web.delete(_CONNECTION, self.delete_connection),
            web.post(f"{_CONNECTION}/listSecrets", self.list_secrets),
        ]

    async def list_connections(self, _: web.Request) -> web.Response:
        names = await asyncio.to_thread(self._connections.names)
        found = [await self._read(name) for name in names]
        return web.json_response({"value": [_document(connection) for connection in found if connection is not None]})

    async def show_connection(self, request: web.Request) -> web.Response:
        return web.json_response(_document(await self._connection(request)))

    async def put_connection(self, request: web.Request) -> web.Response:
        """Make a connection, or replace it whole. Instances that start after it get the new values."""
        name, given = _name(request), requests.body_of(await body(request))
        try:
            spec = ConnectionSpec.model_validate(given)
        except ValidationError as error:
            raise rejection(problems_of(error)) from None
        try:
            before = await self._read(name)
        except Refused:
            before = None  # what cannot be read is what this replaces
        if before is None and len(await asyncio.to_thread(self._connections.names)) >= _LARGEST:
            raise Refused(400, "OutOfQuota", f"there are {_LARGEST} connections already: delete one")
        now = datetime.now(UTC)
        connection = Connection(name=name, created_at=before.created_at if before else now, updated_at=now, spec=spec)
        await asyncio.to_thread(self._connections.put, connection)
        return web.json_response(_document(connection), status=200 if before else 201)

    async def delete_connection(self, request: web.Request) -> web.Response:
        """Instances that run keep what they were given; new ones that refer to it do not start."""
        name = _name(request)
        if not await asyncio.to_thread(self._connections.delete, name):
            raise missing(f"connection '{name}'")
        return web.Response(status=204)

    async def list_secrets(self, request: web.Request) -> web.Response:
        connection = await self._connection(request)
        document = _document(connection)
        document["properties"]["credentials"] = connection.spec.credentials
        return web.json_response(document, headers={"Cache-Control": "no-store"})

    async def _connection(self, request: web.Request) -> Connection:
        name = _name(request)
        connection = await self._read(name)
        if connection is None:
            raise missing(f"connection '{name}'")
        return connection

    async def _read(self, name: str) -> Connection | None:
        try:
            return await asyncio.to_thread(self._connections.get, name)
        except BadConnection as error:
            raise Refused(500, "InternalServerError", str(error)) from None


def _name(request: web.Request) -> str:
    name = request.match_info["name"]
    try:
        return _NAME.validate_python(name)
    except ValidationError:
        raise missing(f"connection of such a name: {_RULE}") from None


def _document(connection: Connection) -> dict[str, Any]:
    """A connection without its credentials: each is null."""
    properties = connection.spec.model_dump(mode="json")
    return {
        "name": connection.name,
        "properties": {**properties, "credentials": dict.fromkeys(connection.spec.credentials)},
        "created_at": connection.created_at.isoformat(),
        "updated_at": connection.updated_at.isoformat(),
    }
