"""The log as a database, dead letters and command handlers, against a real broker."""

import asyncio
import base64
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from faststream.kafka import KafkaBroker
from tests.integration.bus import publishing

from contracts.envelope import Envelope, Record, Undecodable, encode
from contracts.log import (
    DeadLetters,
    KafkaSettings,
    ParkingLimit,
    Publisher,
    Reader,
    Table,
    Tail,
    TooManyDeadLetters,
    handle_commands,
)
from contracts.messages import (
    AssetRegistered,
    DeadLetter,
    EndpointDesired,
    LoadSample,
    Message,
    OnlineEndpointSpec,
    UpdateEndpoint,
    UsageRollup,
    Watermark,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 30


def desired(name: str, generation: int) -> EndpointDesired:
    return EndpointDesired(
        endpoint=name, generation=generation, created_at=NOON, updated_at=NOON, spec=OnlineEndpointSpec()
    )


def rollup(deployment: str, requests: int) -> UsageRollup:
    return UsageRollup(
        endpoint="diabetes",
        deployment=deployment,
        hour=NOON,
        quantities={"requests": requests},
        costs={},
        currency="USD",
        sources={"s": Watermark(epoch=1, sequence=requests)},
    )


@asynccontextmanager
async def reading(
    kafka: KafkaSettings, publisher: Publisher, *sinks: Table[EndpointDesired] | Tail
) -> AsyncIterator[Reader]:
    reader = Reader(kafka, sinks, DeadLetters(publisher, "router"))
    await asyncio.wait_for(reader.start(), PATIENCE)
    try:
        yield reader
    finally:
        await reader.stop()


async def test_a_table_holds_the_latest_message_of_each_key_and_forgets_deleted_ones(kafka: KafkaSettings) -> None:
    async with publishing(kafka) as publisher:
        for generation in range(1, 4):
            await publisher.publish(desired("table-one", generation))
        await publisher.publish(desired("table-two", 1))
        await publisher.delete("endpoints.desired", "table-two")
        table = Table(EndpointDesired)
        async with reading(kafka, publisher, table):
            assert table.entries["table-one"].generation == 3
            assert "table-two" not in table.entries


async def test_a_writer_reads_its_own_write_when_it_waits_for_its_offset(kafka: KafkaSettings) -> None:
    changes: list[tuple[str, int]] = []
    table = Table(EndpointDesired, lambda key, now: changes.append((key, now.generation if now else 0)))
    async with publishing(kafka) as publisher, reading(kafka, publisher, table) as reader:
        for generation in range(1, 20):
            await asyncio.wait_for(reader.wait_for(await publisher.publish(desired("own-write", generation))), PATIENCE)
            assert table.entries["own-write"].generation == generation
        deleted = await publisher.delete("endpoints.desired", "own-write")
        await asyncio.wait_for(reader.wait_for(deleted), PATIENCE)
    assert [change for change in changes if change[0] == "own-write"] == [
        *(("own-write", generation) for generation in range(1, 20)),
        ("own-write", 0),
    ]


async def test_a_malformed_record_is_parked_and_the_table_keeps_what_it_had(kafka: KafkaSettings) -> None:
    letters: list[DeadLetter] = []
    arrived = asyncio.Event()

    def take(_: Record, letter: Message) -> None:
        assert isinstance(letter, DeadLetter)
        letters.append(letter)
        arrived.set()

    async with publishing(kafka) as publisher:
        await publisher.publish(desired("malformed", 1))
        async with reading(kafka, publisher, Tail("deadletter.router", take)):
            raw = AIOKafkaProducer(**kafka.client())
            await raw.start()
            sent = await raw.send_and_wait("endpoints.desired", b"{oops", key=b"malformed", headers=[("ce_id", b"x")])
            await raw.stop()
            table = Table(EndpointDesired)
            async with reading(kafka, publisher, table):
                assert table.entries["malformed"].generation == 1
                await asyncio.wait_for(arrived.wait(), PATIENCE)
    [letter] = letters
    assert (letter.topic, letter.partition, letter.offset) == (sent.topic, sent.partition, sent.offset)
    assert base64.b64decode(letter.value_base64) == b"{oops"
    assert "ce_type" in letter.reason


async def test_a_table_is_ready_past_the_marks_of_transactions_and_sees_committed_records_only(
    kafka: KafkaSettings,
) -> None:
    producer = AIOKafkaProducer(**kafka.client(), transactional_id="test.marks")
    await producer.start()

    async def write(message: UsageRollup) -> None:
        key, value, headers = encode(message, Envelope("id", "test"))
        await producer.send_and_wait(message.TOPIC, value, key=key, headers=headers, partition=0)

    async with producer.transaction():
        await write(rollup("committed", 1))
    await producer.begin_transaction()
    await write(rollup("committed", 2))
    await producer.abort_transaction()
    await producer.stop()
    table = Table(UsageRollup)
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [table], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
    assert {key: entry.quantities["requests"] for key, entry in table.entries.items()} == {
        "diabetes/committed/2026-11-01T12Z": 1
    }


def sample(second: int) -> LoadSample:
    return LoadSample(
        endpoint="diabetes", deployment="blue", source="r", at=NOON.replace(second=second),
        requests=second, failures=0, in_flight=0, latency_ms_sum=0, latency_ms_max=0,
    )  # fmt: skip


async def test_a_tail_starts_now_or_at_an_instant(kafka: KafkaSettings) -> None:
    async with publishing(kafka) as publisher:
        await publisher.publish(sample(1))
        instant = datetime.now(UTC)
        second = await publisher.publish(sample(2))
        seen: dict[str, list[int]] = {"since": [], "now": []}

        def take(name: str) -> Tail:
            def on_message(_: Record, message: Message) -> None:
                assert isinstance(message, LoadSample)
                seen[name].append(message.requests)

            return Tail("scaling.signals", on_message, since=instant if name == "since" else None)

        async with reading(kafka, publisher, take("since")) as since, reading(kafka, publisher, take("now")) as now:
            third = await publisher.publish(sample(3))
            assert third.partition == second.partition
            await asyncio.wait_for(since.wait_for(third), PATIENCE)
            await asyncio.wait_for(now.wait_for(third), PATIENCE)
    assert seen == {"since": [2, 3], "now": [3]}


class Handling:
    """A handler that fails as often as it is told, and what reached it."""

    def __init__(self, failures: int = 0):
        self.failures = failures
        self.handled: list[str] = []
        self.undecodable: list[Undecodable] = []
        self.stopped: list[BaseException] = []
        self.changed = asyncio.Condition()

    async def handle(self, record: Record, message: Message) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the dependency is away")
        self.handled.append(record.headers["ce_id"])
        await self._tell()

    async def refuse(self, error: Undecodable) -> None:
        self.undecodable.append(error)
        await self._tell()

    def stop(self, error: BaseException) -> None:
        self.stopped.append(error)

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, handled: int, undecodable: int = 0) -> None:
        async with self.changed:
            enough = lambda: len(self.handled) >= handled and len(self.undecodable) >= undecodable  # noqa: E731
            await asyncio.wait_for(self.changed.wait_for(enough), PATIENCE)


