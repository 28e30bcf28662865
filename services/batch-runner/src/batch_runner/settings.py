"""Settings of the batch-runner: each field is ENDPUNKT_<FIELD>."""

import os

from pydantic import Field

from contracts.shell.settings import Settings


class BatchRunnerSettings(Settings):
    """What the batch-runner is told besides what every service is."""

    source: str = Field(default="batch-runner-1", description="this process's stable name in usage records")
    usage_seconds: float = Field(default=5, gt=0, description="how often instance time is told")
    max_workers: int = Field(
        default=2 * (os.cpu_count() or 1), ge=1, description="worker processes of all jobs at a time; jobs wait"
    )
    worker_start_seconds: float = Field(default=300, gt=0, description="how long a script's init() may take")
    worker_stop_seconds: float = Field(default=10, ge=0, description="how long a script's shutdown() may take")
