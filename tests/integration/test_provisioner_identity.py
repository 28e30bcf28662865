"""Instances with an identity and secrets by reference: what they get, and that nobody else does.

A real provisioner with real instances on a real Kafka. The script is a user's: it asks the unmodified azure-identity
for tokens, and finds its secret in its environment.
"""

import asyncio
import json
import os
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer
from joserfc import jwt
from joserfc.jwk import KeySet

from contracts.connections import Connection, ConnectionSpec
from contracts.envelope import Record
from contracts.identities import system_assigned, user_assigned
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import (
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeleteEndpoint,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    ManagedIdentity,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    UserAssignedIdentity,
)
from contracts.shell.connections import Connections
from contracts.shell.identity import discovery_path, jwks_path, tenant_id
from contracts.topics import topics
from endpunkt_infra.services import ServiceProcess

StartService = Callable[..., ServiceProcess]
T = TypeVar("T")
PATIENCE = 60
QUICK = {"drain_seconds": "0.3", "usage_seconds": "0.5", "log_level": "DEBUG"}
STORAGE, VAULT = "https://storage.azure.com", "https://vault.azure.net"
RED, BLUE = "/subscriptions/s/red", "/subscriptions/s/blue"
SECRET = "s3cret-" + os.urandom(16).hex()
KEY = "${{azureml://connections/aoai/credentials/key}}"
SCORE = """
import json, os
from azure.identity import ManagedIdentityCredential

def init():
    pass

def run(data):
    asked = json.loads(data)
    credential = ManagedIdentityCredential(**asked.get("credential", {}))
    return {
        "token": credential.get_token(asked["resource"] + "/.default").token,
        "header": os.environ["IDENTITY_HEADER"],
        "endpoint": os.environ["IDENTITY_ENDPOINT"],
        "environment": {name: os.environ.get(name) for name in ("API_KEY", "API_BASE", "PLAIN")},
    }
"""


