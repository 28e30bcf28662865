"""Batch jobs: commands, the job's state, and its progress.

PURE, see `base`.
"""

from typing import ClassVar, Literal

from pydantic import Field

from contracts.messages.base import Message, Name, Part, Timestamp

JobId = str
_JOB = r"^[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}$"


class BatchInput(Part):
    """What a job reads: a folder or one file, by `file:` URI."""

    type: Literal["uri_folder", "uri_file"] = "uri_folder"
    uri: str


class BatchOverrides(Part):
    """What an invocation may set over the deployment's own settings; None leaves the deployment's."""

    instance_count: int | None = Field(default=None, ge=1, le=50)
    mini_batch_size: int | None = Field(default=None, ge=1)
    max_retries: int | None = Field(default=None, ge=0, le=100)
    timeout: int | None = Field(default=None, ge=1)
    error_threshold: int | None = Field(default=None, ge=-1)
    output_file_name: str | None = Field(default=None, pattern=r"^[^/\\\x00]+$")


class _BatchCommand(Message, abstract=True):
    TOPIC: ClassVar[str] = "batch.commands"

    job: JobId = Field(pattern=_JOB)

    def key(self) -> str:
        return self.job


class StartBatchJob(_BatchCommand):
    """Run a job on a batch endpoint. A known id is not run again. `output` is a folder that must not exist."""

    endpoint: Name
    deployment: Name | None = None
    input: BatchInput
    output: str | None = None
    overrides: BatchOverrides = BatchOverrides()


class CancelBatchJob(_BatchCommand):
    """Stop a job; what it has written so far is removed."""


JobStatus = Literal[
    "Queued", "Provisioning", "Running", "Finalizing", "CancelRequested", "Completed", "Failed", "Canceled"
]


class FileCounts(Part):
    """Files of the input by what became of them."""

    total: int = 0
    succeeded: int = 0
    failed: int = 0


class ComputeInstance(Part):
    """One instance of a job's own compute; it is gone when `stopped_at` is set."""

    id: str
    pids: tuple[int, ...]
    started_at: Timestamp
    stopped_at: Timestamp | None = None


class BatchJob(Message):
    """A job as it is now."""

    TOPIC: ClassVar[str] = "batch.jobs"

    job: JobId
    endpoint: Name
    deployment: Name | None
    status: JobStatus
    message: str = ""
    command: StartBatchJob
    submitted_at: Timestamp
    started_at: Timestamp | None = None
    ended_at: Timestamp | None = None
    output: str | None = None
    output_file: str | None = None
    files: FileCounts = FileCounts()
    rows: int = 0
    mini_batches: int = 0
    mini_batches_done: int = 0
    compute: tuple[ComputeInstance, ...] = ()

    def key(self) -> str:
        return self.job


class MiniBatchEnded(Message):
    """One attempt at a mini-batch ended."""

    TOPIC: ClassVar[str] = "batch.progress"

    job: JobId
    mini_batch: int
    attempt: int
    outcome: Literal["Succeeded", "Retrying", "Failed"]
    files: int
    rows: int
    seconds: float
    error: str | None = None
    at: Timestamp

    def key(self) -> str:
        return self.job
