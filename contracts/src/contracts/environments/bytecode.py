"""Bytecode of an environment, compiled in the background with what time others leave: it is imported far quicker."""

import asyncio
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from contracts.environments.tool import UMASK
from contracts.shell.threads import in_thread

log = logging.getLogger(__name__)

_SECONDS = 0.2
_COMPILE = """
import compileall, os, sys
os.nice(19)
for folder in sys.argv[2:]:
    compileall.compile_dir(folder, quiet=2, workers=1)
open(sys.argv[1], "w").close()
"""


async def compile_all(python: Path, marker: Path, runtime: Callable[[], Path] | None) -> None:
    """Compile the packages of `python`'s environment, and first the `runtime` folder; then `marker` is there."""
    try:
        folders = [python.parent.parent / "lib"]
        if runtime is not None:
            folders.insert(0, await in_thread(runtime))
        process = await in_thread(_start, python, marker, folders)
        try:
            while process.poll() is None:  # noqa: ASYNC110 - see _start
                await asyncio.sleep(_SECONDS)
        finally:
            process.kill()
            process.wait()
    except OSError as error:
        log.warning("%s starts without bytecode: %s", python, error)


def _start(python: Path, marker: Path, folders: list[Path]) -> "subprocess.Popen[bytes]":
    """Not a process of asyncio's: who waits may be canceled together with the loop, which asyncio's would wait for."""
    return subprocess.Popen(
        [python, "-I", "-c", _COMPILE, marker, *folders],
        cwd="/",
        env={"PATH": os.defpath},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        umask=UMASK,
    )
