"""The token service of instances: App Service's managed identity endpoint, on the loopback address.

An instance is given IDENTITY_ENDPOINT and IDENTITY_HEADER; who sends the header gets tokens of its endpoint. Others on
the machine reach the port and lack the header. The port is remembered and the instances are known on the disk, so that
instances which outlive a provisioner go on getting tokens from the next one. While no provisioner runs, the port is
anybody's: a machine whose other users are hostile must not leave instances without their provisioner.
"""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

from aiohttp import web

from contracts.identities import principals
from contracts.messages import EndpointDesired
from contracts.shell.files import write_atomically
from contracts.shell.identity import tenant_id
from contracts.shell.secrets import digest_of
from contracts.shell.signing import Signer
from provisioner.identity.known import KnownInstances
from provisioner.identity.principals import (
    TOKEN_SECONDS,
    InstanceIdentity,
    TokenRefused,
    chosen,
    claims,
    resource_of,
)

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
# Below Linux's range for outgoing connections, so that no client is given the port while the provisioner is away.
_PORTS = range(20000, 30000)
# An instance's code may be hostile: it must not use up the provisioner's descriptors, or others' turns for long.
_CONNECTIONS = 256
_CONNECTION_SECONDS = 5.0
_BURST = 50
_PER_SECOND = 10.0
_NO_STORE = {"Cache-Control": "no-store"}


class Identity:
    """Knows from its making on which port it will be; answers while `run` runs."""

    def __init__(self, home: Path, issuer: str, token_seconds: int = TOKEN_SECONDS):
        self._tenant = tenant_id(home)
        self._signer = Signer(home, issuer)
        self._token_seconds = token_seconds
        self._known = KnownInstances(home)
        self._allowances: dict[str, _Allowance] = {}
        self._socket = self._bound(home / "run" / "identity-port")
        self.port: int = self._socket.getsockname()[1]

    def variables(self, endpoint: EndpointDesired, deployment: str, instance_id: str) -> Mapping[str, str]:
        """The environment variables by which a new instance proves who it is. The header is told here and never
        again."""
        header = secrets.token_urlsafe(32)
        self._known.add(
            InstanceIdentity(
                instance=instance_id,
                endpoint=endpoint.endpoint,
                deployment=deployment,
                principals=principals(self._tenant, endpoint),
                header_digest=digest_of(header),
            )
        )
        return {"IDENTITY_ENDPOINT": f"http://{_HOST}:{self.port}/msi/token", "IDENTITY_HEADER": header}

    def forget(self, instance_id: str) -> None:
        """The instance ended: its header opens nothing any more."""
        self._known.forget(instance_id)
        self._allowances.pop(instance_id, None)

    def keep(self, instance_ids: Collection[str]) -> None:
        """Forget whatever an earlier provisioner knew but these, the instances that run."""
        self._known.keep(instance_ids)

    async def run(self) -> None:
        """Answer until cancelled."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/msi/token", self._token),
                web.get("/.well-known/openid-configuration", self._discovery),
                web.get("/jwks", self._jwks),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        try:
            await runner.setup()
            assert runner.server is not None
            loop = asyncio.get_running_loop()
            listener = await loop.create_server(partial(_protocol, runner.server), sock=self._socket)
            log.info("instances get tokens at %s:%d", _HOST, self.port)
            try:
                await loop.create_future()
            finally:
                listener.close()
        finally:
            self._socket.close()
            await runner.cleanup()

    async def _token(self, request: web.Request) -> web.Response:
        try:
            identity = self._known.of_header(request.headers.get("X-IDENTITY-HEADER", ""))
            if identity is None:
                raise TokenRefused(401, "The header X-IDENTITY-HEADER is missing or is not the one of an instance.")
            if not self._allowances.setdefault(identity.instance, _Allowance()).take(time.monotonic()):
                raise TokenRefused(429, "Too many requests for tokens: keep a token until it expires.")
            resource = resource_of(request.query)
            principal = chosen(request.query, identity.principals)
        except TokenRefused as refused:
            headers = _NO_STORE | ({"Retry-After": "1"} if refused.status == 429 else {})
            return web.json_response(refused.document(secrets.token_hex(16)), status=refused.status, headers=headers)
        now, id = int(time.time()), secrets.token_urlsafe(16)
        said = claims(
            principal, identity, resource, self._signer.issuer, str(self._tenant), now, self._token_seconds, id
        )
        document = {
            "access_token": self._signer.sign(said),
            "client_id": principal.client_id,
            "expires_on": str(now + self._token_seconds),
            "resource": resource,
            "token_type": "Bearer",
        }
        return web.json_response(document, headers=_NO_STORE)

    async def _discovery(self, _: web.Request) -> web.Response:
        return web.json_response(self._signer.discovery)

    async def _jwks(self, _: web.Request) -> web.Response:
        return web.json_response(self._signer.jwks)

    def _bound(self, remembered: Path) -> socket.socket:
        """A socket at the port of before, so that older instances find it; else at another one."""
        try:
            port = int(remembered.read_bytes())
        except (FileNotFoundError, ValueError):
            port = 0
        if port in _PORTS:
            try:
                return _listening(port)
            except OSError as error:
                # Whoever has the port now is sent the older instances' headers: they may open nothing any more.
                self._known.forget_all()
                log.error("port %d is taken (%s): instances that run get no tokens until they start anew", port, error)
        while True:
            port = secrets.choice(_PORTS)
            try:
                found = _listening(port)
            except OSError:
                continue
            write_atomically(remembered, str(port).encode())
            return found


class _Allowance:
    """How many tokens an instance may ask for: a burst, and so many a second after it."""

    def __init__(self) -> None:
        self._left = float(_BURST)
        self._at = 0.0

    def take(self, now: float) -> bool:
        """Whether there is one left, `now` on a monotonic clock."""
        self._left = min(_BURST, self._left + (now - self._at) * _PER_SECOND)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class _Hangup(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _protocol(server: web.Server) -> asyncio.BaseProtocol:
    """What handles one connection, for a few seconds at most: a token takes milliseconds."""
    if len(server.connections) >= _CONNECTIONS:
        return _Hangup()
    handler = server()
    asyncio.get_running_loop().call_later(_CONNECTION_SECONDS, handler.force_close)
    return handler


def _listening(port: int) -> socket.socket:
    listener = socket.socket()
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections of before may be in TIME_WAIT
        listener.bind((_HOST, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener
