"""Environments on disk, each built once:

    <root>/<digest>/        environment.json  requirements.in  requirements.lock  build.log  venv/
    <root>/building/        what is being built; it is moved to its place when it is whole
    <root>/failed/          the log of each build that failed, <digest>.log
    <root>/locks/           one builder for each digest, among all processes that share the root

uv resolves the packages into a lock with digests and installs exactly that, with hard links from its cache: an
environment costs little more than its folders. The digest is of the file's *meaning* (see `specification`), so the
packages of a file that was built once stay as they were.
"""

import asyncio
import fcntl
import json
import os
import shutil
import sysconfig
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Self

import uv

from contracts.environments.bytecode import compile_all
from contracts.environments.failures import readable
from contracts.environments.lines import Trouble
from contracts.environments.lock import held, releases
from contracts.environments.orders import Order, Orders
from contracts.environments.pythons import fits, wanted
from contracts.environments.runtime import install
from contracts.environments.tool import BuildLog, run, uv_environment
from contracts.shell.files import READABLE_FOLDER, open_to_read, write_atomically
from contracts.shell.settings import Settings
from contracts.shell.threads import in_thread

_LOCK_SECONDS = 0.1


class BuildFailed(Exception):
    """The environment cannot be had: why and what to do, the last lines of the log, and where the whole log is."""

    def __init__(self, message: str, tail: tuple[str, ...] = (), log: Path | None = None):
        super().__init__(message)
        self.message, self.tail, self.log = message, tail, log


@dataclass(frozen=True, slots=True)
class Built:
    """An environment that is whole: its interpreter, of `version`, and its folder."""

    python: Path
    version: str
    digest: str
    folder: Path

    @property
    def log(self) -> Path:
        """How it was built."""
        return self.folder / "build.log"


