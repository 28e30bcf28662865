"""Between aiokafka's records and ours, and between a topic-partition and an offset."""

from typing import Any, NamedTuple

from contracts.envelope import Record, text_headers


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
