"""Readers that are killed by SIGKILL at their worst moments, and what the log says after they were started again.

This file is also the process that is killed: python test_contracts_kills.py ADDRESS WHAT POINT.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from tests.integration.bus import publishing

from contracts.envelope import Record, Undecodable
from contracts.log import DeadLetters, KafkaSettings, Offset, Reader, Table, Tail
from contracts.messages import DeadLetter, EndpointDesired, Message, OnlineEndpointSpec, UpdateEndpoint

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 60
ENDPOINTS = [f"e{number:03}" for number in range(150)]
GENERATIONS = 4


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


# What is killed


async def handle(kafka: KafkaSettings, group: str, point: str) -> None:
    """A command handler; at `point` of what it does with a record that is none, it dies. It ends after "the-next"."""
    from contracts.log import command_broker, handle_commands

    done = asyncio.Event()

    def meet(now: str, error: Undecodable) -> None:
        if error.record.key == group:
            say(now, error.id)
            if point == now:
                die()

    class Deadly(DeadLetters):
        async def park(self, error: Undecodable) -> None:
            await super().park(error)
            meet("parked", error)

    async def tell_sender(error: Undecodable) -> None:
        meet("told", error)

    async def take(record: Record, message: Message) -> None:
        if message.key() == group:
            say("handled", record.headers["ce_id"])
            done.set()

    async with publishing(kafka) as publisher:
        broker = command_broker(kafka)
        letters = Deadly(publisher, "provisioner")
        # A member of a name is back at once, not when the session of the dead one has ended.
        handle_commands(broker, "endpoints.commands", group, take, letters, tell_sender, print, member="one")
        await broker.start()
        await done.wait()
        await broker.stop()


async def follow(kafka: KafkaSettings, point: str) -> None:
    """A reader of a table that dies at the change of this number, or tells the table."""
    changes = 0

    def changed(key: str, now: EndpointDesired | None) -> None:
        nonlocal changes
        changes += 1
        if changes == 1:
            say("began", key)
        if str(changes) == point:
            die()

    table = Table(EndpointDesired, changed)
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [table], DeadLetters(publisher, "router"))
        await reader.start()
        await reader.stop()
    say("table", contents(table))


def say(what: str, about: Any) -> None:
    print(json.dumps([what, about]), flush=True)


def contents(table: Table[EndpointDesired]) -> dict[str, Any]:
    return {
        "generations": {key: entry.generation for key, entry in sorted(table.entries.items())},
        "deleted": dict(sorted(table.deleted.items())),
    }


# What is seen afterwards


async def run(kafka: KafkaSettings, what: str, point: str) -> tuple[int, list[list[Any]]]:
    """The process's exit code and what it said."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])  # it runs this file, which imports its neighbours
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, kafka.bootstrap_servers, what, point),
        env=environment,
        stdout=subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in output.splitlines()]


async def write_nonsense(kafka: KafkaSettings, topic: str, key: str, id: str) -> Offset:
    async with AIOKafkaProducer(**kafka.client()) as raw:
        sent = await raw.send_and_wait(topic, b"{oops", key=key.encode(), headers=[("ce_id", id.encode())])
    return Offset(sent.topic, sent.partition, sent.offset)


async def letters(kafka: KafkaSettings, service: str, about: Offset) -> list[tuple[str, str]]:
    """The id and the key of each letter on the service's topic that parks the record at `about`."""
    found = []

    def take(record: Record, letter: Message) -> None:
        assert isinstance(letter, DeadLetter)
        if (letter.topic, letter.partition, letter.offset) == about:
            found.append((record.headers["ce_id"], record.key or ""))

    async with publishing(kafka) as publisher:
        tail = Tail(f"deadletter.{service}", take, since=datetime.fromtimestamp(0, UTC))
        reader = Reader(kafka, [tail], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
    return found


@pytest.mark.parametrize(("point", "copies"), [("told", 1), ("parked", 2)])
async def test_a_handler_killed_before_it_acknowledges_what_it_parks_has_parked_it_and_goes_on(
    kafka: KafkaSettings, point: str, copies: int
) -> None:
    group = f"killed-{point}"
    bad = await write_nonsense(kafka, UpdateEndpoint.TOPIC, group, f"bad-{point}")
    async with publishing(kafka) as publisher:
        await publisher.publish(UpdateEndpoint(endpoint=group), id="the-next")

    first, said = await run(kafka, group, point)
    assert first == -signal.SIGKILL
    assert said[-1] == [point, f"bad-{point}"]
    again, said = await run(kafka, group, "none")
    assert again == 0
    # The record comes once more; its sender hears of the same id, and its letter has the same id and key.
    assert said == [["told", f"bad-{point}"], ["parked", f"bad-{point}"], ["handled", "the-next"]]
    name = f"{bad.topic}-{bad.partition}-{bad.offset}"
    assert await letters(kafka, "provisioner", bad) == [(name, name)] * copies


@pytest.fixture(scope="module")
def nonsense(kafka: KafkaSettings) -> Offset:
    """A topic with several documents of each endpoint, deletions, and a record in between that is none."""

    def desired(name: str, generation: int) -> EndpointDesired:
        return EndpointDesired(
            endpoint=name, generation=generation, created_at=NOON, updated_at=NOON, spec=OnlineEndpointSpec()
        )

    async def write() -> Offset:
        async with publishing(kafka) as publisher:
            for generation in range(1, GENERATIONS + 1):
                await asyncio.gather(*[await publisher.send(desired(name, generation)) for name in ENDPOINTS])
                if generation == 2:
                    written = await write_nonsense(kafka, EndpointDesired.TOPIC, ENDPOINTS[0], "bad-document")
            for name in ENDPOINTS[::10]:
                await publisher.delete(EndpointDesired.TOPIC, name, id=f"delete-{name}")
            await publisher.publish(desired(ENDPOINTS[10], 9))
        return written

    return asyncio.run(write())


@pytest.mark.parametrize("point", [1, len(ENDPOINTS) * 2, len(ENDPOINTS) * GENERATIONS + len(ENDPOINTS) // 10 + 1])
async def test_a_reader_killed_while_it_catches_up_has_the_whole_table_when_it_is_started_again(
    kafka: KafkaSettings, nonsense: Offset, point: int
) -> None:
    """At its first change, at one in the middle, and at the last."""
    killed, said = await run(kafka, "table", str(point))
    assert killed == -signal.SIGKILL
    assert [what for what, _ in said] == ["began"]
    again, said = await run(kafka, "table", "none")
    assert again == 0

    table = Table(EndpointDesired)
    async with publishing(kafka) as publisher:
        reader = Reader(kafka, [table], DeadLetters(publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await reader.stop()
    assert said[-1] == ["table", contents(table)]
    deleted = set(ENDPOINTS[::10]) - {ENDPOINTS[10]}
    generations = {name: GENERATIONS for name in ENDPOINTS if name not in deleted} | {ENDPOINTS[10]: 9}
    assert contents(table) == {
        "generations": generations,
        "deleted": {name: f"delete-{name}" for name in sorted(deleted)},
    }
    # Each reader of the whole topic has parked it again, under one key.
    assert len(set(await letters(kafka, "router", nonsense))) == 1


if __name__ == "__main__":
    address, what, point = sys.argv[1:]
    settings = KafkaSettings(address)
    asyncio.run(follow(settings, point) if what == "table" else handle(settings, what, point))