class EnvironmentBuilder:
    """Builds environments under `root`. `uv_cache` should lie on the same file system (default: UV_CACHE_DIR, or
    beside `root`); `runtime` tells a folder that is compiled for each environment's Python too. `builds` allows
    packages that have no wheel: their authors' code then runs with the rights of this process. `compiles`: compile the
    bytecode in the background, for instances that may not write it. A build takes `seconds` at most, and `parallel` of
    them run at a time."""

    def __init__(
        self,
        root: Path,
        uv_cache: Path | None = None,
        *,
        runtime: Callable[[], Path] | None = None,
        builds: bool = False,
        compiles: bool = True,
        seconds: float = 1800,
        parallel: int = 2,
    ):
        self._root = root.resolve()
        cache = uv_cache or Path(os.environ.get("UV_CACHE_DIR") or self._root.parent / "uv-cache")
        self._uv, self._environment = uv.find_uv_bin(), uv_environment(os.environ, cache.resolve())
        self._runtime, self._builds, self._seconds = runtime, builds, seconds
        self._compiles = compiles
        self._room = asyncio.Semaphore(parallel)
        self.orders = Orders(self._uv, self._environment)
        self._compiling: dict[str, asyncio.Task[None]] = {}
        self._tidied = False

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The builder of a service."""
        return cls(
            settings.environments,
            runtime=partial(install, settings.home),
            builds=settings.environment_builds,
            seconds=settings.environment_seconds,
        )

    def check(self, name: str, text: str) -> list[Trouble]:
        """All that can be said against the file `name` without building it. Blocks, shortly."""
        order = self.orders.of(name, text)
        return order if isinstance(order, list) else []

    async def build(self, name: str, text: str, told: Callable[[str], None]) -> Built:
        """The environment of the file `name`, built unless it is there; `told` hears of the progress. Raises
        BuildFailed. A canceled build leaves nothing behind; a killed one is begun anew by the next."""
        order = await in_thread(self.orders.of, name, text)
        if isinstance(order, list):
            raise BuildFailed("; ".join(f"{name}, {trouble}" for trouble in order))
        if built := await in_thread(self._ready, order):
            told("the environment is there already")
        else:
            async with self._alone(order.digest, told) as lock:
                built = await in_thread(self._ready, order)
                if built is None:
                    async with self._room:
                        built = await self._make(order, lock, told)
        self._compile(built)
        return built

    def _ready(self, order: Order) -> Built | None:
        built = self._at(order)
        # Its interpreter may have been removed since.
        return built if (built.folder / "environment.json").exists() and built.python.exists() else None

    def _at(self, order: Order) -> Built:
        folder = self._root / order.digest
        return Built(folder / "venv" / "bin" / "python", order.interpreter.version, order.digest, folder)

    @asynccontextmanager
    async def _alone(self, digest: str, told: Callable[[str], None]) -> AsyncIterator[IO[str]]:
        """Hold the lock of `digest`. A dead process holds none."""
        with await in_thread(self._lock_file, digest) as lock:
            waiting = False
            while not _locks(lock):
                if not waiting:
                    told("waiting for another process that builds the same environment")
                waiting = True
                await asyncio.sleep(_LOCK_SECONDS)
            yield lock

    def _lock_file(self, digest: str) -> IO[str]:
        for folder in (self._root, self._root / "building", self._root / "failed", self._root / "locks"):
            folder.mkdir(parents=True, exist_ok=True)
        self._root.chmod(READABLE_FOLDER)
        if not self._tidied:
            self._tidied = True
            self._tidy()
        return (self._root / "locks" / digest).open("a")

    def _tidy(self) -> None:
        """Remove what killed builds have left."""
        for folder in (self._root / "building").iterdir():
            with (self._root / "locks" / folder.name).open("a") as lock:
                if _locks(lock):
                    shutil.rmtree(folder, ignore_errors=True)

    # A build

    async def _make(self, order: Order, lock: IO[str], told: Callable[[str], None]) -> Built:
        building = self._root / "building" / order.digest
        started = time.monotonic()
        try:
            await in_thread(_begin, building)
            with BuildLog(building / "build.log", told) as notes:
                try:
                    async with asyncio.timeout(self._seconds):
                        await self._resolve(order, building, notes, lock)
                        await self._install(order, building, notes, lock)
                    await in_thread(self._finish, order, building, time.monotonic() - started)
                    await in_thread(self._put, building, self._root / order.digest)
                except (BuildFailed, TimeoutError, OSError) as error:
                    raise self._failed(order, building, notes, error) from None
                except asyncio.CancelledError:
                    notes.note("canceled")
                    raise
                notes.say(f"the environment is ready, in {time.monotonic() - started:.1f} s")
        except BaseException:
            await in_thread(shutil.rmtree, building, True)
            raise
        return self._at(order)

    async def _resolve(self, order: Order, building: Path, notes: BuildLog, lock: IO[str]) -> None:
        specification, python = order.specification, order.interpreter
        notes.note(f"environment {order.digest} of {order.file}, with {python.path}")
        for note in specification.notes:
            notes.note(str(note))
        if specification.python and not fits(specification.python, python):
            notes.say(
                f"Python {wanted(specification.python)} is not on this machine, {python.version} stands in for it"
            )
        count = len(specification.requirements)
        notes.say(f"resolving {count} requirement{'' if count == 1 else 's'} for Python {python.version}")
        started = time.monotonic()
        if said := await self._compile_lock(order, building, notes, lock):
            raise BuildFailed(readable(said, specification))
        notes.note(f"resolved in {time.monotonic() - started:.1f} s")

    async def _compile_lock(self, order: Order, building: Path, notes: BuildLog, lock: IO[str]) -> list[str]:
        """Write requirements.in and the lock of it; returns what uv says when it cannot."""
        asked = [one.text for one in order.specification.requirements]
        source, target = building / "requirements.in", building / "requirements.lock"
        source.write_text("".join(f"{line}\n" for line in asked))
        code, said = await self._pip(
            *("compile", "--generate-hashes", "--no-header", "--no-annotate", f"--python={order.interpreter.path}"),
            *(f"--output-file={target}", str(source)),
            order=order,
            notes=notes,
            lock=lock,
        )
        if code == 0:
            target.write_text(held(target.read_text(), order.specification.requirements))
            return []
        return said or [f"error: uv ended with code {code}"]

    async def _install(self, order: Order, building: Path, notes: BuildLog, lock: IO[str]) -> None:
        count = len(releases((building / "requirements.lock").read_text()))
        notes.say(f"installing {count} package{'' if count == 1 else 's'}")
        started, venv = time.monotonic(), building / "venv"
        code, said = await run(
            [self._uv, "venv", "--relocatable", f"--python={order.interpreter.path}", str(venv)],
            self._environment,
            notes,
            lock.fileno(),
        )
        if code == 0:
            code, said = await self._pip(
                *("sync", "--require-hashes", "--link-mode=hardlink", "--allow-empty-requirements"),
                *(f"--python={venv / 'bin' / 'python'}", str(building / "requirements.lock")),
                order=order,
                notes=notes,
                lock=lock,
            )
        if code != 0:
            raise BuildFailed(readable(said, order.specification))
        notes.note(f"installed in {time.monotonic() - started:.1f} s")

    async def _pip(self, *arguments: str, order: Order, notes: BuildLog, lock: IO[str]) -> tuple[int, list[str]]:
        options = ["--no-progress", "--color=never", *order.specification.options]
        if not self._builds:
            options.append("--no-build")
        if any(option.startswith("--extra-index-url") for option in options):
            options.append("--index-strategy=unsafe-best-match")  # as pip has it, for which the file was written
        return await run([self._uv, "pip", *arguments, *options], self._environment, notes, lock.fileno())

    def _finish(self, order: Order, building: Path, seconds: float) -> None:
        description = {
            "digest": order.digest,
            "file": order.file,
            "python": order.interpreter.version,
            "interpreter": order.interpreter.path,
            "platform": sysconfig.get_platform(),
            "packages": releases((building / "requirements.lock").read_text()),
            "seconds": round(seconds, 2),
        }
        write_atomically(building / "environment.json", json.dumps(description, indent=2).encode())
        open_to_read(building)

    def _put(self, building: Path, place: Path) -> None:
        """Move it to its place, instead of one whose interpreter is gone."""
        shutil.rmtree(place, ignore_errors=True)
        (self._root / "failed" / f"{place.name}.log").unlink(missing_ok=True)
        building.rename(place)

    def _failed(self, order: Order, building: Path, notes: BuildLog, error: Exception) -> BuildFailed:
        if isinstance(error, TimeoutError):
            reason = (
                f"the build took longer than {self._seconds:g} s: ask for fewer packages, or raise "
                "ENDPUNKT_ENVIRONMENT_SECONDS"
            )
        else:
            reason = str(error)
        notes.say(f"failed: {reason}")
        kept = self._root / "failed" / f"{order.digest}.log"
        with suppress(OSError):
            (building / "build.log").replace(kept)
        return BuildFailed(f"{order.file}: {reason}", notes.tail, kept)

    def _compile(self, built: Built) -> None:
        """Compile what is imported, in the background and with what time others leave; once for each environment."""
        if built.digest not in self._compiling and not (built.folder / "compiled").exists():
            task = asyncio.create_task(compile_all(built.python, built.folder / "compiled", self._runtime))
            task.add_done_callback(lambda _: self._compiling.pop(built.digest))
            self._compiling[built.digest] = task


def _begin(building: Path) -> None:
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
