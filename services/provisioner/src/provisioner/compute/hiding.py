"""What of the machine's files an instance sees: which folders are covered, and what is bound back.

PURE: paths in, paths out; what lies on the disk is asked by `interpreter` and `process`.

Covered are the home (secrets, the log's files, other instances), whatever has the way to a needed path closed for other
users (/root), and the folders that all users share for their temporary files, which become the instance's own. In
them only what is needed comes back, at the same path, so that nothing has to be told other names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

SHARED = (Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"))  # noqa: S108 - covered, not used


@dataclass(frozen=True, slots=True)
class Hiding:
    """`covers`: folders with the options of their tmpfs. `binds`: what comes back, and whether it may be written to;
    outermost first."""

    covers: tuple[tuple[Path, str], ...]
    binds: tuple[tuple[Path, bool], ...]


def hiding(needed: Mapping[Path, bool], closed: Iterable[Path], shared: Iterable[Path], memory_bytes: int) -> Hiding:
    """`needed`: folders, and whether the instance writes to them. `closed`: what is to be covered. `shared`: the
    folders for temporary files; what is in them counts as the instance's memory, of which each may take half."""
    every = dict.fromkeys(closed, f"mode=755,size={2**20}")
    every |= dict.fromkeys(shared, f"mode=1777,size={memory_bytes // 2}")
    covers = {path: options for path, options in every.items() if not _inside(path, every)}
    back = {path: writable for path, writable in needed.items() if _inside(path, covers)}
    binds = {
        path: writable
        for path, writable in back.items()
        if writable or not _inside(path, [p for p in back if p != path])
    }
    return Hiding(tuple(sorted(covers.items())), tuple(sorted(binds.items(), key=lambda item: len(item[0].parts))))


def _inside(path: Path, folders: Iterable[Path]) -> bool:
    above = set(path.parents)
    return any(folder in above for folder in folders)
