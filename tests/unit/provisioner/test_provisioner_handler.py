"""The adapter of commands: what it writes, in which order, and what a failure in between leaves behind."""

import asyncio
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from faststream.kafka import KafkaBroker, TestKafkaBroker

from contracts.artifacts.store import ArtifactStore
from contracts.catalog import Catalog, InstanceType
from contracts.envelope import Envelope, Record, encode, text_headers
from contracts.environments.builder import EnvironmentBuilder
from contracts.log import DeadLetters, Offset, command_broker, handle_commands
from contracts.log.settings import KafkaSettings
from contracts.messages import (
    AssetReference,
    AssetRegistered,
    CodeConfiguration,
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeadLetter,
    DeleteEndpoint,
    DeploymentDesired,
    EndpointDesired,
    EnvironmentReference,
    GetLogs,
    LogsRead,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegisterEnvironment,
    Reply,
)
from contracts.shell.secrets import Sealer, digest_of
from provisioner.artifacts import SourceFiles
from provisioner.core.world import Machine, Quotas
from provisioner.handler import CommandHandler

CATALOG = Catalog(
    currency="USD",
    instance_types={"Standard_DS1_v2": InstanceType(vcpus=1, memory_gib=3.5, price_per_hour=Decimal("0.073"))},
    price_per_million_requests=Decimal(0),
)
CREATE = CreateEndpoint(endpoint="shop", spec=OnlineEndpointSpec())


class Log:
    """A log in memory that is read back only by `wait_for`, and that may break at one write."""

    def __init__(self) -> None:
        self.endpoints: Mapping[str, EndpointDesired] = {}
        self.deleted: Mapping[str, str] = {}
        self.assets: Mapping[str, AssetRegistered] = {}
        self.done: list[tuple[str, str | None]] = []
        self.replies: list[Message] = []
        self.letters: list[Message] = []
        self.break_at: str | None = None
        self._unread: list[tuple[str, Message | None, str | None]] = []

    async def publish(
        self, message: Message, *, id: str | None = None, topic: str | None = None, partition: int | None = None
    ) -> Offset:
        self._step(type(message).__name__, id)
        if isinstance(message, Reply):
            self.replies.append(message)
        elif isinstance(message, DeadLetter):
            self.letters.append(message)
        else:
            self._unread.append((message.key(), message, id))
        return Offset(message.TOPIC, 0, len(self.done))

    async def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        self._step("tombstone", id)
        self._unread.append((key, None, id))
        return Offset(topic, 0, len(self.done))

    async def wait_for(self, offset: Offset) -> None:
        self._step("read", None)
        endpoints, deleted, assets = dict(self.endpoints), dict(self.deleted), dict(self.assets)
        for key, message, id in self._unread:
            if isinstance(message, EndpointDesired):
                endpoints[key] = message
            elif isinstance(message, AssetRegistered):
                assets[key] = message
            else:
                del endpoints[key]
                deleted[key] = id or ""
        self._unread.clear()
        self.endpoints, self.deleted, self.assets = endpoints, deleted, assets

    def _step(self, name: str, id: str | None) -> None:
        if name == self.break_at:
            self.break_at = None
            raise ConnectionError("the log is gone")
        self.done.append((name, id))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def remaining() -> set[str]:
    return set()


class Reads:
    """Logs that say which deployment they are of."""

    def __init__(self) -> None:
        self.asked = 0

    def read(self, command: GetLogs, deployment: DeploymentDesired) -> str:
        self.asked += 1
        if command.instance is not None:
            raise LookupError(f"'{command.instance}' is no instance")
        return f"{command.container} of generation {deployment.generation}"


@pytest.fixture
def reads() -> Reads:
    return Reads()


