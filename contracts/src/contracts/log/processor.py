"""Consume, transform, produce: exactly once, a partition at a time.

For state that accumulates (metering's sums, the batch ledger), where a replay or a lost record cannot heal itself.
Each partition of the source topic has its own transactional producer, `{service}.{topic}.{partition}`: outputs, state
and the source offset are one transaction, and a new owner's first act fences the old one. The state is itself messages,
kept on the partition of `state_topic` with the same number, and is read back whenever a partition is taken.

The consumer group only says who should own a partition; the fence says who does. So no rebalance callback is needed:
the loop compares the assignment with the partitions it holds (aiokafka calls no `on_partitions_revoked` before `stop`,
and waiting in one for a lock that the loop holds deadlocks).
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError, ProducerFenced
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import OffsetAndMetadata

from contracts.envelope import Envelope, Record, Undecodable, decode, encode
from contracts.log.deadletter import DeadLetters
from contracts.log.records import record_of
from contracts.log.settings import GROUP_SESSION, KafkaSettings
from contracts.log.table import FETCH_WAIT_MS
from contracts.log.tracing import continued, current_traceparent
from contracts.messages import Message, Problem
from contracts.topics import dead_letter_topic, topics

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class Ledger(Protocol):
    """The state of one partition. It is dropped when a transaction fails, so it may change freely while it works."""

    def restore(self, message: Message) -> None:
        """Take one message of the state topic, oldest first."""

    def forget(self, key: str) -> None:
        """Take one deletion of the state topic."""

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> Sequence[Message]:
        """The messages to write for `batch`: those for the state topic are the new state, others are outputs."""


L = TypeVar("L", bound=Ledger)


class NotHeldError(RuntimeError):
    """A partition is not, or no longer, this process's: nothing was written, or what became of it must be read back."""


