"""The transactional processor against a real broker: killed at each point, overtaken while it stood still, refused.

Its ledger here only adds up, with no watermark to forgive a repeated record: a total is exact when each record was
processed exactly once. This file is also the worker that is killed: python test_contracts_processor.py ADDRESS GROUP
POINT.
"""

import asyncio
import itertools
import logging
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata
from tests.integration.bus import publishing

from contracts.envelope import Record, Undecodable
from contracts.log import DeadLetters, KafkaSettings, Processor, Reader, Table, Tail
from contracts.messages import DeadLetter, Message, Problem, UsageRecorded, UsageRollup
from contracts.topics import topics

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 60
SOURCE, STATE = UsageRecorded.TOPIC, UsageRollup.TOPIC
PARTITIONS = [TopicPartition(SOURCE, number) for number in range(topics()[SOURCE].partitions)]
DEPLOYMENTS = tuple(f"blue-{number}" for number in range(8))


class Sums:
    """Adds up the requests of one endpoint's deployments. It parks what it is told to and passes all others by."""

    def __init__(self, endpoint: str):
        self.endpoint = endpoint
        self.totals: Counter[str] = Counter()

    def restore(self, message: Message) -> None:
        assert isinstance(message, UsageRollup)
        if message.endpoint == self.endpoint:
            self.totals[message.deployment] = message.quantities["requests"]

    def forget(self, key: str) -> None:
        raise AssertionError("nothing is deleted here")

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message | Undecodable]:
        touched: dict[str, None] = {}
        refused: list[Undecodable] = []
        for record, event in batch:
            assert isinstance(event, UsageRecorded)
            if event.endpoint != self.endpoint:
                continue
            if event.source == "unwelcome":
                problem = Problem(code="BadArgument", field="source", message="is unwelcome")
                refused.append(Undecodable(record, (problem,)))
                continue
            self.totals[event.deployment] += event.quantities["requests"]
            touched[event.deployment] = None
        return [*(rollup(self.endpoint, name, self.totals[name]) for name in touched), *refused]


def rollup(endpoint: str, deployment: str, requests: int, meter: str = "requests") -> UsageRollup:
    return UsageRollup(
        endpoint=endpoint,
        deployment=deployment,
        hour=NOON,
        quantities={meter: requests},
        costs={},
        currency="USD",
        sources={},
    )


def used(endpoint: str, number: int, source: str = "test") -> UsageRecorded:
    return UsageRecorded(
        source=source,
        epoch=1,
        sequence=number + 1,
        endpoint=endpoint,
        deployment=DEPLOYMENTS[number % len(DEPLOYMENTS)],
        started_at=NOON,
        ended_at=NOON,
        quantities={"requests": number + 1},
    )


def totals(numbers: Sequence[int]) -> dict[str, int]:
    """What the records of `numbers` add up to."""
    sums: Counter[str] = Counter()
    for number in numbers:
        sums[DEPLOYMENTS[number % len(DEPLOYMENTS)]] += number + 1
    return dict(sums)


async def publish(kafka: KafkaSettings, endpoint: str, numbers: Sequence[int], source: str = "test") -> None:
    async with publishing(kafka) as publisher:
        await asyncio.gather(*[await publisher.send(used(endpoint, number, source)) for number in numbers])


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - what other processes do sets no event here
            await asyncio.sleep(0.05)


async def until_processed(kafka: KafkaSettings, group: str) -> None:
    """Wait until the group has committed every record that is in the log now."""
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(PARTITIONS)

        async def processed() -> bool:
            return all([(await consumer.committed(at) or 0) >= ends[at] for at in PARTITIONS])

        await until(processed)
    finally:
        await consumer.stop()


async def written(kafka: KafkaSettings, endpoint: str) -> dict[str, int]:
    """The totals that are committed on the state topic."""
    table = Table(UsageRollup)
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [table], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
    return {
        entry.deployment: entry.quantities["requests"] for entry in table.entries.values() if entry.endpoint == endpoint
    }


async def dead_letters(kafka: KafkaSettings, endpoint: str) -> list[DeadLetter]:
    """The committed dead letters of records with `endpoint` in their key."""
    letters = []

    def take(_: Record, letter: Message) -> None:
        assert isinstance(letter, DeadLetter)
        if letter.record_key is not None and letter.record_key.startswith(f"{endpoint}/"):
            letters.append(letter)

    tail = Tail("deadletter.metering", take, since=datetime.fromtimestamp(0, UTC))
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [tail], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
    return letters


# A worker in a process of its own


