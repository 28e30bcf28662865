"""Settings and wiring of the batch-runner."""

from batch_runner.app import SERVICE, BatchRunner
from batch_runner.settings import BatchRunnerSettings
from contracts.shell.service import serve

if __name__ == "__main__":
    serve(SERVICE, BatchRunnerSettings, BatchRunner)