@pytest.fixture
def handler(log: Log, reads: Reads, tmp_path: Path, remaining: set[str]) -> CommandHandler:
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "artifacts", 1 << 20)
    return CommandHandler(
        log,
        log,
        SourceFiles(store, 1 << 20),
        EnvironmentBuilder(tmp_path / "environments"),
        reads,
        Sealer(tmp_path),
        CATALOG,
        Machine(cores=2, memory_gib=8),
        Quotas(),
        lambda endpoint: endpoint in remaining,
    )


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "score.py").write_text("def init(): ...\n")
    return tmp_path / "src"


def record(command: Message, id: str) -> Record:
    key, value, headers = encode(command, Envelope(id=id, source="test", time=datetime(2026, 11, 1, tzinfo=UTC)))
    return Record("endpoints.commands", 0, 7, key.decode(), value, text_headers(headers))


async def take(handler: CommandHandler, command: Message, id: str) -> None:
    await handler.handle(record(command, id), command)


def put(code: Path, **settings: Any) -> PutDeployment:
    configuration = CodeConfiguration(code=str(code), scoring_script="score.py")
    spec = OnlineDeploymentSpec(code_configuration=configuration, **settings)
    return PutDeployment(endpoint="shop", deployment="blue", spec=spec)


async def test_the_state_is_written_and_read_back_before_the_answer(log: Log, handler: CommandHandler) -> None:
    await take(handler, CREATE, "c1")
    assert log.done == [("EndpointDesired", "c1/state"), ("read", None), ("CommandAccepted", "c1/reply")]
    await take(handler, DeleteEndpoint(endpoint="shop"), "c2")
    assert log.done[3:] == [("tombstone", "c2"), ("read", None), ("CommandAccepted", "c2/reply")]


async def test_keys_are_random_sealed_for_their_purpose_and_told_as_digests(
    log: Log, handler: CommandHandler, tmp_path: Path
) -> None:
    await take(handler, CREATE, "c1")
    keys = log.endpoints["shop"].keys
    assert keys is not None
    primary = Sealer(tmp_path).open(keys.primary.sealed, "shop/primary")
    secondary = Sealer(tmp_path).open(keys.secondary.sealed, "shop/secondary")
    assert primary != secondary
    assert len(primary) == 43
    assert (digest_of(primary), digest_of(secondary)) == (keys.primary.digest, keys.secondary.digest)


@pytest.mark.parametrize("broken", ["EndpointDesired", "read", "CommandAccepted"])
async def test_a_command_that_was_cut_short_is_finished_by_its_replay(
    log: Log, handler: CommandHandler, broken: str
) -> None:
    log.break_at = broken
    with pytest.raises(ConnectionError):
        await take(handler, CREATE, "c1")
    await log.wait_for(Offset("endpoints.desired", 0, 0))  # a restarted reader catches up
    await take(handler, CREATE, "c1")
    assert log.replies == [CommandAccepted(command_id="c1", subject="shop", generation=1)]
    assert [name for name, _ in log.done].count("EndpointDesired") == 1


@pytest.mark.parametrize("broken", ["tombstone", "read", "CommandAccepted"])
async def test_so_is_a_deletion(log: Log, handler: CommandHandler, broken: str) -> None:
    await take(handler, CREATE, "c1")
    log.break_at = broken
    with pytest.raises(ConnectionError):
        await take(handler, DeleteEndpoint(endpoint="shop"), "c2")
    await log.wait_for(Offset("endpoints.desired", 0, 0))
    await take(handler, DeleteEndpoint(endpoint="shop"), "c2")
    assert [type(each) for each in log.replies] == [CommandAccepted, CommandAccepted]
    assert [name for name, _ in log.done].count("tombstone") == 1


async def test_a_deployment_is_stored_as_it_is_now(
    log: Log, handler: CommandHandler, code: Path, tmp_path: Path
) -> None:
    await take(handler, CREATE, "c1")
    await take(handler, put(code, model=AssetReference(path=code.as_uri())), "c2")
    blue = log.endpoints["shop"].deployments["blue"]
    assert blue.model == blue.code
    assert blue.code is not None
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "artifacts", 1 << 20)
    assert store.read(blue.code, "score.py", 1 << 20) == b"def init(): ...\n"


