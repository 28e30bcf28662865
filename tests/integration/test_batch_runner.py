"""The batch-runner as a process, with real workers and a real Kafka: jobs from their command to their end."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from contracts.artifacts.store import ArtifactStore
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import (
    Artifact,
    BatchDefaults,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchInput,
    BatchJob,
    BatchOverrides,
    BatchResources,
    BatchSettings,
    CancelBatchJob,
    CodeConfiguration,
    DeadLetter,
    DeploymentDesired,
    EndpointDesired,
    EnvironmentDesired,
    MiniBatchEnded,
    OnlineEndpointSpec,
    RetrySettings,
    StartBatchJob,
    UsageRecorded,
)
from endpunkt_infra.services import ServiceProcess

PATIENCE = 60
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
GONE = Artifact(digest="c" * 64, name="src")

# What a file's name says is what the script does with it: the first time only where it says "once".
SCRIPT = """
import os, pathlib, signal, time

CONTROL = pathlib.Path(os.environ["CONTROL"])

def first_time(name):
    try:
        (CONTROL / ("seen-" + name)).touch(exist_ok=False)
        return True
    except FileExistsError:
        return False

def init():
    global factor
    if os.environ.get("INIT") == "raise":
        raise RuntimeError("the model is broken")
    factor = int((pathlib.Path(os.environ["AZUREML_MODEL_DIR"]) / "model.txt").read_text())
    leaked = [name for name in os.environ if name.startswith(("KAFKA", "ENDPUNKT_")) and name != "ENDPUNKT_BATCH_JOB"]
    assert not leaked, leaked

def run(mini_batch):
    rows = []
    for path in mini_batch:
        name = os.path.basename(path)
        with open(CONTROL / "calls", "a", errors="surrogateescape") as calls:
            calls.write(name + "\\n")
        once = "once" not in name or first_time(name)
        if "raise" in name and once:
            raise ValueError("bad data in " + name)
        if "hang" in name and once:
            time.sleep(3600)
        if "die" in name and once:
            os.kill(os.getpid(), signal.SIGKILL)
        while "wait" in name and not (CONTROL / "go").exists():
            time.sleep(0.01)
        with open(path) as lines:
            rows += [f"{name},{factor * int(line)}" for line in lines]
    (pathlib.Path(os.environ["AZUREML_BI_OUTPUT_PATH"]) / "extra.txt").write_text("by the script")
    return rows
