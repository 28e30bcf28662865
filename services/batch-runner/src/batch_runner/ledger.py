"""The jobs of one partition: what a job's document is after a command or a report.

PURE: no clock, no I/O, no Kafka. Commands come from the log, reports from whoever runs the job; both pass through
here, one after the other, so that neither overwrites the other. Whether a job *can* run is not decided here: that
needs facts from outside the log (see `plan`), and is a report like any other.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from batch_runner.lifecycle import ENDED, Event, after
from contracts.envelope import Record
from contracts.messages import BatchJob, CancelBatchJob, Message, StartBatchJob


class JobLedger:
    """The state of one partition of batch.commands."""

    def __init__(self) -> None:
        self.open: dict[str, BatchJob] = {}
        """Jobs that have not ended."""
        self._ended: set[str] = set()

    def restore(self, message: Message) -> None:
        """Take a document of batch.jobs."""
        assert isinstance(message, BatchJob)
        self._keep(message)

    def forget(self, key: str) -> None:
        """Take a deletion of batch.jobs: the id is free again."""
        self.open.pop(key, None)
        self._ended.discard(key)

    def process(self, batch: Sequence[tuple[Record, Message]], now: datetime) -> list[Message]:
        """The documents that the commands of `batch` make. An id that has a job is not started again, and a job that
        is unknown or has ended is not canceled."""
        documents: list[Message] = []
        for _, command in batch:
            if isinstance(command, StartBatchJob) and command.job not in self.open.keys() | self._ended:
                documents.append(
                    self._keep(
                        BatchJob(
                            job=command.job,
                            endpoint=command.endpoint,
                            deployment=command.deployment,
                            status="Queued",
                            command=command,
                            submitted_at=now,
                        )
                    )
                )
            elif isinstance(command, CancelBatchJob) and command.job in self.open:
                documents.append(self.report(command.job, now, "cancel", message="canceled on request"))
        return documents

    def report(self, job: str, now: datetime, event: Event | None, **changes: Any) -> BatchJob:
        """The document after `event` (None: only its fields change). Raises IllegalEventError, and then changes
        nothing."""
        document = self.open[job]
        if event is not None:
            status = changes["status"] = after(document.status, event)
            if status == "Provisioning":
                changes["started_at"] = now
            if status in ENDED:
                changes["ended_at"] = now
        return self._keep(document.replace(**changes))

    def _keep(self, document: BatchJob) -> BatchJob:
        if document.status in ENDED:
            self.open.pop(document.job, None)
            self._ended.add(document.job)
        else:
            self.open[document.job] = document
        return document


def overview(document: BatchJob, now: datetime) -> str:
    """What logs/job_progress_overview.txt says."""
    files, compute = document.files, document.compute
    running = sum(instance.stopped_at is None for instance in compute)
    lines = {
        "job": document.job,
        "status": f"{document.status} at {now:%FT%TZ}",
        "message": document.message or "-",
        "mini-batches": f"{document.mini_batches_done} of {document.mini_batches}",
        "files": f"{files.total} in all, {files.succeeded} succeeded, {files.failed} failed",
        "rows": str(document.rows),
        "instances": f"{running} running, {len(compute) - running} stopped",
    }
    return "".join(f"{name}: {text}\n" for name, text in lines.items())
