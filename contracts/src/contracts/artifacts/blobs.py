"""Named bytes at a URL, written once and never changed: a folder, S3, Azure Blob or Google Cloud Storage.

Credentials are the process's own (environment or instance metadata), never part of the URL. Everything blocks.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

_REMOTE = ("s3", "s3a", "gs", "az", "azure", "adl", "abfs", "abfss")
# abfss://FILESYSTEM@ACCOUNT.dfs.core.windows.net/path: what stands before the @ is no user.
_WITH_FILESYSTEM = ("abfs", "abfss")
_PIECE = 1 << 20


class ArtifactError(ValueError):
    """An artifact cannot be kept, found or read: the text has the cause, the place and the next step."""


class StoreError(ArtifactError):
    """The store's URL cannot be used, or the store does not do what it is asked."""


class NotThere(ArtifactError):
    """What is asked for is not in the store."""


class Blobs:
    """The store at `url`: a path, file://, s3://, az://, gs://, or memory:/// (its own, for tests)."""

    def __init__(self, url: str):
        self.url = url
        self._store, self._root = _opened(url)

    def put(self, name: str, data: bytes | bytearray) -> bool:
        """Write `data` unless `name` is there, which then has as many bytes; whether it was written. Whole or not at
        all, and on the disk when this returns."""
        with self._told():
            try:
                obstore.put(self._store, name, data, mode="create")
            except AlreadyExistsError:
                written = False
            else:
                written = True
        if not written and (size := self.size(name)) != len(data):
            raise ArtifactError(f"{self.place(name)} has {size} bytes instead of {len(data)}: {DAMAGED}")
        if (path := self.path(name)) is not None and written:
            path.chmod(0o444)
            synced(path)
            synced(path.parent)
        return written

    def size(self, name: str) -> int | None:
        """How many bytes `name` has; None when it is not there."""
        with self._told():
            try:
                return obstore.head(self._store, name)["size"]
            except FileNotFoundError:
                return None

    def read(self, name: str) -> Iterator[bytes]:
        """The bytes of `name`, in pieces. Raises NotThere."""
        with self._told():
            try:
                found = obstore.get(self._store, name)
            except FileNotFoundError:
                raise NotThere(f"{self.place(name)} is not there") from None
            yield from map(bytes, found.stream(min_chunk_size=_PIECE))

    def path(self, name: str) -> Path | None:
        """Where `name` lies, when the store is a folder."""
        return None if self._root is None else self._root / name

    def place(self, name: str) -> str:
        """What people are told of where `name` lies."""
        return str(self.path(name) or f"{self.url.rstrip('/')}/{name}")

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError) as error:
            cause = str(error).partition("\n")[0]
            hint = "see that it can be reached and written to, with the credentials of this process's environment"
            raise StoreError(f"the artifact store {self.url} failed: {cause}: {hint}") from None


DAMAGED = "it is damaged, or not ours; delete it there and add the artifact again"


def synced(path: Path) -> None:
    """Have a file or folder on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(url: str) -> tuple[ObjectStore, Path | None]:
    """The store at `url`, and the folder that it is, if it is one. Raises StoreError."""
    parts = urlsplit(url)
    try:
        user = "@" in parts.netloc and parts.scheme not in _WITH_FILESYSTEM
        if user or parts.password is not None or parts.query or parts.fragment:
            # The text is not repeated: it may be a secret.
            raise StoreError(
                "the URL of the artifact store (ENDPUNKT_ARTIFACT_STORE) has a user, password or query: credentials "
                "are taken from the environment of the process (such as AWS_ACCESS_KEY_ID) or of the machine"
            )
        if parts.scheme in ("", "file"):
            if parts.netloc not in ("", "localhost"):
                raise StoreError(f"the artifact store {url} is on another machine: use file:///path")
            root = Path(unquote(parts.path) if parts.scheme else url).absolute()
            # Whoever may read artifacts gets them from the cache.
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            return LocalStore(prefix=root), root
        if parts.scheme != "memory" and parts.scheme not in _REMOTE:
            raise StoreError(f"the artifact store {url} is of no known kind: use a path, s3://, az:// or gs://")
        return from_url(url), None
    except (BaseError, OSError) as error:
        cause = str(error).partition("\n")[0]
        raise StoreError(f"the artifact store {url} cannot be opened: {cause}") from None
