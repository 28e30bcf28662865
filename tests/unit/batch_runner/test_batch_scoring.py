"""Which worker runs which mini-batch, and what becomes of the job, with workers that are told what to do."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from batch_runner import scoring
from batch_runner.folder import JobFolder
from batch_runner.plan import Plan
from batch_runner.preparation import Prepared
from batch_runner.scoring import JobFailedError, Limits, Progress, Scoring, environment
from batch_runner.worker import Answer, StartError
from contracts.instance_time import InstanceTime
from contracts.messages import (
    Artifact,
    BatchDeploymentSpec,
    BatchResources,
    BatchSettings,
    CodeConfiguration,
    MiniBatchEnded,
    RetrySettings,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
OK = Answer(rows=1, content=b"row\n")
PREPARED = Prepared(
    Path("/env/bin/python"), "3.12.1", Path("/runtime"), Path("/artifacts/src"), Path("/artifacts/m/model")
)


class Shop:
    """Makes workers. `starts` and `answers` are asked in order of need; None is success, a text is what goes wrong."""

    def __init__(self, starts: list[str | None], answer: Callable[[int, int], str | None], fatal: str = ""):
        self.starts, self.answer, self.fatal = starts, answer, fatal
        self.attempts: Counter[int] = Counter()
        self.alive: set[Any] = set()
        self.started = 0
        shop = self

        class ToldWorker:
            pid = 1

            def __init__(self) -> None:
                self.alive = True
                shop.alive.add(self)

            @classmethod
            async def start(cls, launch: Any) -> "ToldWorker":
                await asyncio.sleep(0)
                shop.started += 1
                if reason := (shop.starts.pop(0) if shop.starts else None):
                    raise StartError(reason)
                return cls()

            async def score(self, index: int, files: list[str], seconds: float) -> Answer:
                await asyncio.sleep(0)
                shop.attempts[index] += 1
                reason = shop.answer(index, shop.attempts[index])
                if reason and reason == shop.fatal:
                    await self.kill()
                return Answer(error=reason) if reason else OK

            async def stop(self, seconds: float) -> None:
                await self.kill()

            async def kill(self) -> None:
                self.alive = False
                shop.alive.discard(self)

        self.worker = ToldWorker


class Job:
    """One job of seven files in seven mini-batches."""

    def __init__(self, home: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch, workers: int, **settings: Any):
        monkeypatch.setattr(scoring, "Worker", shop.worker)
        retries = RetrySettings(max_retries=settings.pop("max_retries", 1))
        spec = BatchDeploymentSpec(
            code_configuration=CodeConfiguration(code="src", scoring_script="score.py"),
            resources=BatchResources(instance_count=workers),
            settings=BatchSettings(mini_batch_size=1, retry_settings=retries, **settings),
        )
        self.folder = JobFolder(home, "job")
        output = str(home / "out")
        code = Artifact(digest="c" * 64, name="src")
        plan = Plan(NOON, "diabetes", "blue", spec, code, None, "/in", tuple("abcdefg"), output)
        self.plan = self.folder.write_plan(plan)
        self.progress = Progress()
        self.told: list[MiniBatchEnded] = []

    async def run(self) -> None:
        told = environment(self.plan, PREPARED, Path("/building"), self.folder.root, {})
        await Scoring(
            "job",
            self.plan,
            self.folder,
            self.progress,
            PREPARED.command,
            told,
            Limits(1, 1),
            InstanceTime("s", 1),
            self._publish,
            self._ready,
        ).run()

    def _publish(self, id: str, message: MiniBatchEnded) -> None:
        self.told.append(message)

    async def _ready(self) -> None:
        await asyncio.sleep(0)

    def all_stopped(self) -> bool:
        return all(one.stopped_at is not None for one in self.progress.compute.values())


async def test_every_mini_batch_is_settled_once_and_a_retry_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop([], lambda index, attempt: "bad" if index in (2, 5) and attempt == 1 else None)
    job = Job(tmp_path, shop, monkeypatch, workers=3)
    await job.run()
    assert sorted(job.folder.segments()) == list(range(7))
    assert job.progress.tally.rows == 7
    assert shop.attempts == Counter({0: 1, 1: 1, 2: 2, 3: 1, 4: 1, 5: 2, 6: 1})
    assert Counter(one.outcome for one in job.told) == {"Succeeded": 7, "Retrying": 2}
    assert (shop.alive, shop.started, len(job.progress.compute), job.all_stopped()) == (set(), 3, 3, True)


async def test_a_worker_that_cannot_be_started_leaves_its_share_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(tmp_path, Shop(["no memory", None], lambda index, attempt: None), monkeypatch, workers=2)
    await job.run()
    assert job.progress.tally.succeeded_files == 7
    assert "no memory" in (tmp_path / "jobs/job/logs/user/error.txt").read_text()


async def test_a_script_that_cannot_be_started_anywhere_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(["no model"] * 2, lambda index, attempt: None)
    job = Job(tmp_path, shop, monkeypatch, workers=2)
    with pytest.raises(JobFailedError, match="no model"):
        await job.run()
    assert (shop.started, job.folder.segments(), job.told) == (2, {}, [])
    assert job.all_stopped()


async def test_a_dead_worker_is_replaced_and_when_it_cannot_be_the_job_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies_at_three(index: int, attempt: int) -> str | None:
        return "died" if index == 3 and attempt == 1 else None

    shop = Shop([], dies_at_three, fatal="died")
    await Job(tmp_path / "a", shop, monkeypatch, workers=1).run()
    assert (shop.started, shop.attempts[3]) == (2, 2)
    shop = Shop([None, "gone"], dies_at_three, fatal="died")
    job = Job(tmp_path / "b", shop, monkeypatch, workers=1)
    with pytest.raises(JobFailedError, match="gone"):
        await job.run()
    assert sorted(job.folder.segments()) == [0, 1, 2]


@pytest.mark.parametrize(("threshold", "fails"), [(-1, False), (7, False), (6, True), (0, True)])
async def test_the_threshold_ends_the_job_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: int, fails: bool
) -> None:
    shop = Shop([], lambda index, attempt: f"bad {index}")
    job = Job(tmp_path, shop, monkeypatch, workers=1, error_threshold=threshold, max_retries=0)
    if fails:
        with pytest.raises(JobFailedError, match=f"error_threshold of {threshold}.*The last error: bad {threshold}"):
            await job.run()
        assert len(job.folder.segments()) == threshold + 1
    else:
        await job.run()
        assert job.progress.tally.failed_files == 7
    assert (shop.alive, job.all_stopped()) == (set(), True)


async def test_summary_only_keeps_no_rows_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path, Shop([], lambda index, attempt: None), monkeypatch, workers=1, output_action="summary_only")
    await job.run()
    assert job.progress.tally.rows == 7
    job.folder.write_output(job.plan)
    assert list((tmp_path / "out").iterdir()) == []


async def test_a_job_that_is_dropped_leaves_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop([], lambda index, attempt: "bad")
    job = Job(tmp_path, shop, monkeypatch, workers=2, max_retries=100)
    running = asyncio.create_task(job.run())
    while not shop.alive:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait({running})
    assert (running.cancelled(), shop.alive, job.all_stopped()) == (True, set(), True)


def test_a_worker_is_told_nothing_of_the_runners_own_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"MY_OWN": "x", "AML_APP_ROOT": "/elsewhere", "PYTHONPATH": "/elsewhere"}
    job = Job(tmp_path, Shop([], lambda *_: None), monkeypatch, workers=1, environment_variables=given)
    outer = {"PATH": "/bin", "HOME": "/root", "KAFKA_SASL_PASSWORD": "secret", "ENDPUNKT_HOME": "/x", "AWS_KEY": "y"}
    assert environment(job.plan, PREPARED, Path("/building"), Path("/jobs/job"), outer) == {
        "PATH": "/bin",
        "HOME": "/jobs/job",
        "MY_OWN": "x",
        "AML_APP_ROOT": "/artifacts/src",
        "AZUREML_MODEL_DIR": "/artifacts/m",
        "PYTHONPATH": "/runtime",
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_BI_OUTPUT_PATH": "/building",
        "ENDPUNKT_BATCH_JOB": "/jobs/job",
    }


@pytest.mark.parametrize(
    ("version", "flags"), [("3.9.18", []), ("3.10.13", []), ("3.11.2", ["-P"]), ("3.12.1", ["-P"])]
)
def test_a_worker_imports_nothing_from_the_scripts_folder_where_python_can_be_told_so(
    version: str, flags: list[str]
) -> None:
    command = replace(PREPARED, version=version).command
    assert command == ["/env/bin/python", *flags, "-m", "inference_server.batch"]
