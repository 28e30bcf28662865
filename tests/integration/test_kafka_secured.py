"""A Kafka that asks for TLS and a password: all that talks to it does so by the same environment, or says why not.

One broker, with a SASL_SSL listener beside the plain one, a certificate of an authority of ours, and one user.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka.errors import KafkaConnectionError
from tests.integration.bus import publishing

from contracts.envelope import Record, Undecodable
from contracts.log import (
    DeadLetters,
    KafkaSettings,
    KafkaSettingsError,
    Processor,
    Publisher,
    Reader,
    Table,
    command_broker,
    handle_commands,
)
from contracts.messages import (
    EndpointDesired,
    Message,
    OnlineEndpointSpec,
    UpdateEndpoint,
    UsageRecorded,
    UsageRollup,
)
from contracts.shell.tls import ca_path, server_context
from endpunkt_infra.kafka import KafkaUnavailableError, address
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.kafka.ports import HOST, free_port
from endpunkt_infra.services import ServiceProcess
from endpunkt_infra.topics import make_topics

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 30
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
USER, PASSWORD = "endpunkt", "open sesame"
MODULES = "org.apache.kafka.common.security"

Environment = dict[str, str]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """What a person would set to reach the broker."""
    home = tmp_path_factory.mktemp("secured")
    server_context(home, "kafka", [HOST])
    listener = "listener.name.sasl_ssl"
    scram = f"{MODULES}.scram.ScramLoginModule required;"
    port = free_port()
    broker = Broker(
        home / "kafka",
        secured={"SASL_SSL": port},
        properties={
            f"{listener}.ssl.keystore.type": "PEM",
            f"{listener}.ssl.keystore.location": str(home / "tls" / "kafka.pem"),
            f"{listener}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"{listener}.plain.sasl.jaas.config": (
                f'{MODULES}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
            ),
            f"{listener}.scram-sha-256.sasl.jaas.config": scram,
            f"{listener}.scram-sha-512.sasl.jaas.config": scram,
        },
        format_options=[
            option
            for mechanism in MECHANISMS[1:]
            for option in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ],
    )
    broker.start()
    try:
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": f"{HOST}:{port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_USERNAME": USER,
            "KAFKA_SASL_PASSWORD": PASSWORD,
            "KAFKA_SSL_CAFILE": str(ca_path(home)),
        }
    finally:
        broker.stop()


@pytest.fixture(params=MECHANISMS)
def kafka(environment: Environment, request: pytest.FixtureRequest) -> KafkaSettings:
    return KafkaSettings.from_environment(environment | {"KAFKA_SASL_MECHANISM": request.param})


async def until_it_holds(kafka: KafkaSettings, table: Table[UsageRollup], key: str, publisher: Publisher) -> None:
    """Follow the table until it has `key`."""
    there = asyncio.Event()

    async def look() -> None:
        if key in table.entries:
            there.set()

    reader = Reader(kafka, [table], DeadLetters(publisher, "studio"), on_batch=look)
    await asyncio.wait_for(reader.start(), PATIENCE)
    try:
        await look()
        await asyncio.wait_for(there.wait(), PATIENCE)
    finally:
        await reader.stop()


async def test_topics_are_made(kafka: KafkaSettings) -> None:
    await make_topics(kafka)
    assert await make_topics(kafka) == []


async def test_a_published_message_is_in_a_readers_table(kafka: KafkaSettings) -> None:
    await make_topics(kafka)
    spec = OnlineEndpointSpec(description=f"by {kafka.sasl_mechanism}")
    desired = EndpointDesired(endpoint="read", generation=1, created_at=NOON, updated_at=NOON, spec=spec)
    table = Table(EndpointDesired)
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [table], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        written = await publisher.publish(desired)
        await asyncio.wait_for(reader.wait_for(written), PATIENCE)
        await asyncio.wait_for(reader.catch_up(), PATIENCE)
        await reader.stop()
    assert table.entries == {"read": desired}


async def test_a_command_is_handled(kafka: KafkaSettings) -> None:
    await make_topics(kafka)
    command = UpdateEndpoint(endpoint=f"told-by-{kafka.sasl_mechanism.lower()}")
    group = f"handler-{kafka.sasl_mechanism}"
    handled: asyncio.Queue[object] = asyncio.Queue()

    async def handle(_: Record, message: Message) -> None:
        await handled.put(message)

    async def refuse(error: Undecodable) -> None:
        raise AssertionError(error)

    async with publishing(kafka) as publisher:
        broker = command_broker(kafka)
        letters = DeadLetters(publisher, "provisioner")
        handle_commands(broker, command.TOPIC, group, handle, letters, refuse, handled.put_nowait)
        await broker.start()
        try:
            await publisher.publish(command)
            async with asyncio.timeout(PATIENCE):
                while await handled.get() != command:  # those of the mechanisms before
                    continue
        finally:
            await broker.stop()


class Counts:
    """The requests of each endpoint."""

    def __init__(self) -> None:
        self.requests: dict[str, int] = {}

    def restore(self, message: Message) -> None:
        assert isinstance(message, UsageRollup)
        self.requests[message.endpoint] = message.quantities["requests"]

    def forget(self, key: str) -> None:
        raise AssertionError("nothing is deleted here")

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message | Undecodable]:
        for _, event in batch:
            assert isinstance(event, UsageRecorded)
            self.requests[event.endpoint] = self.requests.get(event.endpoint, 0) + event.quantities["requests"]
        return [
            UsageRollup(
                endpoint=endpoint, deployment="blue", hour=NOON, quantities={"requests": requests}, costs={},
                currency="USD", sources={},
            )
            for endpoint, requests in self.requests.items()
        ]  # fmt: skip


async def test_a_transaction_is_processed(kafka: KafkaSettings) -> None:
    await make_topics(kafka)
    endpoint = f"sums-{kafka.sasl_mechanism.lower()}"
    used = UsageRecorded(
        source="test", epoch=1, sequence=1, endpoint=endpoint, deployment="blue", started_at=NOON, ended_at=NOON,
        quantities={"requests": 7},
    )  # fmt: skip
    table = Table(UsageRollup)
    stop = asyncio.Event()
    async with publishing(kafka) as publisher:
        await publisher.publish(used)
        letters = DeadLetters(publisher, "metering")
        processor = Processor(kafka, endpoint, used.TOPIC, UsageRollup.TOPIC, lambda _: Counts(), letters)
        run = asyncio.create_task(processor.run(stop))
        await until_it_holds(kafka, table, f"{endpoint}/blue/2026-11-01T12Z", publisher)
        stop.set()
        await asyncio.wait_for(run, PATIENCE)
    assert table.entries[f"{endpoint}/blue/2026-11-01T12Z"].quantities == {"requests": 7}


# What is wrong is said


def foreign_authority(folder: Path) -> str:
    server_context(folder, "other", [HOST])
    return str(ca_path(folder))


WRONG: dict[str, tuple[Callable[[Path], Environment], str]] = {
    "password": (lambda _: {"KAFKA_SASL_PASSWORD": "sesame"}, "Invalid username or password"),
    "user": (lambda _: {"KAFKA_SASL_USERNAME": "mallory"}, "Invalid username or password"),
    "scram password": (
        lambda _: {"KAFKA_SASL_PASSWORD": "sesame", "KAFKA_SASL_MECHANISM": "SCRAM-SHA-512"},
        "invalid credentials with SASL mechanism SCRAM-SHA-512",
    ),
    "authority": (lambda folder: {"KAFKA_SSL_CAFILE": foreign_authority(folder)}, "certificate verify failed"),
    "no TLS": (lambda _: {"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "by PLAINTEXT: .* closed"),
    "no SASL": (lambda _: {"KAFKA_SECURITY_PROTOCOL": "SSL"}, "by SSL: connects, but tells nothing"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_client_that_is_not_let_in_says_why_and_what_to_correct(
    environment: Environment, tmp_path: Path, what: str
) -> None:
    change, reason = WRONG[what]
    kafka = KafkaSettings.from_environment(environment | change(tmp_path))
    publisher = Publisher(kafka, "test")
    with pytest.raises(KafkaConnectionError, match=f"{HOST}:.*{reason}.*Correct KAFKA_") as told:
        await publisher.start()
    await publisher.stop()
    assert "sesame" not in str(told.value)


def test_make_up_says_why_it_is_not_let_in(environment: Environment) -> None:
    assert address.external(environment) == KafkaSettings.from_environment(environment)
    with pytest.raises(KafkaUnavailableError, match=r"does not let us in: .*Invalid username or password"):
        address.external(environment | {"KAFKA_SASL_PASSWORD": "sesame"})


@pytest.mark.parametrize("what", ["password", "authority"])
def test_a_process_ends_with_the_reason_in_its_log(environment: Environment, tmp_path: Path, what: str) -> None:
    change, reason = WRONG[what]
    environment = environment | change(tmp_path)
    command = [sys.executable, "-m", "endpunkt_infra.topics"]
    topics_made = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert topics_made.returncode == 1
    assert reason in topics_made.stderr
    service = ServiceProcess("metering", tmp_path, environment)
    service.start()
    assert service.process is not None
    assert service.process.wait(PATIENCE) == 1
    assert reason in service.log.read_text()
    assert "sesame" not in topics_made.stderr + service.log.read_text()


@pytest.mark.parametrize("content", [None, "", "no certificate"])
def test_a_file_that_holds_no_authority_is_named(environment: Environment, tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(KafkaSettingsError, match=f"KAFKA_SSL_CAFILE is '{file}'"):
        KafkaSettings.from_environment(environment | {"KAFKA_SSL_CAFILE": str(file)})