async def work(kafka: KafkaSettings, group: str, point: str) -> None:
    """Process until told to stop. At `point` of the second transaction: a signal to itself."""
    transactions = 0

    class Deadly(AIOKafkaProducer):  # type: ignore[misc]
        async def begin_transaction(self) -> None:
            nonlocal transactions
            await super().begin_transaction()
            transactions += 1
            self._meet("begun")

        async def commit_transaction(self) -> None:
            await self.flush()
            self._meet("written")
            await super().commit_transaction()
            self._meet("committed")

        def _meet(self, now: str) -> None:
            if transactions == 2 and point in (now, f"stop-{now}"):
                os.kill(os.getpid(), signal.SIGSTOP if point.startswith("stop-") else signal.SIGKILL)

    if point != "none":
        sys.modules["contracts.log.processor"].AIOKafkaProducer = Deadly  # type: ignore[attr-defined]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with publishing(kafka) as publisher:
        letters = DeadLetters(publisher, "metering")
        await Processor(kafka, group, SOURCE, STATE, lambda _: Sums(group), letters).run(stop)


class Worker:
    """The process, with its log."""

    def __init__(self, kafka: KafkaSettings, group: str, point: str, log: Path):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])  # it runs this file, which imports its neighbours
        self.log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, __file__, kafka.bootstrap_servers, group, point],
                env=environment, stdout=output, stderr=output,
            )  # fmt: skip

    async def until_signal(self, number: signal.Signals) -> None:
        """Wait until it was killed or stopped by `number`."""
        if number is signal.SIGSTOP:
            status = Path(f"/proc/{self.process.pid}/stat")

            async def stopped() -> bool:
                return (await asyncio.to_thread(status.read_text)).rsplit(")", 1)[1].split()[0] == "T"

            await until(stopped)
        else:
            assert await asyncio.to_thread(self.process.wait, PATIENCE) == -number

    async def until_logged(self, text: str) -> None:
        async def logged() -> bool:
            return text in self.log.read_text()

        await until(logged)


Start = Callable[..., Worker]


@pytest.fixture
def start_worker(kafka: KafkaSettings, tmp_path: Path) -> Iterator[Start]:
    workers: list[Worker] = []

    def start(group: str, point: str = "none") -> Worker:
        workers.append(Worker(kafka, group, point, tmp_path / f"{len(workers)}.log"))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.poll() is None:
            worker.process.kill()
            worker.process.wait()


@pytest.mark.parametrize("point", ["begun", "written", "committed"])
async def test_a_processor_that_is_killed_has_processed_each_record_exactly_once(
    kafka: KafkaSettings, start_worker: Start, point: str
) -> None:
    group = f"killed-{point}"
    await publish(kafka, group, range(100))
    await publish(kafka, group, range(5), source="unwelcome")
    await start_worker(group, point).until_signal(signal.SIGKILL)
    await publish(kafka, group, range(100, 150))
    start_worker(group)
    await until_processed(kafka, group)
    assert await written(kafka, group) == totals(range(150))
    letters = await dead_letters(kafka, group)
    assert len(letters) == len({letter.key() for letter in letters}) == 5


async def test_a_processor_that_was_overtaken_while_it_stood_still_is_fenced_and_joins_again(
    kafka: KafkaSettings, start_worker: Start
) -> None:
    group = "zombie"
    await publish(kafka, group, range(100))
    zombie = start_worker(group, "stop-written")
    await zombie.until_signal(signal.SIGSTOP)
    heir = start_worker(group)
    await until_processed(kafka, group)
    await publish(kafka, group, range(100, 120))
    await until_processed(kafka, group)
    assert await written(kafka, group) == totals(range(120))

    zombie.process.send_signal(signal.SIGCONT)
    await zombie.until_logged("gave up a transaction")
    heir.process.send_signal(signal.SIGKILL)
    await publish(kafka, group, range(120, 150))
    await until_processed(kafka, group)
    assert await written(kafka, group) == totals(range(150))
    assert zombie.process.poll() is None


# Processors in this process


