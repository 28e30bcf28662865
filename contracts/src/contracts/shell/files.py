"""Small files that several processes share: made once, whole or not at all."""

import fcntl
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

READABLE_FOLDER = 0o755
READABLE_FILE = 0o644


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Put `content` at `path` so that a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock among the processes that use the lock file `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """The content of `path`, made first, by one process, when it is missing. Only its owner may read it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(path.with_name(f".{path.name}.lock")):
            if not path.exists():
                write_atomically(path, make())
    return path.read_bytes()


def open_to_read(folder: Path) -> None:
    """Let every user read what is below `folder`, whatever umask it was made with; programs stay programs."""
    for place, _, names in os.walk(folder):
        os.chmod(place, READABLE_FOLDER)
        for name in names:
            path = os.path.join(place, name)
            mode = stat.S_IMODE(os.lstat(path).st_mode)
            wanted = READABLE_FOLDER if mode & stat.S_IXUSR else READABLE_FILE
            if mode != wanted and not os.path.islink(path):
                os.chmod(path, wanted)