@asynccontextmanager
async def handling(kafka: KafkaSettings, publisher: Publisher, group: str, handling: Handling) -> AsyncIterator[None]:
    broker = KafkaBroker(kafka.bootstrap_servers, graceful_timeout=5)
    letters = DeadLetters(publisher, "provisioner", ParkingLimit(least=3, share=0.1, window=600))
    handle_commands(
        broker,
        "endpoints.commands",
        group,
        handling.handle,
        letters,
        handling.refuse,
        handling.stop,
        retry_seconds=(0.01,),
    )
    await broker.start()
    try:
        yield
    finally:
        await broker.stop()


async def test_commands_of_a_key_are_handled_in_order_and_a_failing_dependency_loses_none(
    kafka: KafkaSettings,
) -> None:
    async with publishing(kafka) as publisher:
        for number in range(10):
            await publisher.publish(UpdateEndpoint(endpoint="in-order"), id=f"in-order-{number}")
        work = Handling(failures=5)
        async with handling(kafka, publisher, "in-order", work):
            await work.until(10)
    assert [id for id in work.handled if id.startswith("in-order")] == [f"in-order-{number}" for number in range(10)]


async def test_a_malformed_command_is_parked_its_sender_told_and_the_next_one_handled(kafka: KafkaSettings) -> None:
    async with publishing(kafka) as publisher:
        raw = AIOKafkaProducer(**kafka.client())
        await raw.start()
        headers = [("ce_type", UpdateEndpoint.TYPE.encode()), ("ce_id", b"bad-one")]
        value = b'{"endpoint": "x", "trafic": {}, "tags": 5}'
        await raw.send_and_wait("endpoints.commands", value, key=b"next-one", headers=headers)
        await raw.stop()
        await publisher.publish(UpdateEndpoint(endpoint="next-one"), id="next-one")
        work = Handling()
        async with handling(kafka, publisher, "malformed", work):
            await work.until(1, undecodable=1)
            while "next-one" not in work.handled:
                await work.until(len(work.handled) + 1)
    [error] = work.undecodable
    assert error.id == "bad-one"
    assert {problem.field for problem in error.problems} == {"endpoint", "trafic", "tags"}


