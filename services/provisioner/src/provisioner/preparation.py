"""Brings everything that a deployment's instances are made of to this machine: its files and its environment.

One task per deployment and generation, in the background, so that no other endpoint waits for a large model or a slow
build. What is there already is found again, so a provisioner that was restarted goes on where it was. What was done is
kept as text for people, per generation: the log of Azure's storage initializer.
"""

import asyncio
import logging
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

from contracts.environments.builder import BuildFailed, Built
from contracts.messages import Artifact, DeploymentDesired, DeploymentError, EndpointDesired, EnvironmentDesired
from contracts.messages.endpoints import EventReason
from provisioner.compute.logs import append, end_of
from provisioner.compute.prepared import Prepared
from provisioner.core.failures import not_built, not_fetched, not_started
from provisioner.events import Events

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_LARGEST_FILE = 1 << 20
_LARGEST_BUILD_LOG = 512 << 10
_LARGEST_TEXT = 2 * _LARGEST_BUILD_LOG
"""Of what is written down for people about a generation: every retry adds to it."""
_MOST_EVENTS = 100
"""Of a generation's builds, which fail anew with every retry and need not say the same each time."""
_THREADS = 16
"""Files come from a disk or a network: threads wait most of the time."""


@dataclass(frozen=True, slots=True)
class Pending:
    """Not all is here yet; `changed` is called when that changes."""


PENDING = Pending()


class Store(Protocol):
    """Keeps artifacts; `contracts.artifacts.ArtifactStore` is one. Both block."""

    def fetch(self, artifact: Artifact, progress: Callable[[str], None]) -> Path:
        """Where the artifact lies on this machine's disk, brought there when it was not. What `progress` raises ends
        it."""

    def read(self, artifact: Artifact, path: str, largest: int) -> bytes:
        """A small file of it; "" is the artifact itself."""


class Builder(Protocol):
    """Builds environments; `contracts.environments.builder.EnvironmentBuilder` is one."""

    async def build(self, name: str, text: str, told: Callable[[str], None]) -> Built:
        """The environment that the file `name` with `text` asks for. Raises BuildFailed."""


Key = tuple[str, str, int]
"""An endpoint, a deployment, and its generation."""


@dataclass(slots=True)
class _Entry:
    """One deployment's generation. `parts` is what it is made of, `said` the reasons of the events that were told of
    it, `stale` that its result must be found again."""

    parts: tuple[object, ...]
    said: set[str]
    task: "asyncio.Task[Prepared | DeploymentError]"
    stale: bool = False


