"""The last lines of files that may be long, read from their ends, and files that never get too long."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from contracts.shell.files import write_atomically


def end_of(files: Sequence[Path], largest: int) -> bytes:
    """The last `largest` bytes of `files` (oldest first) as if they were one; what cannot be read is empty."""
    parts: list[bytes] = []
    for path in reversed(files):
        with contextlib.suppress(OSError), path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - largest))
            # It may grow meanwhile.
            part = file.read(min(size, largest))
            parts.append(part)
            largest -= len(part)
        if not largest:
            break
    return b"".join(reversed(parts))


def last_lines(files: Sequence[Path], lines: int, largest: int) -> list[str]:
    """The last `lines` lines of `files` (oldest first) together. Of a line that does not lie within the last `largest`
    bytes as a whole, the end."""
    return end_of(files, largest).decode(errors="replace").splitlines()[-lines:]


def append(path: Path, text: str, largest: int) -> None:
    """Add to a file of lines. When it gets over `largest` bytes, of its newest half the whole lines are kept. Raises
    OSError."""
    with path.open("ab") as file:
        file.write(text.encode(errors="replace"))
        if file.tell() <= largest:
            return
    newest = end_of([path], largest // 2)
    write_atomically(path, newest.partition(b"\n")[2] or newest)
