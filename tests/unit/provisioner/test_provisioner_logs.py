"""What is told of instances: their logs, the events about them, and what the machine has."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.log import Offset
from contracts.messages import CodeConfiguration, DeploymentDesired, DeploymentEvent, GetLogs, Message
from contracts.messages import OnlineDeploymentSpec as Spec
from provisioner.compute.logs import append
from provisioner.compute.records import InstanceFolder
from provisioner.core.lifecycle import Instance, Phase, Place
from provisioner.core.world import Machine
from provisioner.events import Events
from provisioner.logs import MOST_BYTES, Logs
from provisioner.machine import this_machine

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 20
BLUE = DeploymentDesired(generation=3, spec=Spec(code_configuration=CodeConfiguration(code="/s", scoring_script="s")))


class Home:
    """Instances of which only the output matters."""

    def __init__(self, path: Path):
        self.path = path
        self.tracked: list[Any] = []
        self.ended: list[Path] = []
        preparation: Any = SimpleNamespace(log_file=lambda *key: path / "{}.{}.{}.log".format(*key))
        compute: Any = SimpleNamespace(kept_consoles=lambda endpoint, deployment: self.ended)
        self.logs = Logs(lambda: self.tracked, compute, preparation)

    def runs(self, id: str, text: str, phase: Phase = Phase.READY, deployment: str = "blue") -> None:
        folder = InstanceFolder(self.path / id)
        folder.path.mkdir()
        folder.console.write_text(text)
        instance = Instance(id, Place("shop", deployment, 3, 0), "127.0.0.1:1", NOON, phase, since=0.0)
        self.tracked.append(SimpleNamespace(instance=instance, process=SimpleNamespace(folder=folder)))

    def failed(self, id: str, text: str) -> None:
        path = self.path / f"{id}.log"
        path.write_text(text)
        self.ended.append(path)

    def read(self, **question: Any) -> str:
        return self.logs.read(GetLogs(endpoint="shop", deployment="blue", **question), BLUE)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_one_instance_speaks_for_itself_and_several_by_name(home: Home) -> None:
    home.runs("a", "one\ntwo\n")
    home.runs("green", "not mine\n", deployment="green")
    assert home.read() == "one\ntwo\n"
    home.runs("b", "three\n", Phase.STARTING)
    assert home.read(lines=1) == "==> a (ready) <==\ntwo\n\n==> b (starting) <==\nthree\n"
    assert home.read(instance="b") == "three\n"


def test_while_none_is_ready_the_one_that_failed_last_is_heard(home: Home) -> None:
    home.failed("late", "ValueError\n")
    home.failed("early", "KeyError\n")
    assert home.read() == "ValueError\n"
    home.runs("a", "starting\n", Phase.STARTING)
    assert "==> late (it has ended) <==\nValueError\n" in home.read()
    home.runs("b", "ready\n")
    assert "ValueError" not in home.read()
    assert home.read(instance="early") == "KeyError\n"


def test_an_instance_that_never_was_is_told_with_those_that_are(home: Home) -> None:
    home.runs("a", "")
    with pytest.raises(LookupError, match="'c' is no instance of 'blue', which has a"):
        home.read(instance="c")


def test_the_preparation_is_that_of_the_generation_that_is_desired(home: Home) -> None:
    assert "nothing was prepared yet for generation 3" in home.read(container="storage-initializer")
    (home.path / "shop.blue.3.log").write_text("pulling\nbuilding\n")
    assert home.read(container="storage-initializer", lines=1) == "building\n"
    assert "no instance of 'blue' has run yet" in home.read()


@pytest.mark.parametrize("instances", [1, 3])
def test_an_answer_holds_the_newest_of_what_is_too_long(home: Home, instances: int) -> None:
    for number in range(instances):
        home.runs(f"i{number}", "é" * 99 + "\n" + "é\n" * MOST_BYTES + "the end\n")
    text = home.read(lines=100_000)
    assert len(text.encode()) <= MOST_BYTES
    assert text.count("the end") == instances


class Log:
    """Takes events; while `cut` it takes none."""

    def __init__(self) -> None:
        self.cut = False
        self.taken: list[str] = []
        self.moved = asyncio.Event()

    async def publish(self, message: Message, *, id: str | None = None) -> Offset:
        self.moved.set()
        if self.cut:
            raise ConnectionError("cut off")
        assert isinstance(message, DeploymentEvent)
        self.taken.append(message.message)
        return Offset("t", 0, 0)

    async def until(self, taken: Sequence[str]) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.taken != list(taken):
                self.moved.clear()
                await self.moved.wait()


async def test_events_are_written_in_order_and_nobody_waits_for_the_log() -> None:
    log = Log()
    events = Events(log)
    log.cut = True
    work = asyncio.create_task(events.run())
    events.tell("shop", "blue", "Ready", "lost")
    await asyncio.wait_for(log.moved.wait(), PATIENCE)
    log.cut = False
    events.tell("shop", "blue", "Killing", "x" * 5000, "i")
    events.tell("shop", "blue", "Ready", "last")
    await log.until(["x" * 4000, "last"])
    work.cancel()


@pytest.mark.parametrize(
    ("files", "cores", "gib"),
    [
        ({"cpu.max": "50000 100000", "memory.max": str(1 << 30)}, 0.5, 1.0),
        ({"cpu/cpu.cfs_quota_us": "25000", "cpu/cpu.cfs_period_us": "50000"}, 0.5, None),
        ({"memory/memory.limit_in_bytes": str(3 << 29)}, None, 1.5),
        ({"cpu.max": "max 100000", "memory.max": "max"}, None, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "50000"}, None, None),
        ({}, None, None),
    ],
)
def test_a_machine_has_what_its_container_leaves_it(
    tmp_path: Path, files: dict[str, str], cores: float | None, gib: float | None
) -> None:
    whole = this_machine(tmp_path / "nothing")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    expected = Machine(whole.cores if cores is None else cores, whole.memory_gib if gib is None else gib)
    assert this_machine(tmp_path) == expected


def test_a_text_that_is_added_to_for_ever_stays_bounded_and_ends_with_the_newest(tmp_path: Path) -> None:
    text, longest = tmp_path / "text.log", 0
    for number in range(200):
        append(text, f"line {number:04} é\n", 1000)
        longest = max(longest, text.stat().st_size)
        lines = text.read_text().splitlines()
        first = int(lines[0].split()[1])
        assert lines == [f"line {each:04} é" for each in range(first, number + 1)], "whole lines, none missing between"
    assert 900 < longest <= 1000
    append(text, "x" * 5000 + "\n", 1000)
    assert text.read_text() == "x" * 499 + "\n", "of one line that is too long, the end"
