"""The artifact store's only writer: files and folders as they are now, under the digest of what they hold.

<store>/sha256/<digest>/<name>. The digest covers the name, relative paths, contents, executable bits and links, so the
same content under two names is two artifacts: AZUREML_MODEL_DIR, the digest's folder, must hold nothing but the one
that a deployment names. `__pycache__` folders are no content. Everything here blocks: call it in a thread.
"""

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from contracts.artifacts import artifact_folder, artifact_path
from contracts.messages import Artifact
from provisioner.core.world import Fact, Source

_SKIPPED = "__pycache__"
_MOST_FILES = 100_000


class Unusable(ValueError):
    """Why a file or folder cannot become an artifact."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A file, link or folder below the root: `path` relative to it (empty: the root itself)."""

    path: str
    mode: int
    size: int
    link: str | None = None

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def header(self) -> bytes:
        """What the digest says of it besides a file's content."""
        if self.link is not None:
            return b"l " + _counted(self.path) + _counted(self.link)
        kind = b"d" if self.is_folder else b"x" if self.mode & stat.S_IXUSR else b"f"
        return kind + b" " + _counted(self.path) + b"%d\n" % self.size


class ArtifactStore:
    """The store in `root`; `largest` bytes are the most that one artifact may have."""

    def __init__(self, root: Path, largest: int):
        self._root = root
        self._incoming = root / "incoming"
        self._largest = largest

    def tidy(self) -> None:
        """Remove what an interrupted `store` left behind."""
        shutil.rmtree(self._incoming, ignore_errors=True)

    def look(self, source: Source) -> Fact:
        """What can be said of `source` without reading contents."""
        path = Path(source.path)
        try:
            entries = _entries(path, self._largest)
        except (Unusable, OSError) as error:
            return Fact(problem=_reason(path, error))
        files = {entry.path for entry in entries if not entry.is_folder}
        script = source.script is not None and os.path.normpath(source.script) in files
        return Fact(is_folder=entries[0].is_folder, has_script=script)

    def store(self, source: Source) -> Fact:
        """What `look` says, with the artifact, which then lies in the store. Content that is there is not copied."""
        fact = self.look(source)
        if fact.problem is not None:
            return fact
        path = Path(source.path)
        try:
            artifact = self._store(path)
        except (Unusable, OSError) as error:
            return Fact(problem=_reason(path, error))
        return Fact(is_folder=fact.is_folder, has_script=fact.has_script, artifact=artifact)

    def _store(self, path: Path) -> Artifact:
        if not path.name:
            raise Unusable("names no file or folder")
        if "\\" in path.name:
            raise Unusable("has a backslash in its name: rename it")
        artifact = Artifact(digest=_digest(path, path.name, self._largest), name=path.name)
        if artifact_path(self._root, artifact).exists():
            return artifact
        self._incoming.mkdir(parents=True, exist_ok=True)
        folder = artifact_folder(self._root, artifact)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._incoming) as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            _copy(path, made / path.name, self._largest)
            if _digest(made / path.name, path.name, self._largest) != artifact.digest:
                raise Unusable("changed while it was copied: try again")
            try:
                made.rename(folder)
            except OSError:
                if not artifact_path(self._root, artifact).exists():
                    raise
        _sync(folder.parent)
        return artifact


def _reason(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"'{path}' does not exist where the provisioner runs: check the path"
    if isinstance(error, OSError):
        return f"'{error.filename or path}' cannot be read: {error.strerror}"
    return f"'{path}' {error}"


def _entries(root: Path, largest: int) -> list[_Entry]:
    """Everything in `root`, itself first, ordered by path. Raises Unusable for what cannot be kept whole."""
    entries = []
    total = 0
    for entry in _walk(root, root.resolve(strict=True)):
        total += entry.size
        if total > largest:
            raise Unusable(
                f"is larger than the {largest / 2**30:g} GiB that an artifact may have (ENDPUNKT_ARTIFACT_GIB)"
            )
        entries.append(entry)
        if len(entries) > _MOST_FILES:
            raise Unusable(f"has more than {_MOST_FILES} files")
    return sorted(entries, key=lambda entry: entry.path)


def _walk(root: Path, real_root: Path) -> Iterator[_Entry]:
    # The root itself may be a link: whoever names it means what it points at.
    found = root.stat()
    yield _entry("", found)
    waiting = [root] if stat.S_ISDIR(found.st_mode) else []
    while waiting:
        folder = waiting.pop()
        with os.scandir(folder) as scan:
            items = [item for item in scan if item.name != _SKIPPED]
        for item in items:
            path = Path(item.path)
            relative = path.relative_to(root).as_posix()
            if item.is_symlink():
                yield _Entry(relative, stat.S_IFLNK, 0, _inside(path, relative, real_root))
                continue
            yield _entry(relative, item.stat(follow_symlinks=False))
            if item.is_dir(follow_symlinks=False):
                waiting.append(path)


def _entry(relative: str, found: os.stat_result) -> _Entry:
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise Unusable(f"holds '{relative}', which is neither a file nor a folder")
    return _Entry(relative, found.st_mode, found.st_size if stat.S_ISREG(found.st_mode) else 0)


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


def _digest(root: Path, name: str, largest: int) -> str:
    """SHA-256 over the name and every entry, each with its length before it, so that no two trees read the same."""
    digest = hashlib.sha256(_counted(name))
    for entry in _entries(root, largest):
        digest.update(entry.header())
        if entry.link is None and not entry.is_folder:
            with (root / entry.path).open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _counted(text: str) -> bytes:
    raw = os.fsencode(text)
    return b"%d %s\n" % (len(raw), raw)


def _copy(root: Path, target: Path, largest: int) -> None:
    """Copy contents, executable bits and links; the copy is on the disk when this returns."""
    for entry in _entries(root, largest):
        to = target / entry.path if entry.path else target
        if entry.link is not None:
            to.symlink_to(entry.link)
        elif entry.is_folder:
            to.mkdir()
        else:
            with (root / entry.path).open("rb") as source, to.open("xb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
                os.fchmod(file.fileno(), 0o755 if entry.mode & stat.S_IXUSR else 0o644)
                file.flush()
                os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