class Preparation:
    """`store` and `builder` keep what they made; `runtime()` lays out the inference server, and blocks; `logs` is
    the folder for the texts. `changed(endpoint)` is called when a task has ended."""

    def __init__(
        self,
        store: Store,
        builder: Builder,
        runtime: Callable[[], Path],
        logs: Path,
        changed: Callable[[str], None],
        events: Events,
    ):
        self._store = store
        self._builder = builder
        self._runtime = runtime
        self._logs = logs
        self._changed = changed
        self._events = events
        self._entries: dict[Key, _Entry] = {}
        self._threads = ThreadPoolExecutor(_THREADS, "preparation")

    def of(self, endpoint: str, name: str, template: DeploymentDesired) -> Prepared | Pending | DeploymentError:
        """What instances of `template` start from. A failure is told once: the next question begins anew."""
        key = (endpoint, name, template.generation)
        parts = (template.model, template.code, template.environment)
        entry = self._entries.get(key)
        if entry is None or entry.parts != parts or entry.stale or entry.task.cancelled():
            same = entry is not None and entry.parts == parts
            if entry is not None:
                entry.task.cancel()
            said = entry.said if entry is not None and same else set[str]()
            task = asyncio.create_task(self._prepare(key, template, said), name=f"prepare {endpoint}/{name}")
            task.add_done_callback(lambda _: self._changed(endpoint))
            entry = self._entries[key] = _Entry(parts, said, task)
        if not entry.task.done():
            return PENDING
        result = entry.task.result()
        entry.stale = isinstance(result, DeploymentError)
        return result

    def doubt(self, endpoint: str, name: str, generation: int) -> None:
        """Something of it may have gone from the disk: the next question looks again."""
        if (entry := self._entries.get((endpoint, name, generation))) is not None:
            entry.stale = True

    def keep(self, endpoint: str, needed: Collection[tuple[str, int]]) -> None:
        """Of `endpoint`, forget all but the `needed` (deployment, generation); what is under way for others ends."""
        for key in [key for key in self._entries if key[0] == endpoint and key[1:] not in needed]:
            task = self._entries.pop(key).task
            task.cancel()
            task.add_done_callback(partial(_remove, self.log_file(*key)))

    def log_file(self, endpoint: str, name: str, generation: int) -> Path:
        """Where it is written what was done for a deployment's generation."""
        return self._logs / f"{endpoint}.{name}.{generation}.preparation.log"

    def tidy(self, desired: Mapping[str, EndpointDesired]) -> None:
        """Remove the texts about what is no longer desired. Blocks."""
        wanted = {
            self.log_file(name, at, deployment.generation)
            for name, endpoint in desired.items()
            for at, deployment in endpoint.deployments.items()
        }
        for path in self._logs.glob("*.preparation.log"):
            if path not in wanted:
                path.unlink(missing_ok=True)

    async def stop(self) -> None:
        """End whatever is under way. What is finished stays on the disk."""
        tasks = [entry.task for entry in self._entries.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _prepare(self, key: Key, template: DeploymentDesired, said: set[str]) -> Prepared | DeploymentError:
        job = _Job(self._store, self._builder, self._threads, self._events, key, self.log_file(*key), said)
        try:
            # All at once: a large model and a slow build need not wait for each other.
            async with asyncio.TaskGroup() as group:
                runtime = group.create_task(job.in_thread(self._runtime))
                python = group.create_task(job.environment(template.environment))
                code = group.create_task(job.files("code", template.code))
                model = group.create_task(job.files("model", template.model))
        except ExceptionGroup as failed:
            return await job.failed(failed.exceptions[0])
        except asyncio.CancelledError:
            job.cancel()
            raise
        return Prepared(python.result(), runtime.result(), code.result(), model.result())


class _Canceled(Exception):
    """Nobody needs it any more."""


class _Job:
    """One attempt to bring everything of one deployment's generation here. `said` are the events that earlier ones
    told: each is told once."""

    def __init__(
        self,
        store: Store,
        builder: Builder,
        threads: ThreadPoolExecutor,
        events: Events,
        key: Key,
        text: Path,
        said: set[str],
    ):
        self._store = store
        self._builder = builder
        self._threads = threads
        self._events = events
        self._key = key
        self._text = text
        self._said = said
        self._writing = threading.Lock()
        self._canceled = False

    def cancel(self) -> None:
        """Nobody needs it any more: its text may go, and threads, which nothing else can end, end at their next
        progress."""
        with self._writing:
            self._canceled = True

    async def in_thread(self, function: Callable[P, R], *arguments: P.args, **named: P.kwargs) -> R:
        """What blocks, beside the threads that commands use."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, partial(function, *arguments, **named))

    async def files(self, what: str, artifact: Artifact | None) -> Path | None:
        """Where the artifact lies on this machine's disk."""
        if artifact is None:
            return None
        named = f"{what} '{artifact.name}' ({artifact.digest[:12]})"
        self._tell(f"pulling {named}", "Pulling")
        path = await self.in_thread(self._store.fetch, artifact, self._progress)
        self._tell(f"{named} is at hand", "Pulled")
        return path

    async def environment(self, environment: EnvironmentDesired | None) -> Path:
        """The interpreter of the environment; without one, that of the services."""
        if environment is None:
            return Path(sys.executable)
        name = environment.file or environment.artifact.name
        self._tell(f"building the environment of '{name}'", "Building")
        raw = await self.in_thread(self._store.read, environment.artifact, environment.file, _LARGEST_FILE)
        built = await self._builder.build(name, raw.decode(), self._milestone)
        await self._copy(built.log)
        self._tell(f"the environment of '{name}' is built ({built.digest[:12]})", "Built")
        return built.python

    async def failed(self, error: Exception) -> DeploymentError:
        """What the deployment is told of an error."""
        endpoint, name, _ = self._key
        if isinstance(error, BuildFailed):
            if error.log is not None:
                await self._copy(error.log)
            told = not_built(error.message, error.tail)
            self._tell("\n".join((told.message, *told.log_tail)), "ImageBuildFailure")
            return told
        if isinstance(error, OSError | ValueError):
            told = not_fetched(str(error))
        else:
            log.error("preparing %s/%s failed", endpoint, name, exc_info=error)
            told = not_started(repr(error))
        self._note(told.message)
        return told

    async def _copy(self, build_log: Path) -> None:
        text = await self.in_thread(end_of, [build_log], _LARGEST_BUILD_LOG)
        self._note(text.decode(errors="replace").rstrip())

    def _tell(self, message: str, reason: EventReason) -> None:
        self._note(message)
        if (said := f"{reason} {message}") not in self._said:
            self._said.add(said)
            self._events.tell(self._key[0], self._key[1], reason, message)

    def _milestone(self, line: str) -> None:
        """A step of the build, of which there are a handful."""
        if len(self._said) < _MOST_EVENTS:
            self._tell(line, "Building")
        else:
            self._note(line)

    def _progress(self, line: str) -> None:
        if self._canceled:
            raise _Canceled
        self._note(line)

    def _note(self, text: str) -> None:
        """Add to the text for people; a disk that does not take it holds nothing up."""
        at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            self._text.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._writing:
                if not self._canceled:
                    append(self._text, f"{at} {text}\n", _LARGEST_TEXT)
        except OSError as error:
            log.warning("cannot write %s: %s", self._text, error)


def _remove(path: Path, _: object) -> None:
    path.unlink(missing_ok=True)
