"""The log as a database: the latest message per key of compacted topics, and the new messages of others.

One `Reader` is one Kafka consumer (no group: it reads every partition). It is ready when each table has caught up with
the end offsets seen at start, and `wait_for` an offset is how a writer reads its own write.
Source of the idea: karapace's OffsetWatcher.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.envelope import Record, Undecodable, decode
from contracts.log.deadletter import DeadLetters
from contracts.log.fetching import FETCH_WAIT_MS, assign_paused, fetch_together
from contracts.log.records import Offset, check_key, record_of
from contracts.log.settings import KafkaSettings
from contracts.messages import Message
from contracts.topics import topics

log = logging.getLogger(__name__)

M = TypeVar("M", bound=Message)

# How long an idle reader sleeps at most; records wake it.
_IDLE_MS = 5000


class Table(Generic[M]):
    """The latest message per key of one compacted topic. `on_change(key, message or None)` is called for each change,
    in the order of the log, also while catching up.

    With `deferred`, what was in the log at the start is `kept` as it came, by key, and its owner has it decoded key by
    key: reading a long topic takes as long as fetching it, and a thousandth of the keys is needed at once.
    """

    def __init__(
        self, model: type[M], on_change: Callable[[str, M | None], None] | None = None, *, deferred: bool = False
    ):
        self.model = model
        self.topic = model.TOPIC
        self.deferred = deferred
        self.entries: dict[str, M] = {}
        self.kept: dict[bytes | None, list[Any]] = {}
        self.deleted: dict[str, str] = {}
        """The ids of the tombstones that have one, by key, for as long as the log keeps them."""
        self._on_change = on_change

    def apply(self, record: Record) -> None:
        """Take one record. Raises Undecodable, and then keeps what was there."""
        key = record.key or ""
        message: M | None = None
        if record.value is None:
            self.entries.pop(key, None)
            if "ce_id" in record.headers:
                self.deleted[key] = record.headers["ce_id"]
        else:
            decoded = decode(record)
            assert isinstance(decoded, self.model), "a compacted topic carries one type of message"
            check_key(record, decoded)
            message = self.entries[key] = decoded
            self.deleted.pop(key, None)
        if self.kept:
            self.kept.pop(None if record.key is None else record.key.encode(), None)
        if self._on_change is not None:
            self._on_change(key, message)

    def keep(self, batch: Sequence[Any]) -> None:
        """Keep consumed records as they came."""
        kept = self.kept
        for consumed in batch:
            if (key := consumed.key) in kept:
                kept[key].append(consumed)
            else:
                kept[key] = [consumed]

    def settle(self, key: bytes | None) -> list[Undecodable]:
        """Take what is kept of `key`: its newest record that can be read. Returns those that were newer."""
        refused = []
        for consumed in reversed(self.kept.pop(key, [])):
            try:
                self.apply(record_of(consumed))
                break
            except Undecodable as error:
                refused.append(error)
        return refused


class Tail:
    """The messages of one topic from an instant on (None: from now on), each given to `on_message`."""

    def __init__(self, topic: str, on_message: Callable[[Record, Message], None], since: datetime | None = None):
        self.topic = topic
        self.since = since
        self._on_message = on_message

    def apply(self, record: Record) -> None:
        """Take one record. Raises Undecodable."""
        self._on_message(record, decode(record))


class Reader:
    """Keeps tables and tails up to date until it is stopped. The task `failed` ends with the error that stopped it."""

    def __init__(
        self,
        settings: KafkaSettings,
        sinks: Sequence[Table[Any] | Tail],
        dead_letters: DeadLetters,
        on_batch: Callable[[], Awaitable[None]] | None = None,
    ):
        self._settings = settings
        self._sinks = {sink.topic: sink for sink in sinks}
        self._dead_letters = dead_letters
        self._on_batch = on_batch
        self._positions: dict[TopicPartition, int] = {}
        self._moved = asyncio.Condition()
        self._caught_up = False
        self._consumer: Any = None
        self.failed: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and return when caught up: every record that was in the tables' topics is applied, or kept."""
        self._consumer = AIOKafkaConsumer(
            **self._settings.client(),
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=FETCH_WAIT_MS,
        )
        await self._consumer.start()
        fetch_together(self._consumer)
        partitions = [
            TopicPartition(topic, partition) for topic in self._sinks for partition in range(topics()[topic].partitions)
        ]
        assign_paused(self._consumer, partitions)
        ends = await self._consumer.end_offsets(partitions)
        self._positions = await self._starts(ends)
        for partition, start in self._positions.items():
            self._consumer.seek(partition, start)
        self._consumer.resume(*partitions)
        self.failed = asyncio.create_task(self._run(), name="log reader")
        for partition, end in ends.items():
            await self.wait_for(Offset(partition.topic, partition.partition, end - 1))
        self._caught_up = True

    async def stop(self) -> None:
        """Disconnect; what was read stays in the tables."""
        if self.failed is not None:
            self.failed.cancel()
            await asyncio.gather(self.failed, return_exceptions=True)
        if self._consumer is not None:
            # A consumer that cannot reach Kafka ends with the cancellation of its own tasks, which is not ours.
            await asyncio.gather(self._consumer.stop(), return_exceptions=True)

    def heard_at(self) -> float | None:
        """When the broker last answered, in seconds since 1970: an idle one does at least every FETCH_WAIT_MS. None
        before it did."""
        if self._consumer is None:
            return None
        # All partitions of a topic may be at rest while another's are fetched: the latest answer counts.
        told = [self._consumer.last_poll_timestamp(at) for at in self._consumer.assignment()]
        return max((stamp / 1000 for stamp in told if stamp is not None), default=None)

    async def wait_for(self, offset: Offset) -> None:
        """Return when the record at `offset` has been applied. Raises the reader's error if it stops before that."""
        partition = TopicPartition(offset.topic, offset.partition)
        async with self._moved:
            while self._positions[partition] <= offset.offset:
                if self.failed is not None and self.failed.done():
                    self.failed.result()
                    raise RuntimeError("the log reader was stopped")
                await self._moved.wait()

    async def catch_up(self) -> None:
        """Return when every record that is in the log now has been applied. Raises as `wait_for` does, and when the
        log cannot be asked."""
        # On a connection of its own: on the reader's, the answer would wait for the fetch that the broker holds there.
        async with AIOKafkaConsumer(**self._settings.client(), isolation_level="read_committed") as asking:
            assign_paused(asking, self._positions.keys())
            ends = await asking.end_offsets(list(self._positions))
        for partition, end in ends.items():
            await self.wait_for(Offset(partition.topic, partition.partition, end - 1))

    async def _starts(self, ends: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        """Tables are read from the beginning, tails from their instant or from the end."""
        starts = dict(ends)
        times: dict[TopicPartition, int] = {}
        tables = []
        for partition in ends:
            sink = self._sinks[partition.topic]
            if isinstance(sink, Table):
                tables.append(partition)
            elif sink.since is not None:
                times[partition] = int(sink.since.timestamp() * 1000)
        starts |= await self._consumer.beginning_offsets(tables)
        if times:
            found = await self._consumer.offsets_for_times(times)
            starts |= {partition: at.offset for partition, at in found.items() if at is not None}
        return starts

    async def _run(self) -> None:
        try:
            while True:
                wait_ms = _IDLE_MS if self._caught_up else 50
                batch = await self._consumer.getmany(timeout_ms=wait_ms, max_records=5000)
                for place, consumed in batch.items():
                    sink = self._sinks[place.topic]
                    if not self._caught_up and isinstance(sink, Table) and sink.deferred:
                        sink.keep(consumed)
                        continue
                    for raw in consumed:
                        await self._apply(record_of(raw))
                if batch and self._on_batch is not None:
                    await self._on_batch()
                # The position also passes what is never handed out, such as the marks of a transaction.
                self._positions = {at: await self._consumer.position(at) for at in self._positions}
                async with self._moved:
                    self._moved.notify_all()
        finally:
            async with self._moved:
                self._moved.notify_all()

    async def _apply(self, record: Record) -> None:
        try:
            self._sinks[record.topic].apply(record)
        except Undecodable as error:
            await self._dead_letters.park(error)
        else:
            self._dead_letters.read()
