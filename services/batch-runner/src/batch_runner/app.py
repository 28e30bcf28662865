"""All jobs of the partitions that this process holds: started, watched, dropped when a partition goes elsewhere.

Level-triggered: whenever the log or a job has moved, the jobs that run are compared with those that should. Who may
write a job's document is decided by the partition's fence (`contracts.log.Processor`), who may run it by the lock in
its folder as well: a process that has lost a partition and does not know it yet keeps its successor waiting, and
whatever it still reports is refused.
"""

import asyncio
import contextlib
import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from prometheus_client import Gauge

from batch_runner.job import JobRun, Surroundings
from batch_runner.ledger import JobLedger
from batch_runner.machine import Machine, Outbox
from batch_runner.preparation import Preparation
from batch_runner.settings import BatchRunnerSettings
from contracts.artifacts.store import ArtifactStore
from contracts.environments.builder import EnvironmentBuilder
from contracts.environments.runtime import install
from contracts.instance_time import InstanceTime
from contracts.log import DeadLetters, KafkaSettings, NotHeldError, Processor, Publisher, Reader, Table
from contracts.messages import EndpointDesired, StartBatchJob
from contracts.shell.service import until_first

log = logging.getLogger(__name__)

SERVICE = "batch-runner"
_RETRY_SECONDS = 5.0
_FLUSH_SECONDS = 10.0

_JOBS = Gauge("endpunkt_batch_jobs", "Jobs that have not ended, on this process's partitions")
_WORKERS = Gauge("endpunkt_batch_workers", "Workers that jobs have taken room for")


@dataclass(slots=True)
class _Running:
    run: JobRun
    task: asyncio.Task[None]
    dropped: bool = False

    def drop(self) -> None:
        """Abandon the job, once: a second cancel would disturb the cleaning up after the first."""
        if not self.dropped:
            self.dropped = True
            self.task.cancel()


class BatchRunner:
    """The service."""

    def __init__(self, settings: BatchRunnerSettings, kafka: KafkaSettings):
        self._settings = settings
        self._changed = asyncio.Event()
        self._publisher = Publisher(kafka, settings.source)
        letters = DeadLetters(self._publisher, SERVICE)
        self._table = Table(EndpointDesired)
        self._reader = Reader(kafka, [self._table], letters)
        self._caught_up = False
        self._processor = Processor(
            kafka,
            SERVICE,
            StartBatchJob.TOPIC,
            "batch.jobs",
            lambda partition: JobLedger(),
            letters,
            strict=True,
            on_change=self._changed.set,
        )
        self._machine = Machine(settings.max_workers)
        self._meter = InstanceTime(settings.source, int(time.time() * 1000))
        self._outbox = Outbox(self._publisher)
        runtime = partial(install, settings.home)
        store = ArtifactStore(settings.artifact_store, settings.artifacts, settings.largest_artifact)
        preparation = Preparation(store, EnvironmentBuilder.of(settings), runtime)
        self._around = Surroundings(
            settings, self._processor, self._endpoint, preparation, self._machine, self._meter, self._outbox
        )
        self._jobs: dict[str, _Running] = {}

    def not_ready(self) -> list[str]:
        """What it still waits for."""
        reasons = [] if self._caught_up else ["endpoints.desired: not caught up yet"]
        return reasons + ([] if self._processor.owned.is_set() else ["batch.commands: no partition taken yet"])

    def addresses(self) -> dict[str, str]:
        """It listens nowhere."""
        return {}

    async def run(self, stop: asyncio.Event) -> None:
        """Run jobs until `stop`; what is in flight then is run again by whoever takes the partitions next."""
        await self._publisher.start()
        await self._reader.start()
        assert self._reader.failed is not None
        self._caught_up = True
        processor_stop = asyncio.Event()
        processing = asyncio.create_task(self._processor.run(processor_stop))
        publishing = asyncio.create_task(self._outbox.run())
        try:
            await until_first(
                stop.wait(), asyncio.shield(processing), self._reader.failed, self._follow(), self._bill()
            )
        finally:
            # The processor last: jobs still tell that their compute is gone.
            for running in self._jobs.values():
                running.drop()
            await asyncio.gather(*(running.task for running in self._jobs.values()), return_exceptions=True)
            publishing.cancel()
            await asyncio.gather(publishing, return_exceptions=True)
            self._tell_usage()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FLUSH_SECONDS):
                    await self._outbox.flush()
            processor_stop.set()
            await asyncio.gather(processing, return_exceptions=True)
            await self._reader.stop()
            await self._publisher.stop()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._reconcile()

    def _reconcile(self) -> None:
        """Run exactly the open jobs of the partitions that are held."""
        ledgers = self._processor.ledgers
        for running in self._jobs.values():
            run = running.run
            if ledgers.get(run.partition) is not run.ledger:
                running.drop()
            elif (document := run.ledger.open.get(run.job)) and document.status == "CancelRequested":
                run.cancel()
        for partition, ledger in ledgers.items():
            for job in ledger.open.keys() - self._jobs.keys():
                self._start(JobRun(job, partition, ledger, self._around))
        _JOBS.set(sum(len(ledger.open) for ledger in ledgers.values()))
        _WORKERS.set(self._machine.used)

    def _start(self, run: JobRun) -> None:
        task = asyncio.create_task(_until_over(run), name=f"job {run.job}")
        self._jobs[run.job] = _Running(run, task)

        def over(_: object) -> None:
            del self._jobs[run.job]
            self._changed.set()

        task.add_done_callback(over)

    async def _endpoint(self, name: str) -> EndpointDesired | None:
        """The endpoint, as it was desired when this was asked or later: who saw a command accepted can start a job."""
        while True:
            try:
                await self._reader.catch_up()
            except Exception as error:
                if self._reader.failed is None or self._reader.failed.done():
                    raise
                log.warning("endpoints.desired cannot be read, trying again: %r", error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                return self._table.entries.get(name)

    async def _bill(self) -> None:
        while True:
            await asyncio.sleep(self._settings.usage_seconds)
            self._tell_usage()

    def _tell_usage(self) -> None:
        for record in self._meter.flush(datetime.now(UTC)):
            self._outbox.put(f"{record.source}-{record.epoch}-{record.key()}-{record.sequence}", record)


async def _until_over(run: JobRun) -> None:
    try:
        await run.run()
    except NotHeldError as error:
        log.info("%s goes on elsewhere: %s", run.job, error)
    except Exception:
        log.exception("%s cannot go on, it is tried again", run.job)
        await asyncio.sleep(_RETRY_SECONDS)
