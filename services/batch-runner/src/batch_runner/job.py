"""One job, step by step, from wherever it is to its end.

The steps are `lifecycle.next_step`'s. Each leaves its mark on disk or in the log before the next one is asked for, so
a job may be abandoned between any two, and in any of them, and be resumed by another process.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from batch_runner.folder import JobFolder
from batch_runner.inputs import look
from batch_runner.judge import Tally, tally, verdict
from batch_runner.ledger import JobLedger, overview
from batch_runner.lifecycle import Event, Step, next_step
from batch_runner.machine import Machine, Outbox
from batch_runner.plan import Plan, make_plan, told
from batch_runner.preparation import NotPreparedError, Preparation
from batch_runner.room import Waiting
from batch_runner.scoring import JobFailedError, Limits, Progress, Scoring, environment
from batch_runner.settings import BatchRunnerSettings
from batch_runner.worker import kill_marked
from contracts.instance_time import InstanceTime
from contracts.log import NotHeldError, Processor
from contracts.messages import BatchJob, EndpointDesired, FileCounts
from contracts.shell.threads import ended, in_thread

log = logging.getLogger(__name__)

_LOCK_SECONDS = 1.0
_REPORT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the jobs of one process share. `endpoint` gives an endpoint as the log has it now."""

    settings: BatchRunnerSettings
    processor: Processor[JobLedger]
    endpoint: Callable[[str], Awaitable[EndpointDesired | None]]
    preparation: Preparation
    machine: Machine
    meter: InstanceTime
    outbox: Outbox


