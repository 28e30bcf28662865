"""The batch-runner: its pure cores in the order in which its jobs call them."""

from collections.abc import Generator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

from batch_runner import lifecycle
from batch_runner.judge import Segment, Tally, outcome, tally, verdict
from batch_runner.ledger import JobLedger
from batch_runner.plan import Found, Plan, make_plan, told
from batch_runner.room import Waiting, admitted
from contracts.instance_time import InstanceTime
from contracts.log import Table
from contracts.messages import (
    BatchJob,
    ComputeInstance,
    EndpointDesired,
    FileCounts,
    MiniBatchEnded,
    StartBatchJob,
    UsageRecorded,
)

from .bus import NotHeld, Processor, Reader
from .machine import Folder, Turn
from .world import World

MAX_WORKERS = 4
_USAGE_SECONDS = 5.0
_FILES = tuple(f"{number:02}.csv" for number in range(11))
_ATTEMPT_FAILS = 0.3


class BatchRunner:
    """Exactly once: documents by transactions, results by files that appear whole or not at all."""

    name = "batch-runner"

    def __init__(self, world: World):
        self.world = world
        self._runs: dict[str, tuple[JobLedger, Generator[str]]] = {}
        self.restart()

    def restart(self) -> None:
        world = self.world
        self._runs.clear()
        self.desired = Table(EndpointDesired)
        self.reader = Reader(world.bus, self.desired)
        self.processor = Processor(world.bus, self.name, StartBatchJob.TOPIC, BatchJob, JobLedger, strict=True)
        self.meter = InstanceTime("batch-runner-1", world.epoch)
        self.outbox: list[UsageRecorded | MiniBatchEnded] = []
        self.doors: set[Waiting] = set()
        self.inside: dict[str, int] = {}
        self._flush_at = world.seconds + _USAGE_SECONDS

    def behind(self) -> bool:
        return bool(self.processor.behind() or self.outbox or self.reader.behind() or self._open())

    def turns(self) -> list[Turn]:
        turns: list[Turn] = [self._advance] if self._open() else []
        if self.processor.behind():
            turns.append(self._process)
        if self.reader.behind():
            turns.append(self._read)
        if self.outbox:
            turns.append(self._send)
        if self.world.seconds >= self._flush_at:
            turns.append(self._bill)
        return turns

    def _open(self) -> dict[str, int]:
        """The jobs that have not ended, and their partitions."""
        return {job: at for at, ledger in self.processor.ledgers.items() for job in ledger.open}

    def _advance(self) -> str:
        job = self.world.rng.choice(sorted(self._open()))
        partition = self._open()[job]
        ledger = self.processor.ledgers[partition]
        held, run = self._runs.get(job, (None, None))
        if run is None or held is not ledger:
            if run is not None:
                # The partition was lost and taken again: what ran on its old state is dropped.
                run.close()
            run = _Job(self, job, partition, ledger).run()
            self._runs[job] = ledger, run
        try:
            did = next(run)
        except NotHeld as error:
            del self._runs[job]
            return f"{job}: not held any more: {error}"
        if job not in ledger.open:
            run.close()
            del self._runs[job]
        return f"{job}: {did}"

    def _process(self) -> str:
        world = self.world
        partition, limit = world.rng.choice(self.processor.behind()), world.rng.randint(1, 5)
        fails = world.happens(world.chaos.abort)
        self.processor.process(partition, limit, world.now, fails=fails)
        return f"{'lost' if fails else 'committed'} a transaction on partition {partition}"

    def _read(self) -> str:
        self.reader.poll(self.world.rng)
        return "read"

    def _send(self) -> str:
        message = self.outbox.pop(0)
        if isinstance(message, UsageRecorded):
            self.world.tell_usage(message)
        else:
            id = f"{message.job}-{message.mini_batch}-{message.attempt}-{message.at.timestamp():.6f}"
            self.world.bus.publish(message, id=id, source=self.name, now=self.world.now)
        return f"sent {type(message).__name__} of {message.key()}"

    def _bill(self) -> str:
        self.outbox += self.meter.flush(self.world.now)
        self._flush_at = self.world.seconds + _USAGE_SECONDS
        return "billed"


class _JobFailed(Exception):
    """The job fails; the text says why."""