"""


class Ground:
    """A home with the artifacts, an input folder, and everything that the batch-runner says."""

    def __init__(self, kafka: KafkaSettings, home: Path, name: str):
        self.kafka, self.home, self.endpoint = kafka, home, name
        self.input, self.control = home / "in put", home / "control"
        self.publisher = Publisher(kafka, "test")
        self.jobs = Table(BatchJob, self._on_job)
        self.statuses: dict[str, list[str]] = {}
        self.attempts: list[MiniBatchEnded] = []
        self.usage: list[UsageRecorded] = []
        self.letters: list[DeadLetter] = []
        self._moved = asyncio.Condition()
        sinks: dict[str, list[Any]] = {
            "batch.progress": self.attempts,
            "usage.events": self.usage,
            "deadletter.batch-runner": self.letters,
        }
        tails = [Tail(topic, lambda record, message: sinks[record.topic].append(message)) for topic in sinks]
        self.reader = Reader(kafka, [self.jobs, *tails], DeadLetters(self.publisher, "studio"), self._notify)

    async def start(self) -> None:
        self.input.mkdir(parents=True)
        self.control.mkdir()
        self.code = await self.stored("src/score.py", SCRIPT, folder=True)
        self.model = await self.stored("model.txt", "10")
        await self.publisher.start()
        await self.reader.start()

    async def stored(self, name: str, content: str, folder: bool = False) -> Artifact:
        """An artifact of one file (in a folder), in the store, as the provisioner would put it there."""
        file = self.home / "given" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        store = ArtifactStore(str(self.home / "store"), self.home / "artifacts", 1 << 30)
        return await asyncio.to_thread(store.add, file.parent if folder else file)

    async def stop(self) -> None:
        await self.reader.stop()
        await self.publisher.stop()

    def _on_job(self, key: str, document: BatchJob | None) -> None:
        if document is not None and self.statuses.setdefault(key, [""])[-1] != document.status:
            self.statuses[key].append(document.status)

    async def _notify(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Until what was read makes it true."""
        async with self._moved:
            await asyncio.wait_for(self._moved.wait_for(condition), PATIENCE)

    async def until_on_disk(self, condition: Callable[[], bool]) -> None:
        """Until what other processes have done makes it true."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what others write to disk is no event here
                await asyncio.sleep(0.02)

    async def deploy(
        self,
        environment: dict[str, str] | None = None,
        instances: int = 1,
        packages: Artifact | None = None,
        code: Artifact | None = None,
        **settings: Any,
    ) -> None:
        """The endpoint with its default deployment `linear`, as the provisioner would desire it."""
        given = {"mini_batch_size": 2, "retry_settings": RetrySettings(max_retries=1, timeout=30), **settings}
        spec = BatchDeploymentSpec(
            code_configuration=CodeConfiguration(code="src", scoring_script="score.py"),
            resources=BatchResources(instance_count=instances),
            settings=BatchSettings(
                environment_variables={"CONTROL": str(self.control), **(environment or {})}, **given
            ),
        )
        await self.publisher.publish(
            EndpointDesired(
                endpoint=self.endpoint,
                generation=1,
                created_at=NOON,
                updated_at=NOON,
                spec=BatchEndpointSpec(defaults=BatchDefaults(deployment_name="linear")),
                deployments={
                    "linear": DeploymentDesired(
                        generation=1,
                        spec=spec,
                        code=code or self.code,
                        model=self.model,
                        environment=packages and EnvironmentDesired(artifact=packages),
                    )
                },
            )
        )

    def write(self, *names: str) -> list[str]:
        """A file of two lines for each name; returns the rows that they give."""
        rows = []
        for number, name in enumerate(names):
            (self.input / name).write_text(f"{number}\n{number + 100}\n")
            rows += [f"{name},{number * 10}", f"{name},{(number + 100) * 10}"]
        return rows

    async def begin(self, job: str, **fields: Any) -> StartBatchJob:
        given = {"input": BatchInput(uri=self.input.as_uri()), "endpoint": self.endpoint, **fields}
        command = StartBatchJob(job=job, **given)
        await self.publisher.publish(command)
        return command

    async def end_of(self, job: str) -> BatchJob:
        """The job's last document, once it has ended; nothing of it may run then."""
        await self.until(lambda: self.status(job) in ("Completed", "Failed", "Canceled"))
        document = self.jobs.entries[job]
        assert self.processes(job) == []
        assert all(instance.stopped_at is not None for instance in document.compute)
        assert not (self.home / "jobs" / job / "segments").exists()
        assert list((self.home / "jobs" / job).glob(".building*")) == []
        return document

    async def run(self, job: str, **fields: Any) -> BatchJob:
        await self.begin(job, **fields)
        return await self.end_of(job)

    def status(self, job: str) -> str:
        return self.jobs.entries[job].status if job in self.jobs.entries else ""

    def processes(self, job: str) -> list[int]:
        """The living processes that carry the job's mark."""
        mark = f"ENDPUNKT_BATCH_JOB={self.home / 'jobs' / job}".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    found.append(int(folder.name))
            except OSError:
                continue
        return found

    def calls(self) -> list[str]:
        """The files that the script was called with, in order."""
        file = self.control / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def output(self, job: str) -> list[str]:
        return (self.home / "jobs" / job / "output" / "predictions.csv").read_text().splitlines()

    def attempts_of(self, job: str) -> list[tuple[int, int, str]]:
        found = [(one.mini_batch, one.attempt, one.outcome) for one in self.attempts if one.job == job]
        return sorted(found)


@pytest.fixture
async def ground(kafka: KafkaSettings, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Ground]:
    name = request.node.name.removeprefix("test_").replace("_", "-")[:30].strip("-")
    ground = Ground(kafka, tmp_path, name)
    await ground.start()
    yield ground
    await ground.stop()


@pytest.fixture
async def runner(ground: Ground, start_service: Callable[..., ServiceProcess]) -> ServiceProcess:
    return await asyncio.to_thread(start_service, "batch-runner", usage_seconds="0.5", max_workers="4")


SEVEN = [f"patients-{number}.csv" for number in range(7)]


