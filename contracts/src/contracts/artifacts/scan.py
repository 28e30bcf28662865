"""A local file or folder as a tree: what becomes part of an artifact, and what it holds now.

`__pycache__` folders are no content, and neither is what `ignored` says. Links must stay inside. Everything blocks.
"""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.artifacts.tree import CHUNK, MOST_ENTRIES, BadTree, Entry, File, Folder, Link, Tree, check

_SKIPPED = "__pycache__"
_PIECE = 1 << 20

Ignored = Callable[[str, bool], bool]
"""Whether what lies at a path relative to the root is left out; the flag says that it is a folder."""


class Unusable(ValueError):
    """Why a file or folder cannot become an artifact: the rest of a sentence that begins with its path."""


@dataclass(frozen=True, slots=True)
class Found:
    """What lies at `path` (relative to the root, which is ""), unread: `mode` and `size` are the disk's, `link` is
    where a link leads, relative to the folder it lies in."""

    path: str
    mode: int
    size: int
    link: str | None = None

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder of its own."""
        return stat.S_ISDIR(self.mode)


def keep_all(_: str, __: bool) -> bool:
    """Ignores nothing."""
    return False


def look(root: Path, largest: int, ignored: Ignored = keep_all) -> list[Found]:
    """Everything in `root`, itself first, ordered by path, without reading contents. Raises Unusable for what cannot be
    kept whole, or has more than `largest` bytes, and OSError."""
    found = []
    total = 0
    for each in _walk(root, root.resolve(strict=True), ignored):
        total += each.size
        if total > largest:
            raise Unusable(
                f"is larger than the {largest / 2**30:g} GiB that an artifact may have (ENDPUNKT_ARTIFACT_GIB)"
            )
        found.append(each)
        if len(found) > MOST_ENTRIES:
            raise Unusable(f"has more than {MOST_ENTRIES} files")
    return sorted(found, key=lambda each: each.path)


def scan(root: Path, largest: int, ignored: Ignored = keep_all) -> Tree:
    """The tree that `root` is now, under its own name; every file is read. Raises Unusable and OSError."""
    try:
        entries = tuple(_entry(root, each) for each in look(root, largest, ignored))
        tree = Tree(name=root.name, entries=entries)
        check(tree)
    except BadTree as error:
        raise Unusable(f"cannot be kept: {error}") from None
    return tree


def chunk_of(root: Path, file: File, index: int) -> bytes:
    """A chunk's bytes as they are now. Raises Unusable when they are not what the scan read."""
    with (root / file.path if file.path else root).open("rb") as opened:
        opened.seek(index * CHUNK)
        data = opened.read(CHUNK)
    if hashlib.sha256(data).hexdigest() != file.chunks[index]:
        raise Unusable("changed while it was copied: try again")
    return data


def reason(path: Path, error: Exception) -> str:
    """An Unusable or OSError of `look`, `scan` or `chunk_of` as a sentence."""
    if isinstance(error, OSError):
        return f"'{error.filename or path}' cannot be read: {error.strerror}"
    return f"'{path}' {error}"


def _walk(root: Path, real_root: Path, ignored: Ignored) -> Iterator[Found]:
    if not root.name:
        raise Unusable("names no file or folder")
    _check_text(root.name)
    # The root itself may be a link: whoever names it means what it points at.
    status = root.stat()
    yield _found("", status)
    waiting = [root] if stat.S_ISDIR(status.st_mode) else []
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as scanned:
            items = [item for item in scanned if item.name != _SKIPPED]
        for item in items:
            path = Path(item.path)
            relative = path.relative_to(root).as_posix()
            if ignored(relative, item.is_dir(follow_symlinks=False)):
                continue
            _check_text(relative)
            if item.is_symlink():
                yield Found(relative, stat.S_IFLNK, 0, _inside(path, relative, real_root))
                continue
            yield _found(relative, item.stat(follow_symlinks=False))
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)


def _check_text(name: str) -> None:
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Unusable(f"has {name!r}, a name that is no UTF-8 text: rename it") from None


def _found(relative: str, status: os.stat_result) -> Found:
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise Unusable(f"holds '{relative}', which is neither a file nor a folder")
    return Found(relative, status.st_mode, status.st_size if stat.S_ISREG(status.st_mode) else 0)


def _inside(link: Path, relative: str, real_root: Path) -> str:
    """Where `link` leads, relative to the folder it lies in. A link that leaves the root would take along what nobody
    named, or point at something else on another day."""
    try:
        target = link.resolve(strict=True)
    except (OSError, RuntimeError):
        raise Unusable(f"holds the link '{relative}', which leads nowhere: remove it") from None
    if not target.is_relative_to(real_root):
        raise Unusable(f"holds the link '{relative}', which leaves the folder: replace it by what it points at")
    return os.path.relpath(target, link.parent.resolve())


def _entry(root: Path, found: Found) -> Entry:
    if found.link is not None:
        return Link(path=found.path, target=found.link)
    if found.is_folder:
        return Folder(path=found.path)
    whole, chunks, size = hashlib.sha256(), [], 0
    with (root / found.path if found.path else root).open("rb") as file:
        while True:
            chunk, rest = hashlib.sha256(), CHUNK
            while rest and (piece := file.read(min(_PIECE, rest))):
                chunk.update(piece)
                whole.update(piece)
                rest -= len(piece)
            size += CHUNK - rest
            if rest < CHUNK:
                chunks.append(chunk.hexdigest())
            if rest or size > found.size:
                break
    if size != found.size:
        raise Unusable("changed while it was copied: try again")
    return File(
        path=found.path,
        size=size,
        executable=bool(found.mode & stat.S_IXUSR),
        sha256=whole.hexdigest(),
        chunks=tuple(chunks),
    )
