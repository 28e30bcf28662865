"""Between aiokafka's records and ours: their fields, their offsets, and the partition that a key lives on."""

from functools import lru_cache
from typing import Any, NamedTuple

from aiokafka.partitioner import DefaultPartitioner

from contracts.envelope import Record, Undecodable, text_headers
from contracts.messages import Message, Problem
from contracts.topics import topics


class Offset(NamedTuple):
    """Where a record lies."""

    topic: str
    partition: int
    offset: int


def record_of(consumed: Any) -> Record:
    """The aiokafka ConsumerRecord as a Record."""
    return Record(
        topic=consumed.topic,
        partition=consumed.partition,
        offset=consumed.offset,
        key=None if consumed.key is None else consumed.key.decode(errors="replace"),
        value=consumed.value,
        headers=text_headers(consumed.headers),
    )


def check_key(record: Record, message: Message) -> None:
    """Raises Undecodable for a record under another key than its message's: it would stand for two things."""
    if record.key != message.key():
        told = "has no key" if record.key is None else f"has the key '{record.key[:100]}'"
        problem = f"a record about '{message.key()}' {told}: write it under '{message.key()}'"
        raise Undecodable(record, (Problem(code="BadArgument", field="key", message=problem),))


@lru_cache(maxsize=65_536)
def _home(key: str, partitions: int) -> int:
    """Where every Kafka client puts `key` unless told otherwise."""
    home: int = DefaultPartitioner()(key.encode(), list(range(partitions)), [])
    return home


def check_partition(record: Record, message: Message) -> None:
    """Raises Undecodable for a record that does not lie on the partition of its message's key."""
    key = message.key()
    home = _home(key, topics()[record.topic].partitions)
    if record.partition != home:
        problem = f"a record about '{key}' belongs on partition {home}: write it with this key and Kafka's murmur2 rule"
        raise Undecodable(record, (Problem(code="BadArgument", field="key", message=problem),))
