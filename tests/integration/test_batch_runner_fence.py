"""How a job's document is written: by the owner of its partition, in turns with the commands, and by nobody else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer

from batch_runner.ledger import JobLedger
from batch_runner.lifecycle import IllegalEventError
from contracts.log import DeadLetters, KafkaSettings, NotHeldError, Processor, Publisher, Reader, Table
from contracts.messages import BatchInput, BatchJob, CancelBatchJob, StartBatchJob

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 60


class Owner:
    """A processor of batch.commands in this process, and what the log says of jobs."""

    def __init__(self, kafka: KafkaSettings, publisher: Publisher):
        self.changed = asyncio.Condition()
        self.table = Table(BatchJob)
        self.publisher = publisher
        letters = DeadLetters(publisher, "batch-runner")
        self.reader = Reader(kafka, [self.table], letters)
        self.processor = Processor(
            kafka,
            "batch-runner",
            "batch.commands",
            "batch.jobs",
            lambda partition: JobLedger(),
            letters,
            strict=True,
            on_change=lambda: self.tasks.add(asyncio.ensure_future(self._tell())),
        )
        self.tasks: set[asyncio.Future[None]] = set()

    async def _tell(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(condition), PATIENCE)

    async def start(self, job: str) -> int:
        """Start a job; returns its partition, once it is in the ledger and its transaction has ended."""
        command = StartBatchJob(job=job, endpoint="diabetes", input=BatchInput(uri="file:///data"))
        partition = (await self.publisher.publish(command)).partition
        await self.settled(partition, lambda: self.known(partition, job) is not None)
        return partition

    async def settled(self, partition: int, condition: Callable[[], bool]) -> None:
        """Wait until the ledger says so and the log too: memory is ahead until the transaction has ended."""
        await self.until(condition)
        await self.processor.commit(partition, lambda ledger: [])  # has its turn after that transaction

    def known(self, partition: int, job: str) -> BatchJob | None:
        ledger = self.processor.ledgers.get(partition)
        return ledger.open.get(job) if ledger else None

    async def written(self, job: str) -> BatchJob:
        await self.reader.catch_up()
        return self.table.entries[job]


@asynccontextmanager
async def owning(kafka: KafkaSettings) -> AsyncIterator[Owner]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    owner = Owner(kafka, publisher)
    await owner.reader.start()
    stop = asyncio.Event()
    running = asyncio.create_task(owner.processor.run(stop))
    await asyncio.wait_for(owner.processor.owned.wait(), PATIENCE)
    try:
        yield owner
    finally:
        stop.set()
        await running
        await owner.reader.stop()
        await publisher.stop()


async def test_reports_and_commands_of_a_job_take_turns_and_neither_is_lost(kafka: KafkaSettings) -> None:
    async with owning(kafka) as owner:
        partition = await owner.start("turns")
        await owner.processor.commit(partition, lambda ledger: [ledger.report("turns", NOON, "begin")])

        async def report(number: int) -> None:
            await owner.processor.commit(
                partition, lambda ledger: [ledger.report("turns", NOON, None, rows=ledger.open["turns"].rows + number)]
            )

        canceling = asyncio.create_task(owner.publisher.publish(CancelBatchJob(job="turns")))
        await asyncio.gather(*(report(number) for number in range(1, 51)), canceling)
        await owner.settled(
            partition, lambda: (one := owner.known(partition, "turns")) is not None and one.status == "CancelRequested"
        )
        document = await owner.written("turns")
        assert (document.status, document.rows) == ("CancelRequested", sum(range(1, 51)))
    async with owning(kafka) as owner:
        await owner.until(lambda: owner.known(partition, "turns") == document)


async def test_a_report_that_is_refused_by_the_ledger_changes_nothing_and_the_partition_is_kept(
    kafka: KafkaSettings,
) -> None:
    async with owning(kafka) as owner:
        partition = await owner.start("refused")
        ledger = owner.processor.ledgers[partition]
        with pytest.raises(IllegalEventError):
            await owner.processor.commit(partition, lambda ledger: [ledger.report("refused", NOON, "complete")])
        await owner.processor.commit(partition, lambda ledger: [ledger.report("refused", NOON, "begin")])
        assert owner.processor.ledgers[partition] is ledger
        assert (await owner.written("refused")).status == "Provisioning"


async def test_what_a_fenced_owner_reports_is_not_written_and_it_goes_on_from_the_log(kafka: KafkaSettings) -> None:
    async with owning(kafka) as owner:
        partition = await owner.start("fenced")
        ledger = owner.processor.ledgers[partition]
        successor = AIOKafkaProducer(**kafka.client(), transactional_id=f"batch-runner.batch.commands.{partition}")
        await successor.start()
        await successor.stop()
        with pytest.raises(NotHeldError, match="was given up"):
            await owner.processor.commit(partition, lambda ledger: [ledger.report("fenced", NOON, "begin")])
        assert (await owner.written("fenced")).status == "Queued"
        await owner.until(lambda: owner.known(partition, "fenced") is not None)
        assert owner.processor.ledgers[partition] is not ledger
        assert owner.known(partition, "fenced") == await owner.written("fenced")
        await owner.processor.commit(partition, lambda ledger: [ledger.report("fenced", NOON, "begin")])
        assert (await owner.written("fenced")).status == "Provisioning"


async def test_nothing_is_written_for_a_partition_that_is_not_held(kafka: KafkaSettings) -> None:
    async with owning(kafka) as owner:
        with pytest.raises(NotHeldError, match="not held"):
            await owner.processor.commit(99, lambda ledger: [])
        processor = owner.processor
    with pytest.raises(NotHeldError, match="not held"):
        await processor.commit(0, lambda ledger: [])


async def test_a_commit_that_nobody_waits_for_any_more_is_brought_to_its_end(kafka: KafkaSettings) -> None:
    async with owning(kafka) as owner:
        partition = await owner.start("dropped")
        began = asyncio.Event()

        def begin(ledger: JobLedger) -> list[BatchJob]:
            began.set()
            return [ledger.report("dropped", NOON, "begin")]

        committing = asyncio.create_task(owner.processor.commit(partition, begin))
        await began.wait()
        committing.cancel()
        await asyncio.wait({committing})
        assert committing.cancelled()
        await owner.processor.commit(partition, lambda ledger: [ledger.report("dropped", NOON, "ready")])
        assert (await owner.written("dropped")).status == "Running"
