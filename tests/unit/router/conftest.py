"""What the router's unit tests share: documents, and a router between scripted models and raw sockets."""

import asyncio
import hashlib
import json
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

import pytest
import uvloop

from contracts.messages import (
    Artifact,
    AutoscaleSetting,
    Capacity,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    Instance,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    RequestSettings,
    ScaleProfile,
)
from contracts.shell.tls import ca_path, server_context
from router.admission import Limits
from router.gateway import Gateway, LiveDeployment
from router.listener import Listener

KEY = "the-primary-key"
AT = datetime(2026, 1, 1, tzinfo=UTC)
SUFFIX = b".local.inference.localhost"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop that the router runs on."""
    return {"uvloop": uvloop.new_event_loop}


def key(text: str) -> EndpointKey:
    return EndpointKey(digest=hashlib.sha256(text.encode()).hexdigest(), sealed="-")


class Documents:
    """Makes the documents of one endpoint."""

    @staticmethod
    def deployment(
        *, idempotent: bool = False, autoscaled: bool = False, minimum: int = 1, **settings: int
    ) -> DeploymentDesired:
        scaling = AutoscaleSetting(
            profiles=(ScaleProfile(name="default", capacity=Capacity(minimum=minimum, maximum=2, default=1)),)
        )
        return DeploymentDesired(
            generation=1,
            code=Artifact(digest="0" * 64, name="code"),
            spec=OnlineDeploymentSpec(
                code_configuration=CodeConfiguration(code="code", scoring_script="score.py"),
                properties={"endpunkt.idempotent": "true"} if idempotent else {},
                request_settings=RequestSettings(**settings),
            ),
            autoscale=scaling if autoscaled else None,
        )

    @staticmethod
    def desired(
        deployments: dict[str, DeploymentDesired],
        traffic: dict[str, int],
        *,
        name: str = "diabetes",
        primary: str = KEY,
        created_at: datetime = AT,
        mirror: dict[str, int] | None = None,
        properties: dict[str, str] | None = None,
        **spec: Any,
    ) -> EndpointDesired:
        return EndpointDesired(
            endpoint=name,
            generation=1,
            created_at=created_at,
            updated_at=created_at,
            spec=OnlineEndpointSpec(properties=properties or {}, **spec),
            mirror_traffic=mirror or {},
            keys=EndpointKeys(primary=key(primary), secondary=key("the-secondary-key")),
            traffic=traffic,
            deployments=deployments,
        )

    @staticmethod
    def observed(
        ready: dict[str, dict[str, str]], desired_instances: int | None = None, *, name: str = "diabetes"
    ) -> EndpointObserved:
        """`ready` gives each deployment's Ready instances: id -> address."""
        return EndpointObserved(
            endpoint=name,
            generation=1,
            state="Succeeded",
            deployments={
                deployment: DeploymentObserved(
                    generation=1,
                    state="Succeeded",
                    desired_instances=len(instances) if desired_instances is None else desired_instances,
                    instances=tuple(
                        Instance(id=each, generation=1, state="Ready", address=address, started_at=AT)
                        for each, address in instances.items()
                    ),
                )
                for deployment, instances in ready.items()
            },
        )


@pytest.fixture
def documents() -> type[Documents]:
    return Documents


@dataclass
class Received:
    """A request as a model got it."""

    head: bytes
    body: bytes

    def header(self, name: str) -> str | None:
        for line in self.head.split(b"\r\n")[1:]:
            each, _, value = line.partition(b":")
            if each.lower() == name.encode():
                return value.strip().decode()
        return None


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n[1]"


class Model:
    """An instance that does as it is told: `reply` is what it writes to a request, or what it awaits to know it."""

    def __init__(self, reply: "bytes | Callable[[Model], AsyncIterator[bytes]]" = OK):
        self.reply = reply
        self.requests: list[Received] = []
        self.connections: list[asyncio.StreamWriter] = []
        self.arrived = asyncio.Condition()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> "Model":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def requests_seen(self, count: int) -> None:
        async with asyncio.timeout(5), self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    def die(self) -> None:
        """As SIGKILL does: nothing listens any more, every connection breaks."""
        if self._server is not None:
            self._server.close()
        for writer in self.connections:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                received = Received(head, b"")
                if (length := received.header("content-length")) is not None:
                    received.body = await reader.readexactly(int(length))
                async with self.arrived:
                    self.requests.append(received)
                    self.arrived.notify_all()
                if isinstance(self.reply, bytes):
                    writer.write(self.reply)
                    await writer.drain()
                else:
                    async for part in self.reply(self):
                        writer.write(part)
                        await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@dataclass