class JobRun:
    """Runs `job` for as long as `ledger` is the state of a partition that this process holds."""

    def __init__(self, job: str, partition: int, ledger: JobLedger, around: Surroundings):
        self.job, self.partition, self.ledger = job, partition, ledger
        self._around = around
        self._folder = JobFolder(around.settings.home, job)
        self._canceled = asyncio.Event()
        self._readying = asyncio.Lock()
        self._plan: Plan | None = None
        self._failure: str | None = None
        self._output: str | None = None
        self._progress = Progress()
        self._steps: dict[Step, Callable[[], Coroutine[Any, Any, None]]] = {
            "plan": self._make_plan,
            "begin": self._begin,
            "score": self._score,
            "finalize": self._finalize,
            "write": self._write,
            "complete": self._complete,
            "fail": self._fail,
            "cancel": self._cancel,
        }

    def cancel(self) -> None:
        """The log asks for the job's end: what it is at is dropped."""
        self._canceled.set()

    async def run(self) -> None:
        """Return when the job has ended. Raises NotHeldError when another process has it now."""
        while True:
            with self._folder.lock() as ours:
                if ours:
                    await self._resume()
                    return
            log.info("%s waits for the process that has had it so far", self.job)
            await asyncio.sleep(_LOCK_SECONDS)

    async def _resume(self) -> None:
        document = self.ledger.open[self.job]
        await self._kill_leftovers()
        self._progress.tally = Tally(
            document.files.succeeded, document.files.failed, document.rows, document.mini_batches_done
        )
        gone = {"stopped_at": datetime.now(UTC)}
        self._progress.compute = {
            instance.id: instance if instance.stopped_at else instance.model_copy(update=gone)
            for instance in document.compute
        }
        self._plan = await in_thread(self._folder.read_plan, document.submitted_at)
        if self._plan is not None:
            self._failure, self._output = self._plan.failure, self._plan.output
        try:
            while (step := await self._next()) is not None:
                await self._take(step)
        except asyncio.CancelledError:
            if self._progress.changed.is_set():
                with suppress(NotHeldError):
                    await self._report()
            raise
        finally:
            self._around.machine.leave(self.job)

    async def _next(self) -> Step | None:
        document = self.ledger.open.get(self.job)
        if document is None:
            return None
        disk = await in_thread(self._folder.look, self._plan)
        return next_step(document.status, replace(disk, failing=self._failure is not None))

    async def _take(self, step: Step) -> None:
        log.debug("%s: %s", self.job, step)
        try:
            await self._steps[step]()
        except NotHeldError:
            raise
        except JobFailedError as error:
            await self._decide_to_fail(str(error))
        except Exception as error:
            if step in ("fail", "cancel"):
                raise
            log.exception("%s failed at '%s'", self.job, step)
            await self._decide_to_fail(f"InternalServerError: at '{step}': {error!r}")

    async def _decide_to_fail(self, failure: str) -> None:
        self._failure = failure.encode(errors="backslashreplace").decode()
        if self._plan is not None:
            self._plan = await in_thread(self._folder.write_failure, self._plan, self._failure)

    # The steps

    async def _make_plan(self) -> None:
        document, settings = self.ledger.open[self.job], self._around.settings
        command = document.command
        found = await in_thread(look, command.input, command.output, self._folder.default_output)
        self._output = found.output
        endpoint = await self._around.endpoint(command.endpoint)
        plan = make_plan(command, document.submitted_at, endpoint, found, settings.max_workers)
        if not isinstance(plan, Plan):
            raise JobFailedError(told(plan))
        try:
            self._plan = await in_thread(self._folder.write_plan, plan)
        except OSError as error:
            raise JobFailedError(f"BadArgument: output: cannot be made: {error}") from error

    async def _begin(self) -> None:
        plan = self._planned
        await self._unless_canceled(self._enter())
        await self._report(
            "begin",
            deployment=plan.deployment,
            output=Path(plan.output).as_uri(),
            mini_batches=plan.mini_batches,
        )

    async def _score(self) -> None:
        await self._unless_canceled(self._enter())
        reporting = asyncio.create_task(self._keep_reporting())
        try:
            await self._unless_canceled(self._run_workers())
        finally:
            reporting.cancel()
            await asyncio.gather(reporting, return_exceptions=True)
            await self._kill_leftovers()
            self._around.machine.leave(self.job)

    async def _finalize(self) -> None:
        plan = self._planned
        self._progress.tally = tally((await in_thread(self._folder.segments)).values(), plan.size)
        if failure := verdict(plan.spec.settings.error_threshold, self._progress.tally.failed_files):
            raise JobFailedError(failure)  # the process was gone before it could judge the last mini-batch
        await self._report("finalize")

    async def _write(self) -> None:
        try:
            await in_thread(self._folder.write_output, self._planned)
        except OSError as error:
            raise JobFailedError(f"BadArgument: output: {error}") from error

    async def _complete(self) -> None:
        plan = self._planned
        await in_thread(self._folder.tidy)
        settings = plan.spec.settings
        file = Path(plan.output, settings.output_file_name) if settings.output_action == "append_row" else None
        await self._report("complete", output_file=file and file.as_uri())

    async def _fail(self) -> None:
        await self._clean_up()
        await self._report("fail", message=self._failure)

    async def _cancel(self) -> None:
        await self._clean_up()
        await self._report("canceled")

    # Their parts

    @property
    def _planned(self) -> Plan:
        assert self._plan is not None, "next_step asks for a plan first"
        return self._plan

    async def _enter(self) -> None:
        document = self.ledger.open[self.job]
        fresh = document.status == "Queued"
        await self._around.machine.enter(Waiting(fresh, document.submitted_at, self.job, self._planned.workers))

    async def _run_workers(self) -> None:
        plan, settings = self._planned, self._around.settings
        building = self._folder.building(plan.output)
        try:
            prepared = await self._around.preparation.of(plan, self._told_of_preparation)
        except NotPreparedError as error:
            raise JobFailedError(str(error)) from error
        scoring = Scoring(
            self.job,
            plan,
            self._folder,
            self._progress,
            prepared.command,
            environment(plan, prepared, building, self._folder.root, os.environ),
            Limits(settings.worker_start_seconds, settings.worker_stop_seconds),
            self._around.meter,
            self._around.outbox.put,
            self._ready,
        )
        await scoring.run()

    def _told_of_preparation(self, text: str) -> None:
        self._folder.write_preparation(f"{datetime.now(UTC):%FT%TZ} {text}\n")

    async def _ready(self) -> None:
        async with self._readying:
            if self.ledger.open[self.job].status == "Provisioning":
                await self._report("ready")

    async def _keep_reporting(self) -> None:
        """While the job runs, tell of its progress at most once a second."""
        while True:
            await self._progress.changed.wait()
            await self._report()
            await asyncio.sleep(_REPORT_SECONDS)

    async def _report(self, event: Event | None = None, **changes: Any) -> None:
        """Bring the job's document up to date, in the log and then in its folder."""
        progress, now = self._progress, datetime.now(UTC)
        progress.changed.clear()
        done = progress.tally
        total = 0 if self._plan is None else len(self._plan.files)
        changes |= {
            "files": FileCounts(total=total, succeeded=done.succeeded_files, failed=done.failed_files),
            "rows": done.rows,
            "mini_batches_done": done.mini_batches,
            "compute": tuple(progress.compute.values()),
        }

        written: list[BatchJob] = []

        def change(ledger: JobLedger) -> list[BatchJob]:
            if ledger is not self.ledger:
                raise NotHeldError(f"partition {self.partition} was lost and taken again")
            written.append(ledger.report(self.job, now, event, **changes))
            return written

        await self._around.processor.commit(self.partition, change)
        try:
            await in_thread(self._folder.write_progress, overview(written[0], now))
        except OSError as error:
            log.warning("the progress of %s is in the log and not in its folder: %s", self.job, error)

    async def _unless_canceled(self, work: Coroutine[Any, Any, None]) -> None:
        """Await `work`, or drop it when the job is canceled; it is over in any case."""
        if self._canceled.is_set():
            work.close()
            return
        working, canceled = asyncio.ensure_future(work), asyncio.ensure_future(self._canceled.wait())
        try:
            await asyncio.wait({working, canceled}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            canceled.cancel()
            if not working.done():
                working.cancel()
            await ended(working, canceled)
        if not working.cancelled():
            working.result()

    async def _kill_leftovers(self) -> None:
        """End whatever the job's workers have left running, and workers of an earlier life."""
        if pids := await kill_marked(str(self._folder.root)):
            log.error("processes %s of %s cannot be killed", pids, self.job)

    async def _clean_up(self) -> None:
        if self._output is not None:
            await in_thread(self._folder.discard_output, self._output, self._plan)
        await in_thread(self._folder.tidy)