async def test_a_job_scores_every_file_once_on_compute_that_is_gone_afterwards(
    ground: Ground, runner: ServiceProcess
) -> None:
    rows = ground.write(*SEVEN)
    await ground.deploy(instances=2)
    ended = await ground.run("happy")
    assert ground.statuses["happy"][1:] == ["Queued", "Provisioning", "Running", "Finalizing", "Completed"]
    assert ground.output("happy") == rows
    assert (ended.deployment, ended.rows, ended.mini_batches, ended.mini_batches_done) == ("linear", 14, 4, 4)
    assert (ended.files.total, ended.files.succeeded, ended.files.failed) == (7, 7, 0)
    output = ground.home / "jobs" / "happy" / "output"
    assert (ended.output, ended.output_file) == (output.as_uri(), (output / "predictions.csv").as_uri())
    assert (output / "extra.txt").read_text() == "by the script"
    overview = ground.home / "jobs/happy/logs/job_progress_overview.txt"  # follows the log
    await ground.until_on_disk(lambda: "Completed" in overview.read_text())
    await ground.until(lambda: len(ground.attempts_of("happy")) == 4)
    assert ground.attempts_of("happy") == [(index, 1, "Succeeded") for index in range(4)]


async def test_instance_time_is_told_to_the_microsecond(ground: Ground, runner: ServiceProcess) -> None:
    ground.write(*SEVEN[:3])
    await ground.deploy(instances=2, max_concurrency_per_instance=2)
    ended = await ground.run("paid")
    assert len(ended.compute) == 2
    lived = sum(((one.stopped_at or NOON) - one.started_at for one in ended.compute), timedelta())

    def told() -> int:
        mine = [one for one in ground.usage if one.endpoint == ground.endpoint]
        return sum(one.quantities["instance-time/Standard_DS1_v2"] for one in mine)

    await ground.until(lambda: told() >= lived // timedelta(microseconds=1))
    assert told() == lived // timedelta(microseconds=1)
    mine = [one for one in ground.usage if one.endpoint == ground.endpoint]
    assert [one.sequence for one in mine] == list(range(1, len(mine) + 1))


async def test_what_fails_is_tried_again_and_its_rows_are_there_once(ground: Ground, runner: ServiceProcess) -> None:
    names = ["a-once-raise", "b", "c-once-die", "d", "e-once-hang", "f"]
    rows = ground.write(*names)
    await ground.deploy()
    ended = await ground.run("retried", overrides=BatchOverrides(timeout=1))
    assert ended.status == "Completed"
    assert ground.output("retried") == rows
    await ground.until(lambda: len(ground.attempts_of("retried")) == 6)
    assert ground.attempts_of("retried") == [
        (index, attempt, outcome) for index in range(3) for attempt, outcome in ((1, "Retrying"), (2, "Succeeded"))
    ]
    errors = {one.mini_batch: one.error or "" for one in ground.attempts if one.outcome == "Retrying"}
    assert errors[0] == "ValueError: bad data in a-once-raise"
    assert errors[1] == "the worker was killed by SIGKILL"
    assert errors[2] == "the mini-batch took longer than its timeout of 1 s"
    log = (ground.home / "jobs/retried/logs/user/error.txt").read_text()
    assert all(error in log for error in errors.values())
    assert "Traceback" in log


async def test_more_failed_files_than_the_threshold_fail_the_job_and_as_many_do_not(
    ground: Ground, runner: ServiceProcess
) -> None:
    rows = ground.write("a-raise", "b", "c", "d")
    await ground.deploy()
    forgiven = await ground.run("forgiven", overrides=BatchOverrides(error_threshold=2))
    assert (forgiven.status, forgiven.files.succeeded, forgiven.files.failed) == ("Completed", 2, 2)
    assert ground.output("forgiven") == rows[4:]
    failed = await ground.run("failed", overrides=BatchOverrides(error_threshold=1))
    assert failed.status == "Failed"
    assert "2 files failed, more than the error_threshold of 1" in failed.message
    assert "bad data in a-raise" in failed.message
    assert not (ground.home / "jobs/failed/output").exists()
    await ground.until(lambda: len(ground.attempts_of("failed")) >= 2)
    assert ground.attempts_of("failed")[:2] == [(0, 1, "Retrying"), (0, 2, "Failed")]


async def test_a_script_that_cannot_be_initialised_fails_the_job_with_its_traceback(
    ground: Ground, runner: ServiceProcess
) -> None:
    ground.write(*SEVEN)
    await ground.deploy({"INIT": "raise"}, instances=2)
    ended = await ground.run("broken")
    assert ended.status == "Failed"
    assert ended.message.startswith("UserScriptInitFailed: ")
    assert ended.message.endswith("RuntimeError: the model is broken")
    assert "score.py" in ended.message
    assert ground.calls() == []


async def test_everything_that_is_wrong_is_told_before_anything_starts(ground: Ground, runner: ServiceProcess) -> None:
    await ground.deploy()
    taken = ground.home / "taken"
    taken.mkdir()
    (taken / "precious").touch()
    missing = BatchInput(uri=(ground.home / "nothing").as_uri())
    ended = await ground.run(
        "wrong", input=missing, output=str(taken), overrides=BatchOverrides(instance_count=5, output_file_name="..")
    )
    assert (ended.status, ended.compute) == ("Failed", ())
    for text in ("nothing does not exist", "taken exists already", "5 workers", "room for 4", "output_file_name"):
        assert text in ended.message
    assert [file.name for file in taken.iterdir()] == ["precious"]
    nowhere = await ground.run("nowhere", endpoint="no-such", deployment="blue", input=missing)
    assert "ResourceNotFound: endpoint: there is no endpoint 'no-such'" in nowhere.message
    assert "nothing does not exist" in nowhere.message
    online = EndpointDesired(
        endpoint="online-one", generation=1, created_at=NOON, updated_at=NOON, spec=OnlineEndpointSpec()
    )
    await ground.publisher.publish(online)
    assert "is an online endpoint" in (await ground.run("online", endpoint="online-one")).message
    assert "holds no file" in (await ground.run("empty")).message
    assert ground.statuses["empty"][1:] == ["Queued", "Failed"]


async def test_a_cancel_ends_the_workers_and_leaves_no_output(ground: Ground, runner: ServiceProcess) -> None:
    ground.write("a", "b", "c-wait", "d")
    await ground.deploy()
    output = ground.home / "else where"
    await ground.begin("canceled", output=output.as_uri())
    await ground.until_on_disk(lambda: "c-wait" in ground.calls())
    await ground.publisher.publish(CancelBatchJob(job="canceled"))
    ended = await ground.end_of("canceled")
    assert ended.status == "Canceled"
    assert ground.statuses["canceled"][-2:] == ["CancelRequested", "Canceled"]
    assert not output.exists()
    assert list(ground.home.glob(".building*")) == []
    again = await ground.run(
        "again", output=output.as_uri(), input=BatchInput(type="uri_file", uri=f"{ground.input}/a")
    )
    assert (again.status, again.output) == ("Completed", output.as_uri())


async def test_a_worker_that_is_killed_from_outside_is_replaced(ground: Ground, runner: ServiceProcess) -> None:
    rows = ground.write("a-wait", "b", "c")
    await ground.deploy()
    await ground.begin("replaced")
    await ground.until_on_disk(lambda: ground.calls() == ["a-wait"])
    [pid] = ground.processes("replaced")
    os.kill(pid, signal.SIGKILL)
    await ground.until_on_disk(lambda: ground.calls() == ["a-wait"] * 2)
    (ground.control / "go").touch()
    assert (await ground.end_of("replaced")).status == "Completed"
    assert ground.output("replaced") == rows


async def test_a_runner_that_is_killed_leaves_no_worker_and_its_successor_does_exactly_the_rest(
    ground: Ground, runner: ServiceProcess
) -> None:
    names = ["a", "b", "c", "d", "e-wait", "f", "g"]
    rows = ground.write(*names)
    await ground.deploy()
    await ground.begin("killed")
    await ground.until_on_disk(lambda: "e-wait" in ground.calls())
    await ground.until(lambda: ground.status("killed") == "Running")
    before = ground.processes("killed")
    runner.kill()
    assert before
    await ground.deploy({"INIT": "raise"})  # the job goes on with what it began with
    await asyncio.to_thread(runner.start)
    await ground.until_on_disk(lambda: ground.calls().count("e-wait") == 2)
    assert not set(ground.processes("killed")) & set(before)
    (ground.control / "go").touch()
    ended = await ground.end_of("killed")
    assert ended.status == "Completed"
    assert ground.output("killed") == rows
    assert (ended.rows, ended.mini_batches_done, ended.files.succeeded) == (14, 4, 7)
    assert [ground.calls().count(name) for name in names] == [1, 1, 1, 1, 2, 1, 1]
    assert [one.id for one in ended.compute] == ["killed-0", "killed-1"]


async def test_a_graceful_stop_abandons_what_is_in_flight_and_the_next_start_finishes_it(
    ground: Ground, runner: ServiceProcess
) -> None:
    rows = ground.write("a", "b", "c-wait")
    await ground.deploy()
    await ground.begin("stopped")
    await ground.until_on_disk(lambda: "c-wait" in ground.calls())
    assert await asyncio.to_thread(runner.stop) == 0
    assert ground.processes("stopped") == []
    await ground.until(lambda: all(one.stopped_at for one in ground.jobs.entries["stopped"].compute))
    assert ground.status("stopped") == "Running"
    (ground.control / "go").touch()
    await asyncio.to_thread(runner.start)
    assert (await ground.end_of("stopped")).status == "Completed"
    assert ground.output("stopped") == rows
    assert [ground.calls().count(name) for name in ("a", "b", "c-wait")] == [1, 1, 2]


async def test_a_frozen_runner_is_fenced_when_it_wakes_and_its_job_ends_once(
    ground: Ground, runner: ServiceProcess, start_service: Callable[..., ServiceProcess]
) -> None:
    rows = ground.write("a", "b", "c-wait", "d")
    await ground.deploy()
    await ground.begin("frozen")
    await ground.until_on_disk(lambda: "c-wait" in ground.calls())
    await ground.until(lambda: ground.status("frozen") == "Running")
    assert runner.process is not None
    runner.process.send_signal(signal.SIGSTOP)
    try:
        successor = await asyncio.to_thread(start_service, "batch-runner")
    finally:
        runner.process.send_signal(signal.SIGCONT)
    await ground.until_on_disk(lambda: ground.calls().count("c-wait") == 2)
    (ground.control / "go").touch()
    assert (await ground.end_of("frozen")).status == "Completed"
    assert ground.output("frozen") == rows
    assert [ground.calls().count(name) for name in ("a", "b", "c-wait", "d")] == [1, 1, 2, 1]
    assert (runner.process.poll(), successor.process and successor.process.poll()) == (None, None)


async def test_names_of_any_bytes_are_scored_and_written_as_they_are(ground: Ground, runner: ServiceProcess) -> None:
    names = [b"a b.csv", "übung-日本.csv".encode(), b"line\nbreak.csv", b"caf\xe9.csv", b"-rf"]
    for name in names:
        (ground.input / os.fsdecode(name)).write_text("1\n")
    await ground.deploy()
    ended = await ground.run("names")
    assert (ended.status, ended.rows) == ("Completed", 5)
    written = (ground.home / "jobs/names/output/predictions.csv").read_bytes()
    assert written == b"".join(name + b",10\n" for name in sorted(names))


@pytest.mark.parametrize("trap", ["link out", "link to nothing", "pipe"])
async def test_an_input_that_leads_elsewhere_is_refused(ground: Ground, runner: ServiceProcess, trap: str) -> None:
    ground.write("a")
    await ground.deploy()
    if trap == "pipe":
        os.mkfifo(ground.input / trap)
    else:
        (ground.input / trap).symlink_to("/etc/passwd" if trap == "link out" else "/no/such")
    ended = await ground.run(f"trap-{trap.replace(' ', '-')}")
    assert ended.status == "Failed"
    assert f"'{trap}'" in ended.message
    assert ground.calls() == []


async def test_jobs_wait_in_order_while_the_machine_has_no_room(
    ground: Ground, start_service: Callable[..., ServiceProcess]
) -> None:
    await asyncio.to_thread(start_service, "batch-runner", max_workers="1")
    ground.write("a-wait")
    await ground.deploy()
    await ground.begin("first")
    await ground.until_on_disk(lambda: ground.calls() == ["a-wait"])
    await ground.begin("second")
    await ground.until_on_disk(lambda: (ground.home / "jobs/second/plan.json").exists())
    assert ground.status("second") == "Queued"
    (ground.control / "go").touch()
    first, second = await ground.end_of("first"), await ground.end_of("second")
    assert (first.status, second.status) == ("Completed", "Completed")
    assert first.compute[0].stopped_at is not None
    assert first.compute[0].stopped_at <= second.compute[0].started_at


async def test_a_repeated_id_changes_nothing_and_a_bad_record_is_parked(ground: Ground, runner: ServiceProcess) -> None:
    rows = ground.write("a")
    await ground.deploy()
    ended = await ground.run("once")
    await ground.begin("once", input=BatchInput(uri="file:///other"))
    raw = AIOKafkaProducer(**ground.kafka.client())
    await raw.start()
    headers = [("ce_type", StartBatchJob.TYPE.encode())]
    typo = json.dumps({"job": "typo", "endpoint": "abc", "input": {"uri": "file:///x"}, "otput": "/y"}).encode()
    await raw.send_and_wait("batch.commands", typo, key=b"typo", headers=headers)
    home = {one.partition for one in [await raw.send_and_wait("batch.commands", b"{", key=b"once", headers=headers)]}
    cancel = CancelBatchJob(job="once").model_dump_json().encode()
    elsewhere = next(iter({0, 1} - home))
    cancel_headers = [("ce_type", CancelBatchJob.TYPE.encode())]
    await raw.send_and_wait("batch.commands", cancel, key=b"once", headers=cancel_headers, partition=elsewhere)
    await raw.stop()
    await ground.until(lambda: len(ground.letters) == 3)
    reasons = sorted(letter.reason.partition(": ")[2] for letter in ground.letters)
    assert any("otput: unknown field" in reason for reason in reasons)
    assert any("belongs on partition" in reason for reason in reasons)
    assert ground.jobs.entries["once"] == ended
    assert ground.output("once") == rows


PACKAGED = """
import six, sys

def init():
    pass

def run(mini_batch):
    return [f"{six.__version__} {sys.prefix}" for path in mini_batch]
"""


async def test_a_job_runs_in_the_environment_of_its_deployment(ground: Ground, runner: ServiceProcess) -> None:
    ground.write("a")
    packages = await ground.stored("conda.yml", "dependencies: [six=1.16]")
    await ground.deploy(packages=packages, code=await ground.stored("packaged/score.py", PACKAGED, folder=True))
    ended = await ground.run("packaged")
    assert (ended.status, ended.message) == ("Completed", "")
    (row,) = ground.output("packaged")
    assert row.startswith(f"1.16.0 {ground.home / 'environments'}/")
    told = (ground.home / "jobs/packaged/logs/preparation.txt").read_text()
    assert "resolving 1 requirement for Python" in told


async def test_a_job_whose_environment_cannot_be_built_fails_with_the_reason(
    ground: Ground, runner: ServiceProcess
) -> None:
    ground.write("a")
    await ground.deploy(packages=await ground.stored("requirements.txt", "six==99"))
    ended = await ground.run("unsolvable")
    assert ended.status == "Failed"
    assert ended.message.startswith("ImageBuildFailure: requirements.txt: Because there is no version of six==99")
    assert "error: No solution found" in ended.message  # the log's tail
    assert ground.calls() == []


async def test_a_job_whose_files_are_not_in_the_store_fails_with_the_reason(
    ground: Ground, runner: ServiceProcess
) -> None:
    ground.write("a")
    await ground.deploy(code=GONE)
    ended = await ground.run("gone")
    assert ended.status == "Failed"
    assert ended.message.startswith("ResourceNotReady: 'src': ")


async def test_a_job_is_canceled_while_its_environment_is_built(
    ground: Ground, start_service: Callable[..., ServiceProcess], monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = asyncio.Event()
    index = await asyncio.start_server(lambda reader, writer: reached.set(), "127.0.0.1", 0)
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"http://127.0.0.1:{index.sockets[0].getsockname()[1]}/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(ground.home / "uv-cache"))
    await asyncio.to_thread(start_service, "batch-runner")
    ground.write("a")
    await ground.deploy(packages=await ground.stored("requirements.txt", "six==1.16.0"))
    await ground.begin("abandoned")
    await asyncio.wait_for(reached.wait(), PATIENCE)
    assert ground.status("abandoned") == "Provisioning"
    await ground.publisher.publish(CancelBatchJob(job="abandoned"))
    ended = await ground.end_of("abandoned")
    assert (ended.status, ended.message) == ("Canceled", "canceled on request")
    assert list((ground.home / "environments" / "building").iterdir()) == []
    index.close()