class _Job:
    """One job from wherever it is to its end, as batch_runner.job and batch_runner.scoring; what it keeps is memory."""

    def __init__(self, runner: BatchRunner, job: str, partition: int, ledger: JobLedger):
        self._runner, self._world = runner, runner.world
        self._job, self._partition, self._ledger = job, partition, ledger
        self._folder = self._world.machine.folders.setdefault(job, Folder())
        document = ledger.open[job]
        files = document.files
        self._tally = Tally(files.succeeded, files.failed, document.rows, document.mini_batches_done)
        self._compute = {
            each.id: each if each.stopped_at else each.model_copy(update={"stopped_at": self._world.now})
            for each in document.compute
        }
        self._failure = self._folder.plan.failure if self._folder.plan is not None else None

    def run(self) -> Generator[str]:
        try:
            while (document := self._ledger.open.get(self._job)) is not None:
                step = lifecycle.next_step(document.status, self._folder.look(self._failure is not None))
                try:
                    yield from self._take(step, document)
                except _JobFailed as error:
                    self._failure = str(error)
                    if self._folder.plan is not None:
                        self._folder.plan = replace(self._folder.plan, failure=self._failure)
                yield str(step)
        finally:
            self._runner.inside.pop(self._job, None)

    def _take(self, step: lifecycle.Step | None, document: BatchJob) -> Iterator[str]:
        folder = self._folder
        match step:
            case "plan":
                self._make_plan(document)
            case "begin":
                yield from self._enter(document)
                self._report("begin", deployment=self._plan.deployment, mini_batches=self._plan.mini_batches)
            case "score":
                yield from self._enter(document)
                try:
                    yield from self._score()
                finally:
                    self._runner.inside.pop(self._job, None)
            case "finalize":
                self._tally = tally(folder.segments.values(), self._plan.size)
                self._judge()
                self._report("finalize")
            case "write":
                folder.output = sum(segment.rows for segment in folder.segments.values())
            case "complete":
                folder.segments.clear()
                yield "tidied up"
                self._report("complete")
            case "fail" | "cancel":
                folder.output = None
                folder.segments.clear()
                yield "removed what it wrote"
                self._report("fail" if step == "fail" else "canceled", message=self._failure or "")

    @property
    def _plan(self) -> Plan:
        assert self._folder.plan is not None, "next_step asks for a plan first"
        return self._folder.plan

    def _canceled(self) -> bool:
        document = self._ledger.open.get(self._job)
        return document is not None and document.status == "CancelRequested"

    def _make_plan(self, document: BatchJob) -> None:
        self._runner.reader.catch_up()
        command, found = document.command, Found(folder="/in", files=_FILES, output=f"/out/{self._job}")
        endpoint = self._runner.desired.entries.get(command.endpoint)
        made = make_plan(command, document.submitted_at, endpoint, found, MAX_WORKERS)
        if not isinstance(made, Plan):
            raise _JobFailed(told(made))
        self._folder.plan = made
        self._folder.settled.clear()

    def _enter(self, document: BatchJob) -> Iterator[str]:
        """Wait for room for the workers."""
        inside, doors = self._runner.inside, self._runner.doors
        one = Waiting(document.status == "Queued", document.submitted_at, self._job, self._plan.workers)
        doors.add(one)
        try:
            while self._job not in inside and not self._canceled():
                for each in admitted(doors, sum(inside.values()), MAX_WORKERS):
                    inside[each.job] = each.workers
                    doors.discard(each)
                assert sum(inside.values()) <= MAX_WORKERS, f"{inside} have more than {MAX_WORKERS} workers"
                yield "looked for room"
        finally:
            doors.discard(one)

    def _score(self) -> Iterator[str]:
        plan, folder, meter = self._plan, self._folder, self._runner.meter
        self._tally = tally(folder.segments.values(), plan.size)
        self._judge()
        left = [(index, 1) for index in range(plan.mini_batches) if index not in folder.segments]
        first = len(self._compute)
        started = [f"{self._job}-{first + number}" for number in range(plan.spec.resources.instance_count)]
        for id in started:
            self._compute[id] = ComputeInstance(id=id, pids=(1,), started_at=self._world.now)
            meter.begin(id, plan.endpoint, plan.deployment, plan.spec.instance_type, self._world.now)
        try:
            yield f"started {len(started)} instances"
            if self._ledger.open[self._job].status == "Provisioning":
                self._report("ready")
            while left and not self._canceled():
                index, attempt = left.pop(0)
                if self._ended(index, attempt) == "Retrying":
                    left.insert(0, (index, attempt + 1))
                yield f"ran mini-batch {index}, attempt {attempt}"
                self._judge()
                if self._world.rng.random() < 0.3:
                    self._report(None)
        finally:
            for id in started:
                meter.end(id, self._world.now)
                lived = self._world.now - self._compute[id].started_at
                self._world.watch.accounts.jobs_lived[plan.endpoint, plan.deployment] += lived // timedelta(
                    microseconds=1
                )
                self._compute[id] = self._compute[id].model_copy(update={"stopped_at": self._world.now})

    def _ended(self, index: int, attempt: int) -> str:
        plan, folder = self._plan, self._folder
        ok, files = self._world.rng.random() >= _ATTEMPT_FAILS, plan.size(index)
        result = outcome(ok=ok, attempt=attempt, max_retries=plan.spec.settings.retry_settings.max_retries)
        rows = files if ok else 0
        if result != "Retrying":
            folder.settled[index] += 1
            assert folder.settled[index] == 1, f"{self._job}: mini-batch {index} was settled twice"
            segment = folder.segments[index] = Segment(index, result, rows)
            self._tally = self._tally.plus(segment, files)
        event = MiniBatchEnded(
            job=self._job,
            mini_batch=index,
            attempt=attempt,
            outcome=result,
            files=files,
            rows=rows,
            seconds=1.0,
            at=self._world.now,
        )
        self._runner.outbox.append(event)
        return result

    def _judge(self) -> None:
        if why := verdict(self._plan.spec.settings.error_threshold, self._tally.failed_files):
            raise _JobFailed(why)

    def _report(self, event: lifecycle.Event | None, **changes: Any) -> None:
        done, now = self._tally, self._world.now
        changes |= {
            "files": FileCounts(total=len(_FILES), succeeded=done.succeeded_files, failed=done.failed_files),
            "rows": done.rows,
            "mini_batches_done": done.mini_batches,
            "compute": tuple(self._compute.values()),
        }
        change = [self._ledger.report(self._job, now, event, **changes)]
        fails = self._world.happens(self._world.chaos.abort)
        id = f"{self._job}@{now.isoformat()}"
        self._runner.processor.commit(self._partition, change, id, now, fails=fails)
