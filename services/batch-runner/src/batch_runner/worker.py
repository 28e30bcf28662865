"""One worker process: it runs the user's script over the mini-batches that it is handed.

The protocol is `inference_server.batch`'s: JSON lines over a socket pair. The process is another session and gets only
the environment that it is given. What it says is hostile: it runs user code, which may speak in its name.
"""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LARGEST_ANSWER = 64 << 20
"""Bytes of one answer: the rows of a mini-batch as JSON."""

MARK = "ENDPUNKT_BATCH_JOB"
"""The variable that marks every process of a job, with the job's folder."""

_LAST_WORDS = 2000
_EXIT_SECONDS = 1.0
_DEATH_SECONDS = 10.0


class StartError(Exception):
    """The worker did not become ready; the text says why, with the end of the traceback."""


@dataclass(frozen=True, slots=True)
class Launch:
    """How a worker is started: the command that runs its module, all of its environment, its folder, its logs, and the
    seconds that it may take."""

    command: Sequence[str]
    environment: Mapping[str, str]
    folder: Path
    stdout: Path
    stderr: Path
    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """How an attempt ended: so many rows, a line each in `content`, or an error with its traceback."""

    rows: int = 0
    content: bytes = b""
    error: str | None = None
    traceback: str = ""


class _BrokenError(Exception):
    """The worker is of no more use."""


class Worker:
    """A ready worker. `alive` says whether it can take another mini-batch."""

    def __init__(self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.alive = True
        self.pid = process.pid
        self._process = process
        self._reader, self._writer = reader, writer

    @classmethod
    async def start(cls, launch: Launch) -> "Worker":
        """Start a process and wait until the script's `init()` has run. Raises StartError; no process is left then."""
        worker = await cls._spawn(launch)
        try:
            async with asyncio.timeout(launch.seconds):
                said = await worker._hear()
            if said.get("state") != "ready":
                raise StartError(_failure(said))
        except (_BrokenError, TimeoutError, StartError) as error:
            await worker.kill()
            if isinstance(error, StartError):
                raise
            why = str(error) or f"init() took longer than {launch.seconds:g} s (ENDPUNKT_WORKER_START_SECONDS)"
            words = await asyncio.to_thread(_tail, launch.stderr)
            raise StartError(f"UserScriptInitFailed: {why}; its log ends: {words}") from None
        except BaseException:
            await worker.kill()
            raise
        return worker

    @classmethod
    async def _spawn(cls, launch: Launch) -> "Worker":
        ours, theirs = socket.socketpair()
        try:
            with theirs, launch.stdout.open("ab") as stdout, launch.stderr.open("ab") as stderr:
                process = await asyncio.create_subprocess_exec(
                    *(*launch.command, "--fd", str(theirs.fileno())),
                    env=launch.environment,
                    cwd=launch.folder,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
            reader, writer = await asyncio.open_unix_connection(sock=ours, limit=LARGEST_ANSWER)
        except BaseException:
            ours.close()
            raise
        return cls(process, reader, writer)

    async def score(self, mini_batch: int, files: list[str], seconds: float) -> Answer:
        """Have one mini-batch scored. A worker that takes longer than `seconds`, dies or talks nonsense is killed."""
        try:
            async with asyncio.timeout(seconds):
                self._writer.write(json.dumps({"id": mini_batch, "files": files}).encode() + b"\n")
                await self._writer.drain()
                return _answer(mini_batch, await self._hear())
        except TimeoutError:
            reason = f"the mini-batch took longer than its timeout of {seconds:g} s"
        except (_BrokenError, OSError) as error:
            reason = str(error)
        await self.kill()
        return Answer(error=reason)

    async def stop(self, seconds: float) -> None:
        """Let the script's `shutdown()` run, for `seconds` at most, and end the process."""
        self._writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._process.wait()
        await self.kill()

    async def kill(self) -> None:
        """End the process and everything in its group; returns when the process is gone."""
        self.alive = False
        self._writer.close()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self._process.wait()

    async def _hear(self) -> dict[str, Any]:
        try:
            line = await self._reader.readline()
        except ValueError:
            raise _BrokenError(
                f"the rows of the mini-batch are more than {LARGEST_ANSWER >> 20} MiB: lower mini_batch_size"
            ) from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise _BrokenError(f"the worker {await self._end()}")
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise _BrokenError("the worker said what is no answer")
        return said

    async def _end(self) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(_EXIT_SECONDS):
                await self._process.wait()
        code = self._process.returncode
        if code is None:
            return "closed its connection"
        return f"exited with code {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


def _answer(mini_batch: int, said: dict[str, Any]) -> Answer:
    """The worker's words, checked."""
    if said.get("id") != mini_batch:
        raise _BrokenError("the worker answered another question")
    rows, error = said.get("rows"), said.get("error")
    if said.get("ok") is True and isinstance(rows, list) and all(isinstance(row, str) for row in rows):
        try:
            # A row may repeat a file's name that is no Unicode: it is written as the bytes that it was.
            return Answer(rows=len(rows), content="".join(f"{row}\n" for row in rows).encode(errors="surrogateescape"))
        except UnicodeEncodeError as unwritable:
            return Answer(error=f"run() returned a row that is no text: {unwritable}")
    if said.get("ok") is False and isinstance(error, dict):
        return Answer(
            error=_text(f"{error.get('type')}: {error.get('message')}"), traceback=_text(error.get("traceback"))
        )
    raise _BrokenError("the worker said what is no answer")


def _failure(said: dict[str, Any]) -> str:
    """Why a worker says that it is not ready."""
    traceback = _text(said.get("traceback") or "")[-_LAST_WORDS:]
    return _text(f"{said.get('code')}: {said.get('message')}\n{traceback}").rstrip()


def _text(said: object) -> str:
    """Text that every reader takes: file names that are no Unicode are escaped."""
    return str(said).encode(errors="backslashreplace").decode()


def _tail(path: Path) -> str:
    return path.read_bytes()[-_LAST_WORDS:].decode(errors="replace").strip() or "(it is empty)"


def marked(mark: str) -> list[int]:
    """The processes that carry a job's mark. They are known by it and not by a number that may be another's by now;
    children that left their group are found too."""
    needle = os.fsencode(f"{MARK}={mark}")
    found = []
    for name in os.listdir("/proc"):
        with suppress(OSError):
            if name.isdecimal() and needle in Path("/proc", name, "environ").read_bytes().split(b"\0"):
                found.append(int(name))
    return found


async def kill_marked(mark: str) -> list[int]:
    """End every process that carries the mark; returns those that outlive it, which only a hung kernel call can."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_DEATH_SECONDS):
            while pids := await asyncio.to_thread(marked, mark):
                for pid in pids:
                    with suppress(ProcessLookupError, PermissionError):
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.02)
    return marked(mark)
