"""Telling instance time: what could not be told waits, and a restart goes on where the log ends."""

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from contracts.log import Offset
from contracts.messages import Artifact, CodeConfiguration, DeploymentDesired, OnlineDeploymentSpec, UsageRecorded
from contracts.shell.processes import ProcessIdentity
from provisioner.compute.records import InstanceRecord
from provisioner.core.lifecycle import Place
from provisioner.meter import InstanceMeter

METER = "instance-time/Standard_DS1_v2"


class Log:
    """Takes records; while `cut` it takes none."""

    def __init__(self) -> None:
        self.cut = False
        self.records: list[UsageRecorded] = []
        self.ids: list[str | None] = []

    async def publish(self, message: UsageRecorded, *, id: str | None = None) -> Offset:
        if self.cut:
            raise ConnectionError("cut off")
        self.records.append(message)
        self.ids.append(id)
        return Offset("usage.events", 0, len(self.records))


@pytest.fixture
def log() -> Log:
    return Log()


def meter(home: Path, log: Log, epoch: int = 1) -> InstanceMeter:
    return InstanceMeter(home, log, "p", epoch, seconds=0.01)  # type: ignore[arg-type]


def record(id: str, started_at: datetime) -> InstanceRecord:
    spec = OnlineDeploymentSpec(code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"))
    return InstanceRecord(
        id=id,
        place=Place("shop", "blue", 1, 0),
        template=DeploymentDesired(generation=1, spec=spec, code=Artifact(digest="c" * 64, name="src")),
        address="127.0.0.1:1",
        started_at=started_at,
        process=ProcessIdentity(1, 1, "b"),
    )


async def test_what_the_log_did_not_take_is_told_later_in_order_and_once(tmp_path: Path, log: Log) -> None:
    began = datetime.now(UTC) - timedelta(seconds=60)
    usage = meter(tmp_path, log)
    usage.begin(record("a", began), began)
    await usage.flush()
    log.cut = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            await usage.flush()
    log.cut = False
    usage.end("a", datetime.now(UTC))
    await usage.flush()
    assert [each.sequence for each in log.records] == list(range(1, len(log.records) + 1))
    assert log.ids == [f"p/1/shop/blue/{each.sequence}" for each in log.records]
    assert log.records[0].started_at == began
    assert all(before.ended_at == after.started_at for before, after in pairwise(log.records))
    told = sum(each.quantities[METER] for each in log.records)
    assert told == (log.records[-1].ended_at - began) // timedelta(microseconds=1)


async def test_after_a_restart_an_adopted_instance_is_counted_from_where_the_log_ends(tmp_path: Path, log: Log) -> None:
    began = datetime.now(UTC) - timedelta(seconds=60)
    before = meter(tmp_path, log)
    adopted = record("a", began)
    assert before.counted_to(adopted) == began
    before.begin(adopted, began)
    await before.flush()
    told = list(log.records)  # one, or two when the minute lies across an hour
    after = meter(tmp_path, log, epoch=2)
    assert after.counted_to(adopted) == told[-1].ended_at
    newer = record("b", datetime.now(UTC))
    assert after.counted_to(newer) == newer.started_at
    after.begin(adopted, after.counted_to(adopted))
    await after.flush()
    more = log.records[len(told) :]
    assert {each.epoch for each in told} == {1}
    assert [(each.epoch, each.sequence) for each in more] == [(2, number) for number in range(1, len(more) + 1)]
    assert more[0].started_at == told[-1].ended_at


async def test_it_rests_while_nothing_runs(tmp_path: Path, log: Log) -> None:
    usage = meter(tmp_path, log)
    running = asyncio.create_task(usage.run())
    await asyncio.sleep(0)
    usage.begin(record("a", datetime.now(UTC)), datetime.now(UTC) - timedelta(seconds=1))
    async with asyncio.timeout(10):
        while not log.records:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    usage.end("a", datetime.now(UTC))
    await usage.flush()
    assert not usage._running.is_set()
    running.cancel()
