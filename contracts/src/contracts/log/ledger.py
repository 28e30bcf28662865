"""State that accumulates, one ledger for each partition, and how it is read back from the log."""

import contextlib
import logging
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.envelope import Record, Undecodable, decode
from contracts.log.deadletter import DeadLetters
from contracts.log.fetching import assign_paused
from contracts.log.records import record_of
from contracts.log.settings import KafkaSettings
from contracts.messages import Message

log = logging.getLogger(__name__)

_WAIT_MS = 50


class Ledger(Protocol):
    """The state of one partition. It is dropped when a transaction fails, so it may change freely while it works."""

    def restore(self, message: Message) -> None:
        """Take one message of the state topic, oldest first."""

    def forget(self, key: str) -> None:
        """Take one deletion of the state topic."""

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> Sequence[Message | Undecodable]:
        """The messages to write for `batch`: those for the state topic are the new state, others are outputs.
        An Undecodable among them parks its record: a message that is well formed and still cannot be taken."""


@contextlib.asynccontextmanager
async def reading(settings: KafkaSettings, *partitions: TopicPartition) -> AsyncIterator[Any]:
    """A consumer outside of any group, for a moment; it may be asked about the offsets of `partitions`."""
    reader = AIOKafkaConsumer(
        **settings.client(),
        enable_auto_commit=False,
        isolation_level="read_committed",
        fetch_max_wait_ms=_WAIT_MS,
    )
    await reader.start()
    assign_paused(reader, partitions)
    try:
        yield reader
    finally:
        await reader.stop()


async def restore(reader: Any, state: TopicPartition, ledger: Ledger, dead_letters: DeadLetters) -> None:
    """Give the partition `state` to `ledger`, up to the last committed record.

    Only the ledger's service writes there; a person's slip must not keep it from starting, and is parked.
    """
    [first] = (await reader.beginning_offsets([state])).values()
    [end] = (await reader.end_offsets([state])).values()
    reader.seek(state, first)
    reader.resume(state)
    while await reader.position(state) < end:
        for consumed in (await reader.getmany(timeout_ms=_WAIT_MS)).get(state, ()):
            record = record_of(consumed)
            try:
                _apply(ledger, record)
            except Undecodable as error:
                await dead_letters.park(error)


def _apply(ledger: Ledger, record: Record) -> None:
    if record.value is None:
        ledger.forget(record.key or "")
    else:
        ledger.restore(decode(record))


async def next_offset(reader: Any, source: TopicPartition, committed: int | None) -> int:
    """Where the last transaction ended; the oldest record when there was none or the log is another one now."""
    [first] = (await reader.beginning_offsets([source])).values()
    [end] = (await reader.end_offsets([source])).values()
    if committed is not None and first <= committed <= end:
        return committed
    if committed is not None:
        log.error("%s holds %d to %d, but %d was next: records are lost", source, first, end, committed)
    return int(first)
