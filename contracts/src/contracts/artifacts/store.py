"""Where artifacts are kept, and the cache of this machine from which they are used.

In the store, `blobs/sha256/<aa>/<digest>` holds files' contents in chunks and `trees/<artifact digest>.json` each
artifact's manifest, which is written when all its chunks are there. Nothing is ever overwritten, so what is interrupted
goes on where it was. In the cache, `sha256/<artifact digest>/<name>` is the artifact itself: verified, read-only, whole
or not there. Everything blocks, and may be called by several threads and processes at once.
"""

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from contracts.artifacts.blobs import DAMAGED, ArtifactError, Blobs, NotThere, synced
from contracts.artifacts.progress import Progress, Told, quiet
from contracts.artifacts.scan import Unusable, chunk_of, reason, scan
from contracts.artifacts.tree import (
    CHUNK,
    LARGEST_MANIFEST,
    BadTree,
    File,
    Folder,
    Link,
    Tree,
    artifact_folder,
    artifact_path,
    check,
    read_tree,
)
from contracts.messages import Artifact
from contracts.shell.files import READABLE_FOLDER, locked

__all__ = ["ArtifactError", "ArtifactStore"]

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 8
_SMALL = 4 * 2**20
_LARGE_AT_ONCE = 2
"""Chunks of more than _SMALL bytes are held in memory whole while they are written."""

_MOST_TROUBLES = 100


