"""The routing table follows the log: what was there at the start is read when asked for, and all of it in time."""

import asyncio
import gc
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import pytest
from aiokafka import ConsumerRecord

from contracts.envelope import Envelope, Record, Undecodable, encode
from contracts.log import DeadLetters
from contracts.messages import EndpointDesired, Message
from router.following import Following
from router.gateway import Gateway

Documents = Any
LATER = datetime(2026, 2, 1, tzinfo=UTC)


def consumed(message: Message, offset: int = 0, **changed: Any) -> Any:
    key, value, headers = encode(message, Envelope(id="-", source="test"))
    record: dict[str, Any] = {"key": key, "value": value, "headers": headers, **changed}
    return ConsumerRecord(
        topic=message.TOPIC,
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        checksum=None,
        serialized_key_size=0,
        serialized_value_size=0,
        **record,
    )


def record_of(raw: Any) -> Record:
    headers = {name: value.decode() for name, value in raw.headers}
    return Record(raw.topic, raw.partition, raw.offset, raw.key.decode(), raw.value, headers)


@dataclass
class Letters:
    """Notes what is parked."""

    parked: list[str]
    read_count: int = 0

    def read(self) -> None:
        self.read_count += 1

    async def park(self, error: Undecodable) -> None:
        self.parked.append(str(error))


class Log:
    """What was in the log at the start, and the gateway that follows it."""

    def __init__(self, documents: Documents):
        self.documents = documents
        self.gateway = Gateway(asyncio.get_running_loop(), b".local.inference.localhost")
        self.following = Following(self.gateway)
        self.desired, self.observed = self.following.tables
        self.letters = Letters([])

    def document(self, name: str, **more: Any) -> EndpointDesired:
        made: EndpointDesired = self.documents.desired(
            {"blue": self.documents.deployment()}, {"blue": 100}, name=name, **more
        )
        return made

    def held(self, *raws: Any) -> None:
        self.desired.keep(raws)

    async def update(self, raw: Any) -> None:
        self.desired.apply(record_of(raw))
        await self.following.update()

    def found(self, name: bytes) -> str | None:
        entry = self.gateway.table.find(name)
        return entry.route.name if entry is not None else None

    async def finish(self) -> None:
        await self.following.finish(cast(DeadLetters, self.letters))


@pytest.fixture
async def log(documents: Documents) -> Log:
    return Log(documents)


async def test_an_endpoint_is_read_when_it_is_asked_for_and_the_others_in_time(log: Log) -> None:
    log.held(*(consumed(log.document(f"endpoint-{number}")) for number in range(5)))
    log.observed.keep([consumed(log.documents.observed({"blue": {"b1": "127.0.0.1:5001"}}))])
    log.following.begin()
    assert (log.following.waiting, log.gateway.table.entries) == (6, {})
    assert log.found(b"endpoint-3") == "endpoint-3"
    assert (log.following.waiting, list(log.gateway.table.entries)) == (5, [b"endpoint-3"])
    assert log.found(b"missing") is None
    entry = log.gateway.table.entries[b"endpoint-3"]
    await log.finish()
    assert sorted(log.gateway.table.entries) == [b"endpoint-%d" % number for number in range(5)]
    assert log.gateway.table.entries[b"endpoint-3"] is entry
    assert (log.following.waiting, log.letters.parked, log.letters.read_count) == (0, [], 5)
    assert log.gateway.table.find == log.gateway.table.entries.get
    assert gc.isenabled()


async def test_an_endpoint_is_found_with_its_instances(log: Log) -> None:
    log.held(consumed(log.document("diabetes")))
    log.observed.keep([consumed(log.documents.observed({"blue": {"b1": "127.0.0.1:5001"}}))])
    log.following.begin()
    entry = log.gateway.table.find(b"diabetes")
    assert entry is not None
    assert [instance.id for instance in entry.deployments[b"blue"].instances] == ["b1"]


async def test_of_several_documents_the_newest_that_can_be_read_counts(log: Log) -> None:
    old, new = log.document("diabetes", mirror={}), log.document("diabetes").replace(generation=7)
    log.held(
        consumed(old, 1, value=b"{"),
        consumed(old, 2),
        consumed(new, 3),
        consumed(old, 4, value=b"not JSON"),
        consumed(old, 5, headers=[]),
    )
    log.following.begin()
    assert log.found(b"diabetes") == "diabetes"
    assert log.desired.entries["diabetes"].generation == 7
    await log.finish()
    assert [text.partition(":")[0] for text in log.letters.parked] == ["endpoints.desired-0-4", "endpoints.desired-0-5"]


async def test_an_endpoint_whose_last_record_deletes_it_is_none(log: Log) -> None:
    log.held(consumed(log.document("diabetes"), 1), consumed(log.document("diabetes"), 2, value=None, headers=[]))
    log.following.begin()
    assert log.found(b"diabetes") is None
    await log.finish()
    assert log.gateway.table.entries == {}


async def test_an_update_counts_though_the_endpoint_was_not_read_yet(log: Log) -> None:
    log.held(consumed(log.document("diabetes"), 1))
    log.following.begin()
    await log.update(consumed(log.document("diabetes").replace(generation=2), 2))
    assert log.desired.entries["diabetes"].generation == 2
    assert log.found(b"diabetes") == "diabetes"
    await log.finish()
    assert log.desired.entries["diabetes"].generation == 2


async def test_an_update_that_cannot_be_read_leaves_what_is_kept(log: Log) -> None:
    log.held(consumed(log.document("diabetes"), 1))
    log.following.begin()
    with pytest.raises(Undecodable):
        await log.update(consumed(log.document("diabetes"), 2, value=b"{"))
    assert log.found(b"diabetes") == "diabetes"


async def test_names_that_differ_by_case_only_are_read_together(log: Log) -> None:
    log.held(consumed(log.document("Diabetes", created_at=LATER)))
    log.held(consumed(log.document("diabetes")))
    log.following.begin()
    await log.update(consumed(log.document("Diabetes", created_at=LATER).replace(generation=2), 2))
    assert log.found(b"diabetes") == "diabetes"
    await log.finish()
    assert log.found(b"diabetes") == "diabetes"


async def test_a_document_under_another_key_is_none(log: Log) -> None:
    with pytest.raises(
        Undecodable, match="key: a record about 'diabetes' has the key 'other': write it under 'diabetes'"
    ):
        await log.update(consumed(log.document("diabetes"), key=b"other"))
    assert log.desired.entries == {}
