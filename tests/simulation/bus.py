"""Kafka in memory: partitioned logs, consumer groups, compaction and transactions, and no threads.

Nothing is delivered: whoever reads keeps an offset and asks. So a process that loses its memory reads again from where
its group last committed, and what happened in between happens to it twice, as on the real bus.
"""

import random
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar
from zlib import crc32

from contracts.envelope import Envelope, Record, Undecodable, decode, encode, text_headers
from contracts.log import Ledger, Offset, Table, Tail
from contracts.log.deadletter import dead_letter
from contracts.messages import Message
from contracts.topics import dead_letter_topic, topics

L = TypeVar("L", bound=Ledger)

_Place = tuple[str, int]


class Bus:
    """Every topic of the table. `watchers` see each record as it is appended, with its message."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[Record, Message | None], None]] = []
        self.committed: dict[tuple[str, str, int], int] = {}
        """The next offset of a (group, topic, partition)."""
        self.compacted = [
            (name, at)
            for name, topic in topics().items()
            for at in range(topic.partitions)
            if "compact" in topic.cleanup
        ]
        """The partitions that Kafka compacts."""
        self._logs: dict[_Place, list[Record]] = {
            (name, partition): [] for name, topic in topics().items() for partition in range(topic.partitions)
        }
        self._ends: dict[_Place, int] = dict.fromkeys(self._logs, 0)

    def partition(self, topic: str, key: str) -> int:
        """Where a key lives: always the same place."""
        return crc32(key.encode()) % topics()[topic].partitions

    def publish(
        self, message: Message, *, id: str, source: str, now: datetime, topic: str | None = None, at: int | None = None
    ) -> Offset:
        """Append a message; `at` is the partition when the key does not say. Returns where it lies."""
        key, value, headers = encode(message, Envelope(id=id, source=source, time=now))
        topic = topic or message.TOPIC
        at = self.partition(topic, key.decode()) if at is None else at
        return self._append(topic, at, key.decode(), value, headers)

    def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        """Append a tombstone."""
        headers = [] if id is None else [("ce_id", id.encode())]
        return self._append(topic, self.partition(topic, key), key, None, headers)

    def append_raw(self, topic: str, key: str, value: bytes, headers: dict[str, str]) -> Offset:
        """Append what somebody else's program sends."""
        texts = [(name, text.encode()) for name, text in headers.items()]
        return self._append(topic, self.partition(topic, key), key, value, texts)

    def append_again(self, record: Record) -> Offset:
        """Append a record a second time, as a producer does that did not hear that the first was taken."""
        headers = [(name, text.encode()) for name, text in record.headers.items()]
        return self._append(record.topic, record.partition, record.key or "", record.value, headers)

    def _append(
        self, topic: str, partition: int, key: str, value: bytes | None, headers: Iterable[tuple[str, bytes]]
    ) -> Offset:
        place = topic, partition
        record = Record(topic, partition, self._ends[place], key, value, text_headers(headers))
        self._ends[place] += 1
        self._logs[place].append(record)
        message: Message | None = None
        if value is not None:
            try:
                message = decode(record)
            except Undecodable:
                message = None
        for watch in self.watchers:
            watch(record, message)
        return Offset(topic, partition, record.offset)

    def read(self, topic: str, partition: int, offset: int, limit: int) -> list[Record]:
        """At most `limit` records from `offset` on."""
        log = self._logs[topic, partition]
        start = bisect_left(log, offset, key=lambda record: record.offset)
        return log[start : start + limit]

    def all(self, topic: str) -> list[Record]:
        """Every record that the topic still has, a partition after the other."""
        return [record for partition in range(topics()[topic].partitions) for record in self._logs[topic, partition]]

    def end(self, topic: str, partition: int) -> int:
        """The offset after the last record."""
        return self._ends[topic, partition]

    def first_since(self, topic: str, partition: int, since: datetime | None) -> int:
        """The offset of the first record that is not older; the end when there is none."""
        for record in self._logs[topic, partition]:
            if since is not None and datetime.fromisoformat(record.headers["ce_time"]) >= since:
                return record.offset
        return self._ends[topic, partition]

    def compact(self, topic: str, partition: int) -> None:
        """Keep the latest record of each key, tombstones too: they stay for a day."""
        latest = {record.key: record.offset for record in self._logs[topic, partition]}
        self._logs[topic, partition] = [
            record for record in self._logs[topic, partition] if latest[record.key] == record.offset
        ]


