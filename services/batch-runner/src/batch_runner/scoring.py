"""The mini-batches of one job, on instances that exist as long as there is work for them."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from batch_runner.folder import JobFolder
from batch_runner.judge import Outcome, Segment, Tally, outcome, tally, verdict
from batch_runner.plan import Plan
from batch_runner.preparation import Prepared
from batch_runner.worker import MARK, Answer, Launch, StartError, Worker
from contracts.instance_time import InstanceTime
from contracts.messages import ComputeInstance, MiniBatchEnded
from contracts.shell.threads import in_thread

_PASSED_ON = ("PATH", "LANG")
_LONGEST_ERROR = 2000
_LONGEST_TRACEBACK = 16_384


class JobFailedError(Exception):
    """The job fails; the text is for whoever started it."""


def environment(plan: Plan, prepared: Prepared, building: Path, mark: Path, outer: Mapping[str, str]) -> dict[str, str]:
    """All that a worker is told: nothing of this process's own environment but where programs are."""
    told = {name: outer[name] for name in _PASSED_ON if name in outer}
    told |= plan.spec.settings.environment_variables
    told |= {
        "AML_APP_ROOT": str(prepared.code),
        "AZUREML_ENTRY_SCRIPT": plan.spec.code_configuration.scoring_script,
        "AZUREML_BI_OUTPUT_PATH": str(building),
        "HOME": str(mark),
        "PYTHONPATH": str(prepared.runtime),
        MARK: str(mark),
    }
    if prepared.model is not None:
        told["AZUREML_MODEL_DIR"] = str(prepared.model.parent)
    return told


def _cut(traceback: str | None) -> str:
    """The end of a traceback: the user's code decides how long it is."""
    return (traceback or "")[-_LONGEST_TRACEBACK:]


