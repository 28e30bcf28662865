"""What jobs share: room in order, threads that are waited for, and an outbox that loses nothing."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from batch_runner.machine import Machine, Outbox
from batch_runner.room import Waiting
from contracts.messages import CancelBatchJob, Message
from contracts.shell.threads import in_thread

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def job(name: str, workers: int, minute: int = 0) -> Waiting:
    return Waiting(True, NOON + timedelta(minutes=minute), name, workers)


async def turns() -> None:
    """Let every task that can run do so."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_job_enters_when_those_before_it_have_left() -> None:
    machine = Machine(4)
    await machine.enter(job("first", 3))
    await machine.enter(job("first", 3))  # it is in already
    large, small = (asyncio.create_task(machine.enter(one)) for one in (job("large", 4, 1), job("small", 1, 2)))
    await turns()
    assert (machine.used, large.done(), small.done()) == (3, False, False)
    machine.leave("first")
    await turns()
    assert (machine.used, large.done(), small.done()) == (4, True, False)
    machine.leave("large")
    await turns()
    assert (machine.used, small.done()) == (1, True)


async def test_a_job_that_gives_up_waiting_holds_nobody_up() -> None:
    machine = Machine(4)
    await machine.enter(job("first", 4))
    gone, next_one = (asyncio.create_task(machine.enter(one)) for one in (job("gone", 4, 1), job("next", 4, 2)))
    await turns()
    gone.cancel()
    machine.leave("first")  # lets "gone" in at the very moment that it goes
    await turns()
    assert gone.cancelled()
    assert next_one.done()
    assert machine.used == 4


async def test_a_thread_is_waited_for_also_by_whoever_is_canceled_twice() -> None:
    release, began = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    written: list[str] = []

    def write() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait()
        written.append("done")

    writing = asyncio.create_task(in_thread(write))
    await began.wait()
    for _ in range(2):
        writing.cancel()
        await turns()
        assert not writing.done()
    release.set()
    await asyncio.wait({writing})
    assert (writing.cancelled(), written) == (True, ["done"])


class Bus:
    """A publisher that is away for its first `failures` messages."""

    def __init__(self, failures: int):
        self.failures = failures
        self.sent: list[str] = []

    async def send(self, message: Message, *, id: str) -> "asyncio.Future[None]":
        if self.failures:
            self.failures -= 1
            raise ConnectionError("away")
        self.sent.append(id)
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        durable.set_result(None)
        return durable


async def test_the_outbox_keeps_what_cannot_be_sent_and_its_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batch_runner.machine._RETRY_SECONDS", 0)
    bus: Any = Bus(failures=3)
    outbox = Outbox(bus)
    for number in range(1200):
        outbox.put(str(number), CancelBatchJob(job="job-1"))
    await outbox.flush()
    assert bus.sent == [str(number) for number in range(1200)]
    await outbox.flush()
    assert len(bus.sent) == 1200
