"""uv as a subprocess, and the log of a build that a person reads."""

import asyncio
import os
import re
import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from contracts.environments.pythons import search_path
from contracts.shell.files import READABLE_FILE
from contracts.shell.threads import ended

_PASSED_ON = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|XDG_\w+|NETRC|SSL_CERT_(FILE|DIR)|UV_\w+|(\w+_proxy)|(\w+_PROXY)"
)
_PASSWORD = re.compile(r"//[^/@\s]+@")
_TAIL = 20
UMASK = 0o022
"""Environments are for every user of the machine."""


def uv_environment(outer: Mapping[str, str], cache: Path) -> dict[str, str]:
    """What uv is told of this process's environment: how to reach the network, and nothing of the services' secrets.
    An environment that happens to be active is its owner's."""
    told = {name: value for name, value in outer.items() if _PASSED_ON.fullmatch(name)}
    return told | {"UV_CACHE_DIR": str(cache), "UV_PYTHON_DOWNLOADS": "never", "PATH": search_path(outer)}


class BuildLog:
    """A build's log: what is done, with the time, and what uv says about it. `told` gets the former."""

    def __init__(self, path: Path, told: Callable[[str], None]):
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace")
        os.fchmod(self._file.fileno(), READABLE_FILE)
        self._told = told
        self._tail: deque[str] = deque(maxlen=_TAIL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def say(self, text: str) -> None:
        """A step or its outcome, for everybody."""
        self.note(text)
        self._told(text)

    def note(self, text: str) -> None:
        """A line for whoever reads the log."""
        self._write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}  {text}")

    def quote(self, text: str) -> None:
        """A line of uv's."""
        self._write(f"    | {text}")

    @property
    def tail(self) -> tuple[str, ...]:
        """The last lines."""
        return tuple(self._tail)

    def _write(self, line: str) -> None:
        self._tail.append(line)
        with suppress(OSError):  # a full disk fails the build elsewhere, with its reason
            self._file.write(line + "\n")
            self._file.flush()


async def run(
    command: Sequence[str], environment: Mapping[str, str], log: BuildLog, held: int
) -> tuple[int, list[str]]:
    """Run a command to its end, its standard error in the log; returns its exit code and what it said. A canceled
    caller leaves no process behind. Should *this* process be killed, the command keeps the descriptor `held`, a lock,
    until it ends as well: nobody builds in its folder meanwhile."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd="/",  # no project's settings apply
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        pass_fds=(held,),
        umask=UMASK,
        limit=1 << 20,
    )
    assert process.stderr is not None
    said: list[str] = []
    try:
        async for line in process.stderr:
            said.append(_PASSWORD.sub("//***@", line.decode(errors="replace").rstrip()))
            log.quote(said[-1])
        return await process.wait(), said
    except BaseException:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await ended(asyncio.ensure_future(process.wait()))
        raise