async def test_nothing_is_stored_for_a_command_that_is_refused(
    log: Log, handler: CommandHandler, code: Path, tmp_path: Path
) -> None:
    await take(handler, put(code, instance_type="Moon"), "c1")
    (reply,) = log.replies
    assert isinstance(reply, CommandRejected)
    assert {problem.field for problem in reply.problems} == {"endpoint", "spec.instance_type"}
    assert not (tmp_path / "store" / "blobs").exists()


@pytest.mark.parametrize("as_artifact", [False, True])
async def test_every_trouble_of_an_environment_file_is_told_with_its_line_before_anything_is_written(
    log: Log, handler: CommandHandler, code: Path, tmp_path: Path, as_artifact: bool
) -> None:
    await take(handler, CREATE, "c1")
    file = tmp_path / "conda.yml"
    file.write_text("dependencies:\n  - python=2.7\n  - pip:\n      - numpy==not a version\n")
    reference = str(file)
    if as_artifact:
        artifact = ArtifactStore(str(tmp_path / "store"), tmp_path / "artifacts", 1 << 20).add(file)
        reference = f"artifact:{artifact.digest}/{artifact.name}"
    await take(handler, put(code, environment=EnvironmentReference(conda_file=reference)), "c2")
    await take(handler, RegisterEnvironment(name="sklearn", version="1", path=reference), "c3")
    for reply, field in zip(log.replies[1:], ("spec.environment.conda_file", "path"), strict=True):
        assert isinstance(reply, CommandRejected)
        assert {problem.field for problem in reply.problems} == {field}
        lines = [problem.message.partition(":")[0] for problem in reply.problems]
        assert lines == ["line 2", "line 4"], reply.problems


async def test_a_registered_environment_becomes_part_of_the_deployment(
    log: Log, handler: CommandHandler, code: Path, tmp_path: Path
) -> None:
    (tmp_path / "requirements.txt").write_text("")
    await take(handler, CREATE, "c1")
    path = str(tmp_path / "requirements.txt")
    await take(handler, RegisterEnvironment(name="none", version="1", path=path), "c2")
    await take(handler, put(code, environment=EnvironmentReference(id="azureml:none@latest")), "c3")
    blue = log.endpoints["shop"].deployments["blue"]
    assert blue.environment is not None
    assert blue.environment.artifact == log.assets["environment:none:1"].artifact
    assert isinstance(blue.spec, OnlineDeploymentSpec)
    assert blue.spec.environment == EnvironmentReference(id="azureml:none:1")


async def test_logs_are_sealed_for_who_asked(
    log: Log, handler: CommandHandler, reads: Reads, code: Path, tmp_path: Path
) -> None:
    await take(handler, CREATE, "c1")
    await take(handler, put(code), "c2")
    await take(handler, GetLogs(endpoint="shop", deployment="blue", container="storage-initializer"), "c3")
    reply = log.replies[-1]
    assert isinstance(reply, LogsRead)
    assert reply.subject == "shop/blue"
    assert Sealer(tmp_path).open(reply.sealed, "c3/logs") == "storage-initializer of generation 2"


@pytest.mark.parametrize(
    ("question", "field"),
    [
        (GetLogs(endpoint="ghost", deployment="blue"), "endpoint"),
        (GetLogs(endpoint="shop", deployment="green"), "deployment"),
        (GetLogs(endpoint="shop", deployment="blue", instance="shop-blue-1"), "instance"),
    ],
)
async def test_logs_of_what_is_not_there_are_refused(
    log: Log, handler: CommandHandler, code: Path, question: GetLogs, field: str
) -> None:
    await take(handler, CREATE, "c1")
    await take(handler, put(code), "c2")
    await take(handler, question, "c3")
    reply = log.replies[-1]
    assert isinstance(reply, CommandRejected)
    assert [(problem.code, problem.field) for problem in reply.problems] == [("ResourceNotFound", field)]


