"""Data that instances collected, fetched from where they put it to where it is kept.

An instance puts finished files into its work/collected/<endpoint>/<deployment>/<collection>/<yyyy>[/<MM>[/<dd>[/<HH>
[/<mm>]]]]/<id>.jsonl, as deep as the deployment's rolling_rate says; they move to the same path below <home>/data. One
that was killed leaves a <id>.jsonl.part, whole up to its last line end: that part is taken when the instance has ended.

User code may put anything there, links and pipes and names of its choice, and change it at any moment. So each folder
is opened from the one above without following links, whose data it is comes from the instance's record, names have to
fit, and contents are copied, for a file that is moved would stay its writer's.
"""

import contextlib
import logging
import os
import re
import shutil
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from contracts.shell.files import write_atomically

log = logging.getLogger(__name__)

LARGEST_BYTES = 64 * 2**20
MOST_FILES = 256
"""In one go; more are for the next."""

_MOST_ENTRIES = 4096
_PART = ".part"
_LEVELS = tuple(  # the collection, then the year down to the minute
    re.compile(pattern, re.ASCII)
    for pattern in (r"[A-Za-z0-9_-]{1,64}", r"\d{4}", r"[01]\d", r"[0-3]\d", r"[0-2]\d", r"[0-5]\d")
)
_FILE = re.compile(r"[A-Za-z0-9_.-]{1,128}\.jsonl")
_FILE_OR_PART = re.compile(rf"{_FILE.pattern}({re.escape(_PART)})?")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTENT = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC


def fetch(collected: Path, endpoint: str, deployment: str, data: Path, ended: bool = False) -> int:
    """Move what is finished in `collected`, the data of that deployment, to `data`. How many files were moved. `ended`:
    nobody writes there any more, so what was never finished moves too."""
    moved = 0
    wanted = _FILE_OR_PART if ended else _FILE
    with contextlib.suppress(OSError), _opened(str(collected)) as top:  # user code may have removed it
        for path, folder, name in islice(_found(top, endpoint, deployment, wanted), MOST_FILES):
            try:
                moved += _move(folder, name, data / path / name.removesuffix(_PART))
            except OSError as error:
                log.warning("collected data of %s/%s cannot be kept: %s: %s", endpoint, deployment, path, error)
    return moved


def _found(top: int, endpoint: str, deployment: str, wanted: re.Pattern[str]) -> Iterator[tuple[Path, int, str]]:
    """The files whose name is `wanted`: path of their folder, the folder opened, name."""
    with contextlib.suppress(OSError), _opened(endpoint, top) as first, _opened(deployment, first) as second:
        yield from _below(second, Path(endpoint, deployment), 0, wanted)


def _below(folder: int, path: Path, level: int, wanted: re.Pattern[str]) -> Iterator[tuple[Path, int, str]]:
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in islice(entries, _MOST_ENTRIES))
    if level > 1:  # within a year
        yield from ((path, folder, name) for name in names if wanted.fullmatch(name))
    for name in names:
        if level < len(_LEVELS) and _LEVELS[level].fullmatch(name):
            with contextlib.suppress(OSError), _opened(name, folder) as deeper:
                yield from _below(deeper, path / name, level + 1, wanted)


def _move(folder: int, name: str, target: Path) -> bool:
    """Whether it was a file that could be taken. What cannot is removed: it would be looked at again and again."""
    # The target is there when a provisioner was killed between the copy and the removal.
    content = None if target.exists() else _content(folder, name)
    if content is not None and name.endswith(_PART):
        content = content[: content.rfind(b"\n") + 1] or None
    if content is not None:
        write_atomically(target, content)
    try:
        os.unlink(name, dir_fd=folder)
    except IsADirectoryError:
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder)
    return content is not None


def _content(folder: int, name: str) -> bytes | None:
    """What a regular file holds that is not too large; None for everything else."""
    try:
        descriptor = os.open(name, _CONTENT, dir_fd=folder)
    except OSError:  # a link, a socket
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_BYTES:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read(LARGEST_BYTES)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _opened(name: str, above: int | None = None) -> Iterator[int]:
    descriptor = os.open(name, _FOLDER, dir_fd=above)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
