"""Resume from every prefix: a job is cut off before and after each thing that it does for good, and goes on.

The steps, the folder and the ledger are the real ones. The log is a list, a worker answers at once, and what a process
does for good is what it writes into its folder or into the log: cut off means that none of it happens any more.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batch_runner import scoring
from batch_runner.folder import JobFolder
from batch_runner.job import JobRun, Surroundings
from batch_runner.ledger import JobLedger
from batch_runner.machine import Machine
from batch_runner.plan import Plan
from batch_runner.preparation import Prepared
from batch_runner.settings import BatchRunnerSettings
from batch_runner.worker import Answer
from contracts.envelope import Record
from contracts.instance_time import InstanceTime
from contracts.messages import (
    Artifact,
    BatchDefaults,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchInput,
    BatchJob,
    BatchResources,
    BatchSettings,
    CancelBatchJob,
    CodeConfiguration,
    DeploymentDesired,
    EndpointDesired,
    Message,
    RetrySettings,
    StartBatchJob,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CODE = Artifact(digest="c" * 64, name="src")
LASTING = ("write_plan", "write_failure", "write_segment", "write_output", "discard_output", "tidy")
"""What a folder's methods do for good."""


class CutOff(BaseException):
    """The process is gone."""


class World:
    """Log and disk, which outlive a process, and the process's next moments: it is cut off after `allowed` of them."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, bad: str = ""):
        self.home, self.bad = home, bad
        self.log: list[BatchJob] = []
        self.scored: list[str] = []
        self.settled: Counter[int] = Counter()
        self.allowed: float = float("inf")
        self.on_moment: Callable[[int], None] = lambda moment: None
        self.moments = 0
        self.input = home / "in"
        self.input.mkdir(parents=True)
        for name in "abcdefg":
            (self.input / name).touch()
        for name in LASTING:
            monkeypatch.setattr(JobFolder, name, self._lasting(getattr(JobFolder, name)))
        world = self

        class InstantWorker:
            alive, pid = True, 1

            @classmethod
            async def start(cls, launch: Any) -> "InstantWorker":
                return cls()

            async def score(self, index: int, files: list[str], seconds: float) -> Answer:
                await asyncio.sleep(0)
                world.scored += (names := [os.path.basename(file) for file in files])
                if world.bad in names:
                    return Answer(error="ValueError: bad")
                return Answer(rows=len(names), content="".join(f"{name}\n" for name in names).encode())

            async def stop(self, seconds: float) -> None:
                self.alive = False

            async def kill(self) -> None:
                self.alive = False

        monkeypatch.setattr(scoring, "Worker", InstantWorker)

    def moment(self) -> None:
        """One side of something that lasts: the process may be gone before it, or right after it."""
        if self.moments >= self.allowed:
            raise CutOff
        self.moments += 1
        self.on_moment(self.moments)

    def _lasting(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def lasting(folder: JobFolder, *arguments: Any) -> Any:
            self.moment()
            if method.__name__ == "write_segment":
                self.settled[arguments[0].index] += 1
            result = method(folder, *arguments)
            self.moment()
            return result

        return lasting

    # The log

    async def commit(self, partition: int, change: Callable[[JobLedger], Sequence[Message]]) -> None:
        self.moment()
        self._write(change(self.ledger))
        self.moment()

    def command(self, command: Message) -> None:
        self._write(self.ledger.process([(Record("batch.commands", 0, 0, "job", b""), command)], NOON))

    def _write(self, messages: Sequence[Message]) -> None:
        self.log += [message for message in messages if isinstance(message, BatchJob)]

    # A process

    async def live(self, allowed: float) -> bool:
        """Run the job in a new process; whether that ended it before the process was cut off."""
        self.ledger = JobLedger()
        for document in self.log:
            self.ledger.restore(document)
        self.moments, self.allowed = 0, float("inf")
        if not self.log:
            given = BatchInput(uri=self.input.as_uri())
            self.command(StartBatchJob(job="job", endpoint="diabetes", input=given, output=str(self.home / "out")))
        if not self.ledger.open:
            return True
        self.allowed = allowed
        around: Any = Surroundings(
            BatchRunnerSettings(home=self.home, max_workers=2),
            self,  # type: ignore[arg-type]
            self.endpoint,
            self,  # type: ignore[arg-type]
            Machine(2),
            InstanceTime("test", 1),
            self,  # type: ignore[arg-type]
        )
        self.run = JobRun("job", 0, self.ledger, around)
        try:
            await asyncio.wait_for(self.run.run(), 30)
        except CutOff:
            return False
        return True

    def put(self, id: str, message: Message) -> None:
        """The outbox: what a process tells of its progress does not last here."""

    async def of(self, plan: Plan, told: Callable[[str], None]) -> Prepared:
        """The preparation: everything is there."""
        return Prepared(Path("python"), "3.11.2", Path("runtime"), self.home / "code", None)

    async def endpoint(self, name: str) -> EndpointDesired:
        settings = BatchSettings(
            mini_batch_size=2, error_threshold=1 if self.bad else -1, retry_settings=RetrySettings(max_retries=0)
        )
        spec = BatchDeploymentSpec(
            code_configuration=CodeConfiguration(code="src", scoring_script="score.py"),
            resources=BatchResources(instance_count=2),
            settings=settings,
        )
        return EndpointDesired(
            endpoint=name,
            generation=1,
            created_at=NOON,
            updated_at=NOON,
            spec=BatchEndpointSpec(defaults=BatchDefaults(deployment_name="blue")),
            deployments={"blue": DeploymentDesired(generation=1, spec=spec, code=CODE)},
        )

    # What came of it

    @property
    def status(self) -> str:
        return self.log[-1].status

    def clean(self) -> bool:
        """Whether nothing is left but the logs, the plan, and the output."""
        left = {file.name for file in (self.home / "jobs" / "job").iterdir()} - {"lock", "logs", "plan.json"}
        return not left and not list(self.home.glob(".building*"))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., World]:
    made: list[World] = []

    def make(bad: str = "") -> World:
        monkeypatch.undo()
        made.append(World(tmp_path / str(len(made)), monkeypatch, bad))
        return made[-1]

    return make


def completed(world: World) -> None:
    assert world.status == "Completed"
    assert (world.home / "out" / "predictions.csv").read_text() == "a\nb\nc\nd\ne\nf\ng\n"
    assert (world.log[-1].rows, world.log[-1].files.succeeded, world.log[-1].mini_batches_done) == (7, 7, 4)
    assert all(one.stopped_at for one in world.log[-1].compute)
    assert set(world.settled.values()) == {1}, "a settled mini-batch was run again"


def failed(world: World) -> None:
    assert world.status == "Failed"
    assert "2 files failed, more than the error_threshold of 1" in world.log[-1].message
    assert not (world.home / "out").exists()


def canceled(world: World) -> None:
    assert world.status == "Canceled"
    assert not (world.home / "out").exists()


async def moments_of(world: World) -> int:
    """How many moments the job has when nothing cuts it off."""
    assert await world.live(float("inf"))
    return world.moments


@pytest.mark.parametrize(("bad", "check"), [("", completed), ("c", failed)])
async def test_a_job_that_is_cut_off_at_any_moment_ends_as_if_it_had_not_been(
    world: Callable[..., World], bad: str, check: Callable[[World], None]
) -> None:
    whole = world(bad)
    moments = await moments_of(whole)
    check(whole)
    assert whole.clean()
    for cut in range(moments):
        resumed = world(bad)
        assert await resumed.live(cut) or await resumed.live(float("inf"))
        check(resumed)
        assert resumed.clean(), f"cut off at {cut}"


@pytest.mark.parametrize(("bad", "check"), [("", completed), ("c", failed)])
@pytest.mark.parametrize("step", [5, 6, 7])
async def test_a_job_that_is_cut_off_again_and_again_ends_all_the_same(
    world: Callable[..., World], bad: str, check: Callable[[World], None], step: int
) -> None:
    cut_often = world(bad)
    lives = 1
    while not await cut_often.live(step):
        lives += 1
        assert lives < 200
    check(cut_often)
    assert cut_often.clean()


async def test_a_cancel_at_any_moment_leaves_nothing_also_when_the_process_is_cut_off_right_after(
    world: Callable[..., World],
) -> None:
    moments = await moments_of(world())
    for at in range(1, moments):
        for cut in (float("inf"), at, at + 1, at + 2):
            stopped = world()

            def cancel(moment: int, stopped: World = stopped, at: int = at) -> None:
                if moment == at:
                    stopped.command(CancelBatchJob(job="job"))
                    stopped.run.cancel()

            stopped.on_moment = cancel
            ended = await stopped.live(cut)
            stopped.on_moment = lambda moment: None
            assert ended or await stopped.live(float("inf"))
            if stopped.log[-1].status != "Completed":
                canceled(stopped)
            else:
                completed(stopped)
                assert "CancelRequested" not in {document.status for document in stopped.log}
            assert stopped.clean(), f"canceled at {at}, cut off at {cut}"