class Reader:
    """Keeps tables and tails up to date, as `contracts.log.Reader`: when it is made it catches up, with tables from the
    beginning and with tails from their instant."""

    def __init__(self, bus: Bus, *sinks: Table[Any] | Tail):
        self._bus = bus
        self._sinks = {sink.topic: sink for sink in sinks}
        self._positions = {
            (topic, partition): 0 if isinstance(sink, Table) else bus.first_since(topic, partition, sink.since)
            for topic, sink in self._sinks.items()
            for partition in range(topics()[topic].partitions)
        }
        self.catch_up()

    def behind(self) -> list[_Place]:
        """The partitions with something to read."""
        return [place for place, position in self._positions.items() if position < self._bus.end(*place)]

    def poll(self, rng: random.Random) -> None:
        """Read some records of one partition: the partitions of a topic, and topics, overtake each other."""
        place = rng.choice(self.behind())
        self._read(place, rng.randint(1, 5))

    def wait_for(self, offset: Offset) -> None:
        """Read until the record at `offset` is applied."""
        place = offset.topic, offset.partition
        while self._positions[place] <= offset.offset:
            self._read(place, 1)

    def catch_up(self) -> None:
        """Read everything."""
        for place in self.behind():
            self._read(place, self._bus.end(*place))

    def _read(self, place: _Place, limit: int) -> None:
        records = self._bus.read(*place, self._positions[place], limit)
        for record in records:
            self._sinks[record.topic].apply(record)
        self._positions[place] = records[-1].offset + 1 if records else self._bus.end(*place)


class NotHeld(Exception):
    """A transaction failed: the partition was lost, and taken again with what the log says."""


class Processor(Generic[L]):
    """Runs a ledger over each partition of a topic, as `contracts.log.Processor`: outputs, state and offset are there
    together or not at all. With `strict`, unknown fields are mistakes."""

    def __init__(
        self,
        bus: Bus,
        group: str,
        source: str,
        state: type[Message],
        make: Callable[[], L],
        *,
        strict: bool = False,
    ):
        self._bus, self._group, self._source, self._state, self._make = bus, group, source, state, make
        self._strict = strict
        self.ledgers = {partition: self._restored(partition) for partition in range(topics()[source].partitions)}

    def behind(self) -> list[int]:
        """The partitions with something to process."""
        return [at for at in self.ledgers if self._next(at) < self._bus.end(self._source, at)]

    def process(self, partition: int, limit: int, now: datetime, *, fails: bool) -> None:
        """One transaction. One that fails leaves nothing, and the state is read back."""
        records = self._bus.read(self._source, partition, self._next(partition), limit)
        good, bad = [], []
        for record in records:
            try:
                good.append((record, decode(record, strict=self._strict)))
            except Undecodable as error:
                bad.append(error)
        results = self.ledgers[partition].process(good, now)
        if fails:
            self.ledgers[partition] = self._restored(partition)
            return
        bad += [result for result in results if isinstance(result, Undecodable)]
        for index, message in enumerate(results):
            if isinstance(message, Message):
                self._write(message, f"{records[-1].origin}-{index}", partition, now)
        for letter in bad:
            park(self._bus, self._group, letter, now)
        self._bus.committed[self._group, self._source, partition] = records[-1].offset + 1

    def commit(self, partition: int, messages: Sequence[Message], id: str, now: datetime, *, fails: bool) -> None:
        """Between two batches, write what the partition's ledger has become. Raises NotHeld when it fails."""
        if fails:
            self.ledgers[partition] = self._restored(partition)
            raise NotHeld(f"{self._source}-{partition}")
        for index, message in enumerate(messages):
            self._write(message, f"{id}-{index}", partition, now)

    def rewind(self) -> None:
        """Somebody sets the group's offsets back to the beginning."""
        for partition in self.ledgers:
            self._bus.committed[self._group, self._source, partition] = 0

    def _write(self, message: Message, id: str, partition: int, now: datetime) -> None:
        at = partition if message.TOPIC == self._state.TOPIC else None
        self._bus.publish(message, id=id, source=self._group, now=now, at=at)

    def _next(self, partition: int) -> int:
        return self._bus.committed.get((self._group, self._source, partition), 0)

    def _restored(self, partition: int) -> L:
        ledger = self._make()
        for record in self._bus.read(self._state.TOPIC, partition, 0, self._bus.end(self._state.TOPIC, partition)):
            if record.value is None:
                ledger.forget(record.key or "")
            else:
                ledger.restore(decode(record))
        return ledger


def park(bus: Bus, service: str, error: Undecodable, now: datetime) -> None:
    """Write a record that cannot be taken to the service's dead letters."""
    letter = dead_letter(service, error.record, str(error), now)
    bus.publish(letter, id=letter.key(), source=service, now=now, topic=dead_letter_topic(service))
