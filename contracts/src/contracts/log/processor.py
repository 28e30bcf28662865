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
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.errors import IllegalOperation, KafkaError, ProducerFenced
from aiokafka.structs import OffsetAndMetadata

from contracts.envelope import Envelope, Record, Undecodable, decode, encode
from contracts.log.deadletter import DeadLetters
from contracts.log.fetching import FETCH_WAIT_MS
from contracts.log.ledger import Ledger, next_offset, reading, restore
from contracts.log.records import check_partition, record_of
from contracts.log.settings import GROUP_SESSION, KafkaSettings
from contracts.log.tracing import continued, current_traceparent
from contracts.messages import Message
from contracts.topics import topics

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_CLOSE_SECONDS = 5.0
_ASSIGNMENT_SECONDS = 0.2

# What Kafka or the way to it may do to a transaction. aiokafka raises IllegalOperation for a write after the one that
# was fenced.
_REFUSALS = (KafkaError, IllegalOperation, ConnectionError)


L = TypeVar("L", bound=Ledger)


class NotHeldError(RuntimeError):
    """A partition is not, or no longer, this process's: nothing was written, or what became of it must be read back."""


class Processor(Generic[L]):
    """Runs `make_ledger(partition)` over each partition of `source` that the group gives to this process.

    A record that does not lie on its key's partition is parked: the state of a key lives on one. With `strict`, for
    commands that people write, unknown fields are mistakes too. `on_change` is called when a partition was taken or
    dropped and after each transaction.
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
        if held is None:
            raise NotHeldError(f"{partition.topic}-{partition.partition} is not held by this process")
        try:
            async with self._alone(partition, held):
                messages = change(held.ledger)
                async with held.producer.transaction():
                    await asyncio.gather(
                        *[
                            await self._send(held.producer, message, uuid.uuid4().hex, partition.partition)
                            for message in messages
                        ]
                    )
        except _REFUSALS as error:
            await self._drop(partition, held)
            raise NotHeldError(f"{partition.topic}-{partition.partition} was given up: {error!r}") from error
        self._on_change()

    @contextlib.asynccontextmanager
    async def _alone(self, partition: TopicPartition, held: "_Held[L]") -> AsyncIterator[None]:
        """A partition's transactions take turns, and there are none once it is dropped."""
        async with held.lock:
            if self._held.get(partition) is not held:
                raise NotHeldError(f"{partition.topic}-{partition.partition} was lost meanwhile")
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
                if not self._held:
                    await asyncio.wait({stopping}, timeout=_ASSIGNMENT_SECONDS)
                    continue
                # Of the partitions that are held and no others: what is handed out is not fetched again.
                polling = asyncio.create_task(consumer.getmany(*self._held, timeout_ms=1000, max_records=2000))
                await asyncio.wait({polling, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not polling.done():
                    polling.cancel()
                    break
                for partition, consumed in polling.result().items():
                    if partition in self._held:
                        await self._process(partition, [record_of(raw) for raw in consumed])
        finally:
            stopping.cancel()
            for partition, held in list(self._held.items()):
                await self._drop(partition, held)
            await consumer.stop()

    async def _follow(self, consumer: Any) -> None:
        """Hold exactly the partitions that the group assigns."""
        assigned = consumer.assignment()
        for partition in self._held.keys() - assigned:
            await self._drop(partition, self._held[partition])
        await asyncio.gather(*(self._take(consumer, partition) for partition in assigned - self._held.keys()))

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
            state = TopicPartition(self._state_topic, partition.partition)
            async with reading(self._settings, state, partition) as reader:
                await restore(reader, state, held.ledger, self._dead_letters)
                held.next_offset = await next_offset(reader, partition, await consumer.committed(partition))
            if await consumer.position(partition) != held.next_offset:
                # This throws away what is fetched already, and the next fetch may have to wait for one in flight.
                consumer.seek(partition, held.next_offset)
        except _REFUSALS as error:
            log.warning("cannot take %s yet, trying again: %r", partition, error)
            await _close(held.producer)
            await asyncio.sleep(_RETRY_SECONDS)
            return
        self._held[partition] = held
        self.owned.set()
        self._on_change()
        log.info("took %s-%d at offset %d", partition.topic, partition.partition, held.next_offset)

    async def _drop(self, partition: TopicPartition, held: "_Held[L]") -> None:
        if self._held.get(partition) is held:
            del self._held[partition]
        if not self._held:
            self.owned.clear()
        self._on_change()
        # A transaction in flight may end; one that hangs on a lost broker is left to it.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS), held.lock:
                pass
        await _close(held.producer)

    async def _process(self, partition: TopicPartition, records: list[Record]) -> None:
        held = self._held[partition]
        # After a rebalance the consumer starts again at the committed offset that the group knows, and the group may
        # learn of our last transaction a moment after we do.
        records = [record for record in records if record.offset >= held.next_offset]
        if not records:
            return
        good, bad = self._decode(records)
        try:
            async with self._alone(partition, held), held.producer.transaction():
                with continued(records[0], self._service):
                    results = held.ledger.process(good, datetime.now(UTC))
                    bad += [result for result in results if isinstance(result, Undecodable)]
                    writes = [
                        await self._send(held.producer, message, f"{records[-1].origin}-{index}", partition.partition)
                        for index, message in enumerate(results)
                        if isinstance(message, Message)
                    ]
                for letter in map(self._dead_letters.letter, bad):
                    writes.append(await self._send(held.producer, letter, letter.key(), None))
                held.next_offset = records[-1].offset + 1
                offsets = {partition: OffsetAndMetadata(held.next_offset, "")}
                # aiokafka commits although a write failed: each is waited for.
                await asyncio.gather(*writes, held.producer.send_offsets_to_transaction(offsets, self._service))
        except NotHeldError:
            return
        except _REFUSALS as error:
            # Nothing of the transaction is visible. The state in memory is ahead of the log, so it goes too: the next
            # turn takes the partition again from what was committed, if it is still ours.
            level = logging.INFO if isinstance(error, ProducerFenced) else logging.WARNING
            log.log(level, "gave up a transaction on %s, from offset %d: %r", partition, records[0].offset, error)
            await self._drop(partition, held)
            await asyncio.sleep(_RETRY_SECONDS)
            return
        self._on_change()
        for undecodable in bad:
            self._dead_letters.check(undecodable)

    def _decode(self, records: list[Record]) -> tuple[list[tuple[Record, Message]], list[Undecodable]]:
        good: list[tuple[Record, Message]] = []
        bad: list[Undecodable] = []
        for record in records:
            try:
                message = decode(record, strict=self._strict)
                check_partition(record, message)
                good.append((record, message))
                self._dead_letters.read()
            except Undecodable as error:
                bad.append(error)
        return good, bad

    async def _send(self, producer: Any, message: Message, id: str, partition: int | None) -> "asyncio.Future[Any]":
        """Hand a message to the transaction; the future tells when the broker has it."""
        envelope = Envelope(id=id, source=self._service, time=datetime.now(UTC), traceparent=current_traceparent())
        key, value, headers = encode(message, envelope)
        topic = self._dead_letters.topic if partition is None else message.TOPIC
        on_partition = partition if topic == self._state_topic else None
        sent: asyncio.Future[Any] = await producer.send(topic, value, key=key, headers=headers, partition=on_partition)
        return sent


class _Held(Generic[L]):
    """A partition at work."""

    def __init__(self, producer: Any, ledger: L):
        self.producer = producer
        self.ledger = ledger
        self.lock = asyncio.Lock()
        self.next_offset = 0


async def _close(producer: Any) -> None:
    """A fenced or disconnected producer has nothing left to say, and its complaints about that help nobody."""
    with contextlib.suppress(*_REFUSALS):
        await producer.stop()