@dataclass(slots=True)
class Progress:
    """How far a job is, and its instances by id; `changed` is set when they are new."""

    tally: Tally = field(default_factory=Tally)
    compute: dict[str, ComputeInstance] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a worker may take to be ready, and to end (seconds)."""

    start_seconds: float
    stop_seconds: float


@dataclass(slots=True)
class _Instance:
    id: str
    slots: int
    started_at: datetime
    pids: dict[int, int] = field(default_factory=dict)


class Scoring:
    """Runs what is left of a job. `command` starts a worker's module, and `told` is its environment; `on_ready` is
    awaited whenever one is ready."""

    def __init__(
        self,
        job: str,
        plan: Plan,
        folder: JobFolder,
        progress: Progress,
        command: Sequence[str],
        told: Mapping[str, str],
        limits: Limits,
        meter: InstanceTime,
        publish: Callable[[str, MiniBatchEnded], None],
        on_ready: Callable[[], Awaitable[None]],
    ):
        self._job, self._plan, self._folder, self._progress = job, plan, folder, progress
        self._command, self._told, self._limits = command, told, limits
        self._meter, self._publish, self._on_ready = meter, publish, on_ready
        done = folder.segments()
        progress.tally = tally(done.values(), plan.size)
        self._left = deque((index, 1) for index in range(plan.mini_batches) if index not in done)
        self._start_failure = ""
        self._instances: list[_Instance] = []

    async def run(self) -> None:
        """Score every mini-batch that is left. However it ends, no worker is left. Raises JobFailedError."""
        self._judge()
        try:
            async with asyncio.TaskGroup() as tasks:
                for instance in self._start_instances():
                    for slot in range(instance.slots):
                        tasks.create_task(self._slot(instance, slot, tasks))
        except BaseExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            for instance in self._instances:
                if instance.slots:  # canceled before it began
                    self._stopped(instance)
        if self._left:
            raise JobFailedError(self._start_failure)

    def _start_instances(self) -> list[_Instance]:
        spec, first = self._plan.spec, len(self._progress.compute)
        for number in range(first, first + spec.resources.instance_count):
            now = datetime.now(UTC)
            instance = _Instance(f"{self._job}-{number}", spec.settings.max_concurrency_per_instance, now)
            self._meter.begin(instance.id, self._plan.endpoint, self._plan.deployment, spec.instance_type, now)
            self._instances.append(instance)
            self._tell(instance)
        return self._instances

    async def _slot(self, instance: _Instance, number: int, tasks: asyncio.TaskGroup) -> None:
        """One worker at a time, while there is work. A script that cannot be started here leaves it to the others."""
        settings = self._plan.spec.settings.retry_settings
        worker: Worker | None = None
        settling: asyncio.Task[None] | None = None
        try:
            while self._left:
                if worker is None or not worker.alive:
                    worker = await self._start(instance, number)
                    if worker is None:
                        return
                    await self._on_ready()
                    continue  # others may have taken the rest meanwhile
                index, attempt = self._left.popleft()
                started = time.monotonic()
                answer = await worker.score(index, self._plan.mini_batch(index), settings.timeout)
                seconds = time.monotonic() - started
                result = outcome(ok=answer.error is None, attempt=attempt, max_retries=settings.max_retries)
                if result == "Retrying":
                    self._left.appendleft((index, attempt + 1))
                # The worker need not wait for the disk: the last answer is put away while the next one is worked out.
                if settling is not None:
                    await asyncio.wait({settling})
                settling = tasks.create_task(self._settle(index, attempt, answer, result, seconds))
            if worker is not None and worker.alive:
                await worker.stop(self._limits.stop_seconds)
        finally:
            if worker is not None and worker.alive:
                await worker.kill()
            instance.slots -= 1
            if not instance.slots:
                self._stopped(instance)

    async def _start(self, instance: _Instance, number: int) -> Worker | None:
        name = f"{instance.id}-{number}"
        launch = Launch(
            command=self._command,
            environment=self._told,
            folder=Path(self._told["AML_APP_ROOT"]),
            stdout=self._folder.worker_log("stdout", name),
            stderr=self._folder.worker_log("stderr", name),
            seconds=self._limits.start_seconds,
        )
        try:
            worker = await Worker.start(launch)
        except StartError as error:
            self._start_failure = str(error)
            await in_thread(self._folder.write_error, f"{datetime.now(UTC):%FT%TZ} worker {name}: {error}\n")
            return None
        instance.pids[number] = worker.pid
        self._tell(instance)
        return worker

    async def _settle(self, index: int, attempt: int, answer: Answer, result: Outcome, seconds: float) -> None:
        """Put away what an attempt came to, and judge the job by it."""
        files, now = self._plan.size(index), datetime.now(UTC)
        error = answer.error and answer.error[:_LONGEST_ERROR]
        if error is not None:
            what = f"mini-batch {index}, attempt {attempt} of {files} files"
            line = f"{now:%FT%TZ} {what}: {error}\n{_cut(answer.traceback)}\n"
            await in_thread(self._folder.write_error, line)
        if result != "Retrying":
            segment = Segment(index, result, answer.rows)
            keep = self._plan.spec.settings.output_action == "append_row"
            await in_thread(self._folder.write_segment, segment, answer.content if keep else b"")
            self._progress.tally = self._progress.tally.plus(segment, files)
        self._publish(
            f"{self._job}-{index}-{attempt}-{now.timestamp():.6f}",
            MiniBatchEnded(
                job=self._job,
                mini_batch=index,
                attempt=attempt,
                outcome=result,
                files=files,
                rows=answer.rows,
                seconds=seconds,
                error=error,
                at=now,
            ),
        )
        self._progress.changed.set()
        self._judge(f". The last error: {error}")

    def _judge(self, last_error: str = "") -> None:
        failure = verdict(self._plan.spec.settings.error_threshold, self._progress.tally.failed_files)
        if failure is not None:
            raise JobFailedError(failure + last_error)

    def _tell(self, instance: _Instance, stopped_at: datetime | None = None) -> None:
        self._progress.compute[instance.id] = ComputeInstance(
            id=instance.id,
            pids=tuple(pid for _, pid in sorted(instance.pids.items())),
            started_at=instance.started_at,
            stopped_at=stopped_at,
        )
        self._progress.changed.set()

    def _stopped(self, instance: _Instance) -> None:
        now = datetime.now(UTC)
        self._meter.end(instance.id, now)
        self._tell(instance, now)