async def test_a_question_that_was_seen_before_its_turn_is_answered_once(
    log: Log, handler: CommandHandler, reads: Reads, code: Path
) -> None:
    await take(handler, CREATE, "c1")
    await take(handler, put(code), "c2")
    question = GetLogs(endpoint="shop", deployment="blue")
    handler.hear(record(question, "c3"), question)
    await take(handler, question, "c3")
    assert reads.asked == 1
    assert [reply.TYPE for reply in log.replies] == [CommandAccepted.TYPE, CommandAccepted.TYPE, LogsRead.TYPE]


async def test_a_question_whose_answer_could_not_be_written_is_answered_in_its_turn(
    log: Log, handler: CommandHandler, code: Path
) -> None:
    await take(handler, CREATE, "c1")
    await take(handler, put(code), "c2")
    question = GetLogs(endpoint="shop", deployment="blue")
    log.break_at = "LogsRead"
    with pytest.raises(ConnectionError):
        await take(handler, question, "c3")
    await take(handler, question, "c3")
    assert isinstance(log.replies[-1], LogsRead)


async def test_a_name_is_free_again_when_the_old_endpoint_is_all_gone(
    log: Log, handler: CommandHandler, remaining: set[str]
) -> None:
    remaining.add("shop")
    await take(handler, CREATE, "c1")
    remaining.clear()
    await take(handler, CREATE, "c2")
    first, second = log.replies
    assert isinstance(first, CommandRejected)
    assert first.problems[0].code == "ResourceNotReady"
    assert isinstance(second, CommandAccepted)


async def test_commands_come_through_the_subscriber_and_bad_ones_are_parked_and_answered(
    log: Log, handler: CommandHandler
) -> None:
    broker: KafkaBroker = command_broker(KafkaSettings("localhost:1"))
    stopped: list[BaseException] = []
    letters = DeadLetters(log, "provisioner")  # type: ignore[arg-type]
    handle_commands(
        broker, "endpoints.commands", "provisioner", handler.handle, letters, handler.reject, stopped.append
    )
    async with TestKafkaBroker(broker) as bus, asyncio.timeout(10):

        async def send(value: bytes, **headers: str) -> None:
            await bus.publish(value, "endpoints.commands", key=b"shop", headers=headers)

        await send(CREATE.model_dump_json().encode(), ce_id="good", ce_type=CREATE.TYPE)
        unknown = {"endpoint": "shop", "traffik": {}}
        await send(json.dumps(unknown).encode(), ce_id="bad", ce_type="endpunkt.UpdateEndpoint.v1")
        await send(b"{}")
    assert [reply.command_id for reply in log.replies] == ["good", "bad"]  # type: ignore[attr-defined]
    assert isinstance(log.replies[1], CommandRejected)
    assert [problem.field for problem in log.replies[1].problems] == ["traffik"]
    assert len(log.letters) == 2
    assert not stopped


@pytest.mark.parametrize(
    "settings",
    [
        KafkaSettings("a:1,b:2"),
        KafkaSettings("a:1", "SSL"),
        KafkaSettings("a:1", "SASL_PLAINTEXT", "PLAIN", "u", "p"),
        KafkaSettings("a:1", "SASL_SSL", "SCRAM-SHA-256", "u", "p"),
        KafkaSettings("a:1", "SASL_SSL", "SCRAM-SHA-512", "u", "p"),
    ],
)
def test_commands_are_fetched_from_the_same_kafka_as_everything_else(settings: KafkaSettings) -> None:
    told, expected = command_broker(settings)._connection_kwargs, settings.client()
    assert told["bootstrap_servers"] == expected.pop("bootstrap_servers").split(",")
    assert (told.get("ssl_context") is None) == (expected.pop("ssl_context", None) is None)
    assert {name: told[name] for name in expected} == expected