@asynccontextmanager
async def processing(kafka: KafkaSettings, group: str, ledger: Callable[[], Sums] | None = None) -> AsyncIterator[None]:
    stop = asyncio.Event()
    async with publishing(kafka) as publisher:
        letters = DeadLetters(publisher, "metering")
        processor = Processor(kafka, group, SOURCE, STATE, lambda _: (ledger or (lambda: Sums(group)))(), letters)
        run = asyncio.create_task(processor.run(stop))
        owned = asyncio.create_task(processor.owned.wait())
        await asyncio.wait({run, owned}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        try:
            yield
        finally:
            owned.cancel()
            stop.set()
            await asyncio.wait_for(run, PATIENCE)


async def test_members_that_come_and_go_under_load_leave_the_sums_exact(kafka: KafkaSettings) -> None:
    group = "moving"
    await publish(kafka, group, range(50))
    numbers = itertools.count(50)
    moved = asyncio.Event()

    async def load() -> int:
        async with publishing(kafka) as publisher:
            while not moved.is_set():
                await publisher.publish(used(group, next(numbers)))
        return next(numbers)

    async with processing(kafka, group):
        loading = asyncio.create_task(load())
        for _ in range(4):
            async with processing(kafka, group):
                pass
        moved.set()
        published = await loading
        await until_processed(kafka, group)
    assert await written(kafka, group) == totals(range(published))


async def test_a_write_that_the_broker_refuses_takes_the_whole_transaction_back(
    kafka: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    group = "refused"
    refusals = iter([True])

    class Refused(Sums):
        def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message | Undecodable]:
            results = super().process(batch, now)
            refused = next(refusals, False) if results else False
            if refused:
                results.append(rollup(self.endpoint, DEPLOYMENTS[0], 0, "x" * 200_000))
            return results

    admin = AIOKafkaAdminClient(**kafka.client())
    await admin.start()
    limited = topics()[STATE].config() | {"max.message.bytes": "100000"}
    await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, STATE, configs=limited)])
    await admin.close()
    await publish(kafka, group, range(20))
    with caplog.at_level(logging.WARNING):
        async with processing(kafka, group, lambda: Refused(group)):
            await until_processed(kafka, group)
    assert not list(refusals)
    assert "gave up a transaction" in caplog.text
    assert await written(kafka, group) == totals(range(20))


async def test_what_is_malformed_or_on_another_keys_partition_is_parked_and_the_others_go_on(
    kafka: KafkaSettings,
) -> None:
    group = "malformed"
    async with publishing(kafka) as publisher:
        good = await publisher.publish(used(group, 0))
        raw = AIOKafkaProducer(**kafka.client())
        await raw.start()
        monster = [("ce_type", b"\x01" * 300_000), *((f"h{number}", b"\x02" * 3000) for number in range(100))]
        await raw.send_and_wait(
            SOURCE, b"\xff" * 100_000, key=f"{group}/{DEPLOYMENTS[0]}".encode(), headers=monster, partition=0
        )
        await raw.stop()
        await publisher.publish(used(group, 8), partition=(good.partition + 1) % len(PARTITIONS))
        await publisher.publish(used(group, 16))
        async with processing(kafka, group):
            await until_processed(kafka, group)
    assert await written(kafka, group) == totals([0, 16])
    reasons = [letter.reason for letter in await dead_letters(kafka, group)]
    assert len(reasons) == 2
    assert any("is not a message of usage.events" in reason for reason in reasons)
    assert any(f"belongs on partition {good.partition}" in reason for reason in reasons)


async def test_nonsense_among_the_state_is_parked_and_does_not_keep_it_from_starting(kafka: KafkaSettings) -> None:
    group = "nonsense"
    await publish(kafka, group, range(8))
    async with processing(kafka, group):
        await until_processed(kafka, group)
    raw = AIOKafkaProducer(**kafka.client())
    await raw.start()
    for partition in PARTITIONS:
        await raw.send_and_wait(
            STATE, b"{", key=f"{group}/{partition.partition}".encode(), partition=partition.partition
        )
    await raw.stop()
    await publish(kafka, group, range(8, 16))
    async with processing(kafka, group):
        await until_processed(kafka, group)
    assert await written(kafka, group) == totals(range(16))
    assert {letter.topic for letter in await dead_letters(kafka, group)} == {STATE}


async def test_a_committed_offset_that_the_log_does_not_reach_is_told_and_the_log_is_read_from_its_beginning(
    kafka: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    group = "other-log"
    await publish(kafka, group, range(8))
    consumer = AIOKafkaConsumer(**kafka.client(), group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(PARTITIONS)
    await consumer.commit({at: OffsetAndMetadata(1_000_000, "") for at in PARTITIONS})
    await consumer.stop()
    async with processing(kafka, group):

        async def as_expected() -> bool:
            return await written(kafka, group) == totals(range(8))

        await until(as_expected)
    assert "records are lost" in caplog.text


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(work(KafkaSettings(sys.argv[1]), *sys.argv[2:]))