class Others:
    """Everyone else on the log."""

    def __init__(self, publisher: Publisher):
        self._publisher = publisher
        self.desired = Table(EndpointDesired)
        self.observed = Table(EndpointObserved)
        self.replies: dict[str, Message] = {}
        self._moved = asyncio.Condition()

    def sinks(self) -> list[Table[Any] | Tail]:
        return [self.desired, self.observed, Tail("endpoints.replies", self._reply)]

    def _reply(self, record: Record, message: Message) -> None:
        assert isinstance(message, CommandAccepted | CommandRejected)
        self.replies[message.command_id] = message

    async def moved(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def until(self, found: Callable[[], T | None]) -> T:
        async with asyncio.timeout(PATIENCE), self._moved:
            while (value := found()) is None:
                await self._moved.wait()
            return value

    async def send(self, command: Message) -> Message:
        id = os.urandom(8).hex()
        await self._publisher.publish(command, id=id)
        return await self.until(lambda: self.replies.get(id))

    async def accepted(self, command: Message) -> None:
        answer = await self.send(command)
        assert isinstance(answer, CommandAccepted), answer

    async def state(self, endpoint: str, deployment: str, state: str) -> DeploymentObserved:
        def found() -> DeploymentObserved | None:
            observed = self.observed.entries.get(endpoint)
            it = observed.deployments.get(deployment) if observed else None
            return it if it is not None and it.state == state else None

        return await self.until(found)


@pytest.fixture
async def others(kafka: KafkaSettings) -> AsyncIterator[Others]:
    async with playing(kafka) as them:
        yield them


@asynccontextmanager
async def playing(kafka: KafkaSettings) -> AsyncIterator[Others]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    them = Others(publisher)
    reader = Reader(kafka, them.sinks(), DeadLetters(publisher, "studio"), them.moved)
    await asyncio.wait_for(reader.start(), PATIENCE)
    try:
        yield them
    finally:
        for endpoint in list(them.desired.entries):
            await publisher.delete(EndpointDesired.TOPIC, endpoint)
        await reader.stop()
        await publisher.stop()


def deployment(home: Path, **variables: str) -> OnlineDeploymentSpec:
    code = home / "user"
    code.mkdir(exist_ok=True)
    (code / "score.py").write_text(SCORE)
    configuration = {"code": code.as_uri(), "scoring_script": "score.py"}
    return OnlineDeploymentSpec.model_validate(
        {
            "code_configuration": configuration,
            "environment_variables": variables,
            "request_settings": {"request_timeout_ms": 20_000},
            "readiness_probe": {"initial_delay": 0, "period": 1},
        }
    )


def keep(home: Path, name: str, **credentials: str) -> None:
    now = datetime.now(UTC)
    spec = ConnectionSpec(type="azure_open_ai", target="https://there", credentials=credentials)
    Connections(home).put(Connection(name=name, created_at=now, updated_at=now, spec=spec))


async def scored(of: DeploymentObserved, resource: str = STORAGE, **credential: Any) -> dict[str, Any]:
    body = json.dumps({"resource": resource, "credential": credential}).encode()
    (instance,) = of.in_state("Ready")

    def ask() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{instance.address}/score", body, timeout=PATIENCE) as answer:
            return dict(json.load(answer))

    return await asyncio.to_thread(ask)


async def status_of(answer: dict[str, Any]) -> int:
    """The status with which the token service answers the header of the instance that gave `answer`."""
    query, headers = {"api-version": "2019-08-01", "resource": STORAGE}, {"X-IDENTITY-HEADER": answer["header"]}
    async with aiohttp.ClientSession() as http, http.get(answer["endpoint"], params=query, headers=headers) as response:
        return response.status


def claims(token: str, home: Path, audience: str = STORAGE) -> dict[str, Any]:
    keys = KeySet.import_key_set(json.loads(jwks_path(home).read_bytes()))
    issuer = json.loads(discovery_path(home).read_bytes())["issuer"]
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    rules = jwt.JWTClaimsRegistry(iss={"essential": True, "value": issuer}, aud={"essential": True, "value": audience})
    rules.validate(decoded.claims)
    return decoded.claims


async def test_an_instance_has_its_identity_and_its_secrets_and_nobody_else(
    kafka: KafkaSettings, others: Others, start_service: StartService, tmp_path: Path
) -> None:
    keep(tmp_path, "aoai", key=SECRET)
    provisioner = start_service("provisioner", **QUICK)
    await others.accepted(CreateEndpoint(endpoint="diabetes", spec=OnlineEndpointSpec()))
    spec = deployment(tmp_path, API_KEY=KEY, API_BASE="${{azureml://connections/aoai/target}}", PLAIN="as it is")
    await others.accepted(PutDeployment(endpoint="diabetes", deployment="blue", spec=spec))
    running = await others.state("diabetes", "blue", "Succeeded")

    first = await scored(running)
    assert first["environment"] == {"API_KEY": SECRET, "API_BASE": "https://there", "PLAIN": "as it is"}
    own = system_assigned(tenant_id(tmp_path), "diabetes", others.desired.entries["diabetes"].created_at)
    said = claims(first["token"], tmp_path)
    assert (said["sub"], said["xms_mirid"]) == (own.principal_id, own.resource_id)
    assert (said["endpoint"], said["deployment"]) == ("diabetes", "blue")

    # A provisioner that was killed: the instance runs on, and the next one knows it by the same header.
    provisioner.kill()
    again = start_service("provisioner", **QUICK)
    second = await scored(running, VAULT)
    assert claims(second["token"], tmp_path, VAULT)["sub"] == own.principal_id
    assert second["header"] == first["header"]
    assert await status_of(first) == 200

    found = await everything_told(kafka, tmp_path, [provisioner, again])
    for text in (SECRET, first["header"], first["token"], second["token"]):
        assert [where for where, content in found.items() if text.encode() in content] == []
    assert any(KEY.encode() in content for where, content in found.items() if where.startswith("topic"))

    await others.accepted(DeleteEndpoint(endpoint="diabetes"))
    await others.until(lambda: True if "diabetes" not in others.observed.entries else None)
    assert await status_of(first) == 401


async def everything_told(kafka: KafkaSettings, home: Path, services: list[ServiceProcess]) -> dict[str, bytes]:
    """Every record of every topic, every file of the installation (logs and instances' folders among them), and every
    process's arguments."""
    found = await asyncio.to_thread(files_and_arguments, home)
    assert any("/instances/" in where for where in found)
    assert all(str(service.log) in found for service in services)
    consumer = AIOKafkaConsumer(
        *topics(), bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    try:
        await consumer.seek_to_beginning()
        ends = await consumer.end_offsets(consumer.assignment())
        for partition, end in ends.items():
            while await consumer.position(partition) < end:
                for each in (await consumer.getmany(partition, timeout_ms=1000)).values():
                    for record in each:
                        headers = b" ".join(value for _, value in record.headers)
                        where = f"topic {record.topic}/{record.partition}/{record.offset}"
                        found[where] = b" ".join((record.key or b"", record.value or b"", headers))
    finally:
        await consumer.stop()
    return found


def files_and_arguments(home: Path) -> dict[str, bytes]:
    # The script itself is the user's, and says none of it.
    found = {str(path): path.read_bytes() for path in home.rglob("*") if path.is_file()}
    for process in Path("/proc").iterdir():
        try:
            found[f"arguments of {process.name}"] = (process / "cmdline").read_bytes()
        except (OSError, NotADirectoryError):
            continue
    return found


async def test_user_assigned_identities(others: Others, start_service: StartService, tmp_path: Path) -> None:
    start_service("provisioner", **QUICK)
    assigned = (UserAssignedIdentity(resource_id=RED), UserAssignedIdentity(resource_id=BLUE))
    identity = ManagedIdentity(type="user_assigned", user_assigned_identities=assigned)
    await others.accepted(CreateEndpoint(endpoint="diabetes", spec=OnlineEndpointSpec(identity=identity)))
    await others.accepted(PutDeployment(endpoint="diabetes", deployment="blue", spec=deployment(tmp_path)))
    running = await others.state("diabetes", "blue", "Succeeded")
    for resource_id in (RED, BLUE):
        principal = user_assigned(tenant_id(tmp_path), resource_id)
        answer = await scored(running, client_id=principal.client_id)
        assert claims(answer["token"], tmp_path)["sub"] == principal.principal_id


async def test_references_that_cannot_be_followed(others: Others, start_service: StartService, tmp_path: Path) -> None:
    start_service("provisioner", **QUICK)
    await others.accepted(CreateEndpoint(endpoint="diabetes", spec=OnlineEndpointSpec()))
    vault = deployment(tmp_path, A="${{keyvault:https://v.vault.azure.net/secrets/s/1}}", B=f"Bearer {KEY}")
    answer = await others.send(PutDeployment(endpoint="diabetes", deployment="blue", spec=vault))
    assert isinstance(answer, CommandRejected)
    assert {problem.field for problem in answer.problems} == {
        "spec.environment_variables.A",
        "spec.environment_variables.B",
    }

    spec = deployment(tmp_path, API_KEY=KEY)
    await others.accepted(PutDeployment(endpoint="diabetes", deployment="blue", spec=spec))

    def failed() -> DeploymentObserved | None:
        observed = others.observed.entries.get("diabetes")
        it = observed.deployments.get("blue") if observed else None
        return it if it is not None and it.error is not None else None

    error = (await others.until(failed)).error
    assert error is not None
    assert error.code == "SecretsInjectionError"
    assert "API_KEY" in error.message
    assert "'aoai'" in error.message
    # The next start asks again.
    keep(tmp_path, "aoai", key=SECRET)
    running = await others.state("diabetes", "blue", "Succeeded")
    assert (await scored(running))["environment"]["API_KEY"] == SECRET
