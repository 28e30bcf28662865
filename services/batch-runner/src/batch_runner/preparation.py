"""Brings what a job's workers are made of to this machine: its files, its environment, and the worker's module.

Files come from the artifact store, environments from the builder that every service of a machine shares: what is there
already is only found.
"""

import asyncio
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from batch_runner.plan import Plan
from contracts.artifacts.store import ArtifactStore
from contracts.environments.builder import BuildFailed, EnvironmentBuilder
from contracts.messages import Artifact, EnvironmentDesired
from contracts.shell.threads import ended, in_thread

_LARGEST_FILE = 1 << 20
_SAFE_PATH_SINCE = (3, 11)
_OWN = ".".join(map(str, sys.version_info[:3]))


class NotPreparedError(Exception):
    """The job's workers cannot be had; the text is for whoever started it."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """The interpreter (and its version), the folder with the package `inference_server`, the script's folder, and the
    model itself, whose parent is AZUREML_MODEL_DIR."""

    python: Path
    version: str
    runtime: Path
    code: Path
    model: Path | None

    @property
    def command(self) -> list[str]:
        """A worker. The script's folder must not shadow its modules, where Python can be told so."""
        safe = tuple(map(int, self.version.split(".")[:2])) >= _SAFE_PATH_SINCE
        return [str(self.python), *(["-P"] if safe else []), "-m", "inference_server.batch"]


class _AbandonedError(Exception):
    """Nobody waits for the files any more."""


class Preparation:
    """`runtime` installs the worker's package and tells where; it blocks."""

    def __init__(self, store: ArtifactStore, builder: EnvironmentBuilder, runtime: Callable[[], Path]):
        self._store, self._builder, self._runtime = store, builder, runtime

    async def of(self, plan: Plan, told: Callable[[str], None]) -> Prepared:
        """What the job's workers start from; `told` hears of the progress, from any thread. Raises NotPreparedError."""
        python, version = await self._environment(plan.environment, told)
        code = await self._files(plan.code, told)
        model = await self._files(plan.model, told) if plan.model is not None else None
        return Prepared(python, version, await in_thread(self._runtime), code, model)

    async def _environment(
        self, environment: EnvironmentDesired | None, told: Callable[[str], None]
    ) -> tuple[Path, str]:
        if environment is None:
            return Path(sys.executable), _OWN
        try:
            raw = await in_thread(self._store.read, environment.artifact, environment.file, _LARGEST_FILE)
            built = await self._builder.build(environment.file or environment.artifact.name, raw.decode(), told)
        except BuildFailed as error:
            raise NotPreparedError("\n".join((f"ImageBuildFailure: {error.message}", *error.tail))) from error
        except (OSError, ValueError) as error:
            raise NotPreparedError(f"ResourceNotReady: the environment's file: {error}") from error
        return built.python, built.version

    async def _files(self, artifact: Artifact, told: Callable[[str], None]) -> Path:
        gone = threading.Event()

        def progress(text: str) -> None:
            if gone.is_set():
                raise _AbandonedError
            told(text)

        fetching = asyncio.ensure_future(asyncio.to_thread(self._store.fetch, artifact, progress))
        try:
            await asyncio.wait({fetching})
        except asyncio.CancelledError:
            gone.set()
            await ended(fetching)
            fetching.exception()  # retrieved: nobody is interested
            raise
        try:
            return fetching.result()
        except (OSError, ValueError) as error:
            raise NotPreparedError(f"ResourceNotReady: '{artifact.name}': {error}; put the deployment again") from error