class Processor(Generic[L]):
    """Runs `make_ledger(partition)` over each partition of `source` that the group gives to this process.

    With `strict`, for commands that people write, unknown fields and a partition that is not the key's are mistakes:
    such a record is parked. `on_change` is called when a partition was taken or dropped and after each transaction.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        service: str,
        source: str,
        state_topic: str,
        make_ledger: Callable[[int], L],
        dead_letters: DeadLetters,
        *,
        strict: bool = False,
        on_change: Callable[[], None] = lambda: None,
    ):
        if topics()[source].partitions != topics()[state_topic].partitions:
            raise ValueError(f"{state_topic} must have as many partitions as {source}: see contracts/topics.yaml")
        self._settings = settings
        self._service = service
        self._source = source
        self._state_topic = state_topic
        self._make_ledger = make_ledger
        self._dead_letters = dead_letters
        self._strict = strict
        self._on_change = on_change
        self._held: dict[TopicPartition, _Held[L]] = {}
        self.owned = asyncio.Event()
        """Set while this process holds at least one partition, restored and at work."""

    @property
    def ledgers(self) -> dict[int, L]:
        """The states of the partitions that are held, to be read; a partition that was lost and taken again has a new
        one. They change by `commit` only."""
        return {partition.partition: held.ledger for partition, held in self._held.items()}

    async def commit(self, partition: int, change: Callable[[L], Sequence[Message]]) -> None:
        """Between two batches, change a held partition's state: `change` works as `Ledger.process` does, and what it
        returns is one transaction, fenced like every other. An error of `change` itself must have changed nothing.

        Raises NotHeldError when another process holds the partition or Kafka refuses: the state is then read back from
        the log before it is used again.
        """
        # A transaction that has begun is brought to its end, even when whoever asked for it is gone.
        await asyncio.shield(asyncio.ensure_future(self._commit(TopicPartition(self._source, partition), change)))

    async def _commit(self, partition: TopicPartition, change: Callable[[L], Sequence[Message]]) -> None:
        held = self._held.get(partition)
        try:
            if held is None:
                raise NotHeldError(f"{partition.topic}-{partition.partition} is not held by this process")
            async with self._transaction(partition, held):
                for message in change(held.ledger):
                    await self._send(held.producer, message, uuid.uuid4().hex, partition.partition)
        except (KafkaError, ConnectionError) as error:
            await self._drop(partition)
            raise NotHeldError(f"{partition.topic}-{partition.partition} was given up: {error!r}") from error
        self._on_change()

    @contextlib.asynccontextmanager
    async def _transaction(self, partition: TopicPartition, held: "_Held[L]") -> AsyncIterator[None]:
        """One at a time for each partition, and only while it is held."""
        async with held.lock:
            if self._held.get(partition) is not held:
                raise NotHeldError(f"{partition.topic}-{partition.partition} was lost meanwhile")
            async with held.producer.transaction():
                yield

    async def run(self, stop: asyncio.Event) -> None:
        """Process until `stop` is set. Raises TooManyDeadLetters, or the ledger's own error."""
        consumer = AIOKafkaConsumer(
            self._source,
            **self._settings.client(),
            group_id=self._service,
            **GROUP_SESSION,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        await consumer.start()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._follow(consumer)
                polling = asyncio.create_task(consumer.getmany(timeout_ms=1000, max_records=2000))
                await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not polling.done():
                    polling.cancel()
                    break
                for partition, consumed in polling.result().items():
                    with contextlib.suppress(NotHeldError):
                        await self._process(partition, [record_of(raw) for raw in consumed])
        finally:
            stopping.cancel()
            for partition in list(self._held):
                await self._drop(partition)
            await consumer.stop()

    async def _follow(self, consumer: Any) -> None:
        """Hold exactly the partitions that the group assigns."""
        assigned = consumer.assignment()
        for partition in self._held.keys() - assigned:
            await self._drop(partition)
        for partition in assigned - self._held.keys():
            await self._take(consumer, partition)

    async def _take(self, consumer: Any, partition: TopicPartition) -> None:
        held = _Held(
            AIOKafkaProducer(
                **self._settings.client(),
                transactional_id=f"{self._service}.{partition.topic}.{partition.partition}",
                max_request_size=8 << 20,
            ),
            self._make_ledger(partition.partition),
        )
        try:
            # Starting fences the previous owner. Only then are its last commit and its last state final.
            await held.producer.start()
            await self._restore(held.ledger, partition.partition)
            committed = await consumer.committed(partition)
            if committed is None:
                committed = (await consumer.beginning_offsets([partition]))[partition]
            consumer.seek(partition, committed)
        except (KafkaError, ConnectionError) as error:
            log.warning("cannot take %s yet, trying again: %r", partition, error)
            await _close(held.producer)
            await asyncio.sleep(_RETRY_SECONDS)
            return
        self._held[partition] = held
        self.owned.set()
        log.info("took %s-%d at offset %d", partition.topic, partition.partition, committed)

    async def _drop(self, partition: TopicPartition) -> None:
        await _close(self._held.pop(partition).producer)
        if not self._held:
            self.owned.clear()

    async def _restore(self, ledger: Ledger, partition: int) -> None:
        """Read the state partition up to the last committed record."""
        state = TopicPartition(self._state_topic, partition)
        consumer = AIOKafkaConsumer(
            **self._settings.client(), enable_auto_commit=False, isolation_level="read_committed"
        )
        await consumer.start()
        try:
            consumer.assign([state])
            await consumer.seek_to_beginning(state)
            end = (await consumer.end_offsets([state]))[state]
            while await consumer.position(state) < end:
                for consumed in (await consumer.getmany(state, timeout_ms=200)).get(state, ()):
                    record = record_of(consumed)
                    if record.value is None:
                        ledger.forget(record.key or "")
                    else:
                        ledger.restore(decode(record))
        finally:
            await consumer.stop()

    async def _process(self, consumer: Any, partition: TopicPartition, records: list[Record]) -> None:
        held = self._held[partition]
        good, bad = self._decode(records)
        next_offset = records[-1].offset + 1
        try:
            async with held.producer.transaction():
                with continued(records[0], self._service):
                    outputs = held.ledger.process(good, datetime.now(UTC))
                    for index, message in enumerate(outputs):
                        await self._send(held.producer, message, f"{records[-1].origin}-{index}", partition.partition)
                for undecodable in bad:
                    letter = self._dead_letters.letter(undecodable)
                    await self._send(held.producer, letter, letter.key(), None)
                await held.producer.send_offsets_to_transaction(
                    {partition: OffsetAndMetadata(next_offset, "")}, self._service
                )
        except (KafkaError, ConnectionError) as error:
            # Nothing of the transaction is visible. The state in memory is ahead of the log, so it goes too: the next
            # turn takes the partition again from what was committed, if it is still ours.
            level = logging.INFO if isinstance(error, ProducerFenced) else logging.WARNING
            log.log(level, "gave up a transaction on %s, from offset %d: %r", partition, records[0].offset, error)
            await self._drop(partition)
            await asyncio.sleep(_RETRY_SECONDS)
            return
        for undecodable in bad:
            self._dead_letters.check(undecodable)

    def _decode(self, records: list[Record]) -> tuple[list[tuple[Record, Message]], list[Undecodable]]:
        good: list[tuple[Record, Message]] = []
        bad: list[Undecodable] = []
        for record in records:
            try:
                good.append((record, decode(record)))
                self._dead_letters.read()
            except Undecodable as error:
                bad.append(error)
        return good, bad

    async def _send(self, producer: Any, message: Message, id: str, partition: int | None) -> None:
        envelope = Envelope(id=id, source=self._service, time=datetime.now(UTC), traceparent=current_traceparent())
        key, value, headers = encode(message, envelope)
        topic = dead_letter_topic(self._service) if partition is None else message.TOPIC
        on_partition = partition if topic == self._state_topic else None
        await producer.send(topic, value, key=key, headers=headers, partition=on_partition)


class _Held:
    """A partition at work."""

    def __init__(self, producer: Any, ledger: Ledger):
        self.producer = producer
        self.ledger = ledger


async def _close(producer: Any) -> None:
    """A fenced or disconnected producer has nothing left to say, and its complaints about that help nobody."""
    with contextlib.suppress(KafkaError, ConnectionError):
        await producer.stop()