class Answer:
    """A response as the client got it; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


class Client:
    """A raw connection to the router."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """Read one response; `to_head` ones have no body. Raises IncompleteReadError when it is cut off."""
        async with asyncio.timeout(10):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {}
            for line in head[1:-2]:
                name, _, value = line.partition(": ")
                assert name.lower() not in headers, f"{name} comes twice"
                headers[name.lower()] = value
            status = int(head[0].split(" ")[1])
            body = b""
            if to_head or status in (100, 204, 304):
                pass
            elif headers.get("transfer-encoding") == "chunked":
                while size := int(await self.reader.readuntil(b"\r\n"), 16):
                    body += await self.reader.readexactly(size)
                    assert await self.reader.readexactly(2) == b"\r\n"
                assert await self.reader.readexactly(2) == b"\r\n"
            elif "content-length" in headers:
                body = await self.reader.readexactly(int(headers["content-length"]))
            else:
                body = await self.reader.read()
            return Answer(status, headers, body)

    def hang_up(self) -> None:
        """Be gone for good, which over TLS a close_notify says, and without it only a RST."""
        if self.writer.get_extra_info("ssl_object") is None:
            linger = struct.pack("ii", 1, 0)
            self.writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, linger)
            self.writer.transport.abort()
        else:
            self.writer.close()

    async def closed(self) -> bytes:
        """Wait until the router closes the connection; returns what it still sent."""
        async with asyncio.timeout(10):
            try:
                return await self.reader.read()
            except OSError:
                return b""

    async def score(self, body: bytes = b"{}", *headers: str, path: str = "/diabetes/score", key: str = KEY) -> Answer:
        self.send(score(body, *headers, path=path, key=key))
        return await self.answer()


def score(body: bytes = b"{}", *headers: str, path: str = "/diabetes/score", key: str = KEY) -> bytes:
    """The bytes of a scoring request."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {key}", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


@dataclass
class Bench:
    """A router, whose table a test writes. `trust` is what its clients trust, None where it has no TLS."""

    gateway: Gateway
    listener: Listener
    port: int
    trust: ssl.SSLContext | None
    models: list[Model] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    score = staticmethod(score)
    documents = Documents

    async def model(self, reply: "bytes | Callable[[Model], AsyncIterator[bytes]]" = OK) -> Model:
        self.models.append(await Model(reply).start())
        return self.models[-1]

    def publish(self, desired: EndpointDesired, observed: EndpointObserved) -> None:
        change = self.gateway.table.apply(
            desired.endpoint, desired, {observed.endpoint: observed}, self.gateway.loop.time()
        )
        self.gateway.changed(change)

    def serve(self, *models: Model, idempotent: bool = False, **settings: int) -> LiveDeployment:
        """One deployment, blue, on these models."""
        self.publish(
            Documents.desired(
                {"blue": Documents.deployment(idempotent=idempotent, autoscaled=False, **settings)}, {"blue": 100}
            ),
            Documents.observed({"blue": {f"i{model.port}": model.address for model in models}}),
        )
        return self.gateway.table.deployments["diabetes", "blue"]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a state of the router that it tells nobody of."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    async def client(self, port: int | None = None) -> Client:
        host = "localhost" if self.trust is not None else None
        opened = await asyncio.open_connection("127.0.0.1", port or self.port, ssl=self.trust, server_hostname=host)
        self.clients.append(Client(*opened))
        return self.clients[-1]

    @property
    def quiet(self) -> bool:
        """Whether nothing is left of any request."""
        deployments = self.gateway.table.deployments.values()
        return not any(deployment.in_flight for deployment in deployments) and not any(
            instance.outstanding for deployment in deployments for instance in deployment.instances
        )


@pytest.fixture
def limits() -> Limits:
    """A test file overrides it with smaller ones."""
    return Limits()


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    home: Path = tmp_path_factory.mktemp("tls")
    server = server_context(home, "router", ["localhost"])
    return server, ssl.create_default_context(cafile=str(ca_path(home)))


@pytest.fixture
def secured() -> bool:
    """Whether the bench's router has TLS, as the service has; tests that ask for both ways are parametrized with it."""
    return False


@pytest.fixture
async def bench(
    limits: Limits,
    secured: bool,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Bench]:
    monkeypatch.setattr("router.server.LINGER_SECONDS", 0.05)
    monkeypatch.setattr("router.listener._SWEEP_SECONDS", 0.05)
    gateway = Gateway(asyncio.get_running_loop(), SUFFIX, limits)
    listener = Listener(gateway)
    server, trust = contexts if secured else (None, None)
    port = await listener.start("127.0.0.1", 0, server)
    running = Bench(gateway, listener, port, trust)
    yield running
    for client in running.clients:
        client.writer.close()
    for connection in tuple(gateway.clients):
        connection.abort()
    await listener.drain(0.2)
    for model in running.models:
        model.die()
