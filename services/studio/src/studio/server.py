"""HTTPS with a bearer token, and every error as the same document."""

import asyncio
import hmac
import logging
import ssl
import uuid

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from studio import requests
from studio.identity import DISCOVERY, JWKS
from studio.replies import Refused, error_document

log = logging.getLogger(__name__)

LARGEST_BODY = 1 << 20
OPEN_PATH = "/healthz"
_OPEN = frozenset({OPEN_PATH, DISCOVERY, JWKS})
_CONNECTIONS = 256
_IDLE_SECONDS = web.AppKey("idle_seconds", float)

_ROUTES = (
    "/v1/ has onlineEndpoints, batchEndpoints, jobs, models, environments, codes, data, artifacts, connections, costs, "
    "decisions and deadletters"
)
_CODES = {404: "NotFound", 405: "MethodNotAllowed", 413: "RequestEntityTooLarge"}


def application(token: str, idle_seconds: float) -> web.Application:
    """An application without routes yet, but for its health. `idle_seconds`: how long a client may take for a
    handshake, the head of a request, or its body."""
    app = web.Application(middlewares=[_errors, _authorized(token)], client_max_size=LARGEST_BODY)
    app[_IDLE_SECONDS] = idle_seconds
    app.router.add_get(OPEN_PATH, _healthz)
    return app


async def body(request: web.Request) -> bytes:
    """The request's body. Raises Refused when the client is too slow, HTTPRequestEntityTooLarge past LARGEST_BODY."""
    seconds = request.app[_IDLE_SECONDS]
    try:
        async with asyncio.timeout(seconds):
            return await request.read()
    except TimeoutError:
        raise Refused(408, "RequestTimeout", f"the body did not come within {seconds:g} s") from None


def command_id(request: web.Request) -> str:
    """The id for the command that this request becomes."""
    return requests.command_id(request.headers.get("x-ms-client-request-id"), uuid.uuid4().hex)


class Server:
    """Listens for an application."""

    def __init__(self, app: web.Application, context: ssl.SSLContext):
        self._idle_seconds = app[_IDLE_SECONDS]
        self._runner = web.AppRunner(
            app,
            access_log=None,
            keepalive_timeout=self._idle_seconds,
            lingering_time=self._idle_seconds,
            shutdown_timeout=5,
        )
        self._context = context
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen; `port` 0 takes a free one, told by `self.port`."""
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._protocol, host, port, ssl=self._context, ssl_handshake_timeout=self._idle_seconds
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop listening, and let the requests at work finish."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()

    def _protocol(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        assert server is not None
        return server() if len(server.connections) < _CONNECTIONS else _Hangup()


class _Hangup(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def _authorized(token: str) -> Middleware:
    expected = f"Bearer {token}".encode()

    @web.middleware
    async def authorized(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path not in _OPEN and not hmac.compare_digest(given, expected):
            message = (
                "send the header `Authorization: Bearer TOKEN` with the token in <home>/secrets/admin-token"
                if not given
                else "this is not the token of this installation, which lies in <home>/secrets/admin-token"
            )
            raise Refused(401, "Unauthorized", message)
        return await handler(request)

    return authorized


@web.middleware
async def _errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        response = await handler(request)
    except Refused as refused:
        response = web.json_response(refused.document, status=refused.status)
        if refused.status == 401:
            response.headers["WWW-Authenticate"] = "Bearer"
    except web.HTTPException as error:
        code = _CODES.get(error.status, "BadArgument")
        response = web.json_response(error_document(code, _told(request, error)), status=error.status)
        if allow := error.headers.get("Allow"):
            response.headers["Allow"] = allow
    except Exception:
        log.exception("%s %s failed", request.method, request.path)
        message = "the studio failed on this request; its log has the cause"
        response = web.json_response(error_document("InternalServerError", message), status=500)
    if request.method != "GET":
        log.info("%s %s: %d", request.method, request.path, response.status)
    return response


def _told(request: web.Request, error: web.HTTPException) -> str:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return f"{request.path} takes {', '.join(sorted(error.allowed_methods))}, not {request.method}"
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return f"a body may have {LARGEST_BODY} bytes"
    if isinstance(error, web.HTTPNotFound):
        return f"there is nothing at {request.path}: {_ROUTES}"
    return error.reason


async def _healthz(_: web.Request) -> web.Response:
    return web.json_response({"status": "alive"})