class ArtifactStore:
    """The store at `url` (a path, file://, s3://, az://, gs://) and the folder `cache` on this machine. `largest` bytes
    are the most that one artifact may have. Raises ArtifactError for what cannot be done."""

    def __init__(self, url: str, cache: Path, largest: int):
        self._blobs = Blobs(url)
        self._cache = cache
        self._largest = largest

    def tidy(self) -> None:
        """Remove what interrupted fetches left behind; what is being fetched stays."""
        incoming = self._cache / "incoming"
        for folder in incoming.iterdir() if incoming.is_dir() else ():
            lock_file = self._lock_file(folder.name)
            lock_file.parent.mkdir(exist_ok=True)
            with lock_file.open("a") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                shutil.rmtree(folder, ignore_errors=True)

    # Into the store

    def add(self, path: Path, progress: Progress = quiet) -> Artifact:
        """Keep the file or folder as it is now; contents that are there are not written again. Raises ArtifactError."""
        try:
            tree = scan(path, self._largest)
            places = {digest: (file, at) for file in _files(tree) for at, digest in enumerate(file.chunks)}
            sizes = tree.chunks()
            wanted = self.missing(places)
            told = Told(progress, f"keeping '{tree.name}'", sum(sizes[digest] for digest in wanted))

            def keep(digest: str) -> None:
                self._blobs.put(_blob(digest), chunk_of(path, *places[digest]))
                told.add(sizes[digest])

            _each(keep, [digest for digest in wanted if sizes[digest] <= _SMALL], _THREADS)
            _each(keep, [digest for digest in wanted if sizes[digest] > _SMALL], _LARGE_AT_ONCE)
        except (Unusable, OSError) as error:
            raise ArtifactError(reason(path, error)) from None
        return self._put_manifest(tree)

    def missing(self, digests: Iterable[str]) -> list[str]:
        """Those of the chunks `digests` that are not in the store, in their order."""
        asked = list(dict.fromkeys(digests))
        there = _each(lambda digest: self._blobs.size(_blob(digest)) is not None, asked, _THREADS)
        return [digest for digest, is_there in zip(asked, there, strict=True) if not is_there]

    def put_blob(self, digest: str, data: bytes | bytearray) -> bool:
        """Keep a chunk; whether it is new. Raises ArtifactError when `digest` is not its SHA-256."""
        if len(data) > CHUNK:
            raise ArtifactError(f"a blob has at most {CHUNK} bytes, not {len(data)}: cut the file into chunks")
        if (actual := hashlib.sha256(data).hexdigest()) != digest:
            raise ArtifactError(f"what came has the SHA-256 {actual}, not {digest}: it was changed on its way, or cut")
        return self._blobs.put(_blob(digest), data)

    def put_tree(self, tree: Tree) -> Artifact:
        """Keep the manifest of chunks that are there. Raises BadTree with everything that speaks against it."""
        check(tree)
        if tree.size > self._largest:
            raise BadTree([f"it has {tree.size} bytes; an artifact may have {self._largest} (ENDPUNKT_ARTIFACT_GIB)"])
        sizes = tree.chunks()
        found = _each(lambda digest: self._blobs.size(_blob(digest)), sizes, _THREADS)
        troubles = [
            f"blob {digest} is not there: put it first"
            if size is None
            else f"blob {digest} has {size} bytes, not {sizes[digest]}"
            for digest, size in zip(sizes, found, strict=True)
            if size != sizes[digest]
        ]
        if troubles:
            raise BadTree(troubles[:_MOST_TROUBLES])
        return self._put_manifest(tree)

    def _put_manifest(self, tree: Tree) -> Artifact:
        artifact = tree.artifact()
        if self._blobs.size(_manifest(artifact)) is None:
            self._blobs.put(_manifest(artifact), tree.manifest())
        return artifact

    # Out of the store

    def has(self, artifact: Artifact) -> bool:
        """Whether it can be fetched."""
        cached = artifact_path(self._cache, artifact)
        return self._blobs.size(_manifest(artifact)) is not None or os.path.lexists(cached)

    def tree(self, artifact: Artifact) -> Tree:
        """What it holds. Raises ArtifactError."""
        place = self._blobs.place(_manifest(artifact))
        if self._blobs.size(_manifest(artifact)) is None and os.path.lexists(artifact_path(self._cache, artifact)):
            # What lies in the cache alone was kept there before there was a store.
            self.add(artifact_path(self._cache, artifact))
        try:
            raw = b"".join(_bounded(self._blobs.read(_manifest(artifact)), LARGEST_MANIFEST, place))
        except NotThere:
            raise ArtifactError(
                f"there is no artifact '{artifact.name}' ({artifact.digest}) in {self._blobs.url}: upload it again"
            ) from None
        try:
            tree = read_tree(raw)
        except BadTree as error:
            raise ArtifactError(f"{place} is no manifest ({error}): {DAMAGED}") from None
        if tree.artifact() != artifact:
            raise ArtifactError(f"{place} is the manifest of something else: {DAMAGED}")
        return tree

    def read(self, artifact: Artifact, path: str, largest: int) -> bytes:
        """The file at `path` in the artifact ("": itself), of at most `largest` bytes. Raises ArtifactError."""
        file = self.tree(artifact).file(path)
        if file is None:
            raise ArtifactError(f"'{artifact.name}' has no file '{path}'")
        if file.size > largest:
            raise ArtifactError(f"'{path or artifact.name}' has {file.size} bytes; at most {largest} are read")
        return b"".join(self._contents(file))

    def fetch(self, artifact: Artifact, progress: Progress = quiet) -> Path:
        """Have the artifact in the cache, and return where. Files are read-only for everybody. Raises ArtifactError."""
        path = artifact_path(self._cache, artifact)
        if os.path.lexists(path):
            return path
        tree = self.tree(artifact)
        with locked(self._lock_file(artifact.digest)):
            if not os.path.lexists(path):
                try:
                    self._materialise(tree, artifact, progress)
                except OSError as error:
                    where = error.filename or self._cache
                    raise ArtifactError(f"'{where}' cannot be written: {error.strerror}: make room there") from None
        return path

    def _materialise(self, tree: Tree, artifact: Artifact, progress: Progress) -> None:
        folder, made = artifact_folder(self._cache, artifact), self._cache / "incoming" / artifact.digest
        told = Told(progress, f"fetching '{tree.name}'", tree.size)
        shutil.rmtree(made, ignore_errors=True)
        try:
            made.mkdir(parents=True)
            root = made / artifact.name
            folders = [each for each in tree.ordered() if isinstance(each, Folder)]
            for each in folders:
                (root / each.path).mkdir()
            # Whatever the umask: those that use it are other users.
            for place in (made, *(root / each.path for each in folders)):
                place.chmod(READABLE_FOLDER)

            def write(file: File) -> None:
                self._write(file, root / file.path if file.path else root, told.add)

            _each(write, list(_files(tree)), _THREADS)
            # Last, so that nothing is ever written through one.
            for entry in tree.entries:
                if isinstance(entry, Link):
                    (root / entry.path).symlink_to(entry.target)
            # Instances, which read it, run as other users.
            for each in reversed(folders):
                (root / each.path).chmod(READABLE_FOLDER)
                synced(root / each.path)
            made.chmod(READABLE_FOLDER)
            synced(made)
            folder.parent.mkdir(parents=True, exist_ok=True)
            made.rename(folder)
            synced(folder.parent)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _write(self, file: File, to: Path, told: Callable[[int], None]) -> None:
        if len(file.chunks) == 1 and not file.executable and self._linked(file, to):
            told(file.size)
            return
        with to.open("xb") as target:
            for piece in self._contents(file):
                target.write(piece)
                told(len(piece))
            target.flush()
            os.fchmod(target.fileno(), 0o555 if file.executable else 0o444)
            os.fsync(target.fileno())

    def _linked(self, file: File, to: Path) -> bool:
        """Whether `to` could be made a second name of the chunk that the file is.

        Both names share owner and mode. That is safe where the blob is ours and nobody may write to it: code that runs
        as another user can change neither. Code that runs as our own user could, but then it could change the store as
        well. Programs are copied: their mode is not the blob's.
        """
        blob = self._blobs.path(_blob(file.sha256))
        if blob is None or not blob.is_file() or blob.stat().st_uid != os.geteuid():
            return False
        for _ in self._contents(file):
            pass
        blob.chmod(0o444)
        try:
            os.link(blob, to)
        except OSError:
            # Another file system, one without links, or too many of them.
            return False
        return True

    def _contents(self, file: File) -> Iterator[bytes]:
        """The file's bytes; raises ArtifactError, at the end of a chunk at the latest, when they are not what they
        should be."""
        whole = hashlib.sha256()
        for digest, size in zip(file.chunks, file.sizes(), strict=True):
            place, chunk = self._blobs.place(_blob(digest)), hashlib.sha256()
            try:
                for piece in _bounded(self._blobs.read(_blob(digest)), size, place):
                    chunk.update(piece)
                    whole.update(piece)
                    yield piece
            except NotThere:
                raise ArtifactError(f"{place} is not there any more: add the artifact again") from None
            if chunk.hexdigest() != digest:
                raise ArtifactError(f"{place} does not hold what its name says: {DAMAGED}")
        if whole.hexdigest() != file.sha256:
            raise ArtifactError(f"'{file.path}' is not what its manifest says: upload the artifact again")

    def _lock_file(self, digest: str) -> Path:
        return self._cache / "locks" / digest


def _files(tree: Tree) -> Iterator[File]:
    return (entry for entry in tree.entries if isinstance(entry, File))


def _blob(digest: str) -> str:
    return f"blobs/sha256/{digest[:2]}/{digest}"


def _manifest(artifact: Artifact) -> str:
    return f"trees/{artifact.digest}.json"


def _bounded(pieces: Iterable[bytes], largest: int, place: str) -> Iterator[bytes]:
    """`pieces`, as long as they are no more than `largest` bytes."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > largest:
            raise ArtifactError(f"{place} has more than {largest} bytes: {DAMAGED}")
        yield piece


def _each(function: Callable[[T], R], items: Iterable[T], threads: int) -> list[R]:
    """`function` of each item, in threads; after a failure no further one is begun."""
    items = list(items)
    if len(items) < 2:
        return [function(item) for item in items]
    with ThreadPoolExecutor(min(threads, len(items)), "artifacts") as pool:
        return list(pool.map(function, items))