async def test_a_command_that_no_waiting_helps_is_parked_and_the_next_one_handled(kafka: KafkaSettings) -> None:
    class Poisoned(Handling):
        async def handle(self, record: Record, message: Message) -> None:
            if record.headers["ce_id"] == "poison":
                raise ValueError("a bug of the handler")
            await super().handle(record, message)

    async with publishing(kafka) as publisher:
        await publisher.publish(UpdateEndpoint(endpoint="poisoned"), id="poison")
        await publisher.publish(UpdateEndpoint(endpoint="poisoned"), id="after-poison")
        work = Poisoned()
        async with handling(kafka, publisher, "poisoned", work):
            while "after-poison" not in work.handled:
                await work.until(len(work.handled) + 1)
    [told] = [error for error in work.undecodable if error.id == "poison"]
    assert "a bug of the handler" in told.problems[0].message


CRASHING_HANDLER = """
import asyncio, os, signal, sys
from faststream.kafka import KafkaBroker
from contracts.log import DeadLetters, KafkaSettings, Publisher, handle_commands

async def main():
    kafka = KafkaSettings(sys.argv[1])
    publisher = Publisher(kafka, "test")
    await publisher.start()
    broker = KafkaBroker(kafka.bootstrap_servers)

    async def handle(record, message):
        if record.headers["ce_id"].startswith("crash"):
            print(record.headers["ce_id"], flush=True)
            if record.headers["ce_id"] == sys.argv[2]:
                os.kill(os.getpid(), signal.SIGKILL)
            if record.headers["ce_id"] == "crash-3":
                os._exit(0)

    async def refuse(error):
        pass

    letters = DeadLetters(publisher, "provisioner")
    handle_commands(broker, "endpoints.commands", "crashing", handle, letters, refuse, print)
    await broker.start()
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_handler_that_is_killed_is_given_the_command_again_and_none_is_lost(kafka: KafkaSettings) -> None:
    async with publishing(kafka) as publisher:
        for number in range(4):
            await publisher.publish(UpdateEndpoint(endpoint="crashing"), id=f"crash-{number}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    runs = []
    for dies_at in ("crash-1", "none"):
        command = [sys.executable, "-c", CRASHING_HANDLER, kafka.bootstrap_servers, dies_at]
        run = await asyncio.to_thread(
            subprocess.run, command, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        runs.append((run.returncode, [line for line in run.stdout.splitlines() if line.startswith("crash-")]))
    assert runs[0] == (-signal.SIGKILL, ["crash-0", "crash-1"])
    assert runs[1] == (0, ["crash-1", "crash-2", "crash-3"])


async def test_a_reader_that_can_read_almost_nothing_stops(kafka: KafkaSettings) -> None:
    async with publishing(kafka) as publisher:
        raw = AIOKafkaProducer(**kafka.client())
        await raw.start()
        for _ in range(3):
            await raw.send_and_wait("assets.registered", b"nonsense", key=b"model:a:1")
        await raw.stop()
        letters = DeadLetters(publisher, "provisioner", ParkingLimit(least=3))
        reader = Reader(kafka, [Table(AssetRegistered)], letters)
        with pytest.raises(TooManyDeadLetters, match=r"deadletter\.provisioner"):
            await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
