"""What an artifact is: a tree of files, folders and links under one name, known by the digest of all that it holds.

PURE: values in, values out; nothing is opened. A tree may come from anybody: `read_tree` tells what in it would lead
out of its folder, and nothing is made of a tree that has troubles.
"""

import hashlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from contracts.envelope import problems_of
from contracts.messages import Artifact
from contracts.messages.base import Part

CHUNK = 64 * 2**20
"""Bytes: a file's contents are kept in pieces of this size, the last one smaller."""

MOST_ENTRIES = 100_000
LARGEST_MANIFEST = 64 * 2**20
"""Bytes of a manifest: 100,000 entries with long names."""

_LONGEST_NAME = 255
_LONGEST_PATH = 4000
_MOST_TROUBLES = 100
_EMPTY = hashlib.sha256().hexdigest()

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadTree(ValueError):
    """What was given is no tree that can be kept, for every reason that is listed (up to a hundred)."""

    def __init__(self, troubles: list[str]):
        super().__init__("; ".join(troubles))
        self.troubles = tuple(troubles)


class File(Part):
    """A file's contents: `size` bytes with this SHA-256, kept as `chunks` (each the SHA-256 of a piece of CHUNK bytes,
    the last one shorter; none of an empty file)."""

    kind: Literal["file"] = "file"
    path: str
    size: int = Field(ge=0)
    executable: bool = False
    sha256: Digest
    chunks: tuple[Digest, ...] = ()

    def sizes(self) -> list[int]:
        """How many bytes each chunk has."""
        whole, rest = divmod(self.size, CHUNK)
        return [CHUNK] * whole + ([rest] if rest else [])


class Folder(Part):
    """A folder; what is in it are entries of their own."""

    kind: Literal["folder"] = "folder"
    path: str


class Link(Part):
    """A symbolic link to `target`, a path relative to the folder that the link lies in."""

    kind: Literal["link"] = "link"
    path: str
    target: str


Entry = File | Folder | Link


class Tree(Part):
    """An artifact's manifest. Paths are relative, with '/'; the first entry, with the path "", is the artifact itself,
    and every other one lies in a folder that is an entry too."""

    name: str
    entries: tuple[Annotated[Entry, Field(discriminator="kind")], ...] = Field(max_length=MOST_ENTRIES)

    @property
    def root(self) -> Entry:
        """The artifact itself."""
        return min(self.entries, key=lambda entry: entry.path)

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries if isinstance(entry, File))

    def ordered(self) -> list[Entry]:
        """The entries by path: a folder before what is in it."""
        return sorted(self.entries, key=lambda entry: entry.path)

    def file(self, path: str) -> File | None:
        """The file at `path`, or the one that a link there leads to."""
        by_path = {entry.path: entry for entry in self.entries}
        entry = by_path.get(path)
        if isinstance(entry, Link):
            entry = by_path.get(_leads_to(entry))
        return entry if isinstance(entry, File) else None

    def chunks(self) -> dict[str, int]:
        """Every chunk with its size in bytes, once."""
        return {
            digest: size
            for entry in self.entries
            if isinstance(entry, File)
            for digest, size in zip(entry.chunks, entry.sizes(), strict=True)
        }

    def artifact(self) -> Artifact:
        """Its name, and SHA-256 over that and every entry, each with its length before it, so that no two trees read
        the same. How files are cut into chunks is not part of it."""
        digest = hashlib.sha256(_counted(self.name))
        for entry in self.ordered():
            digest.update(_header(entry))
            if isinstance(entry, File):
                digest.update(bytes.fromhex(entry.sha256))
        return Artifact(digest=digest.hexdigest(), name=self.name)

    def manifest(self) -> bytes:
        """The tree as JSON, which `read_tree` reads."""
        return self.model_copy(update={"entries": tuple(self.ordered())}).model_dump_json().encode()


def read_tree(manifest: bytes | bytearray) -> Tree:
    """The tree in a manifest. Raises BadTree for what is none, or none that stays in its folder."""
    try:
        tree = Tree.model_validate_json(manifest)
    except ValidationError as error:
        problems = problems_of(error)[:_MOST_TROUBLES]
        raise BadTree([f"{problem.field}: {problem.message}" for problem in problems]) from None
    check(tree)
    return tree


def check(tree: Tree) -> None:
    """Raises BadTree with everything that makes a tree unusable or unsafe."""
    troubles = []
    for trouble in _troubles(tree):
        troubles.append(trouble)
        if len(troubles) == _MOST_TROUBLES:
            break
    if troubles:
        raise BadTree(troubles)


def _troubles(tree: Tree) -> Iterator[str]:
    if why := _bad_name(tree.name):
        yield f"name: {tree.name!r} {why}"
    elif "\\" in tree.name:
        yield f"name: {tree.name!r} has a backslash: rename it"
    entries: dict[str, Entry] = {}
    for entry in tree.entries:
        if entry.path in entries:
            yield f"{entry.path!r} is there twice"
        entries[entry.path] = entry
    if isinstance(entries.get(""), Link | None):
        yield "the entry with the path '', the artifact itself, must be there, and a file or a folder"
    for entry in tree.entries:
        if entry.path:
            yield from _misplaced(entry, entries)
        if isinstance(entry, File):
            yield from _miscounted(entry)


def _misplaced(entry: Entry, entries: dict[str, Entry]) -> Iterator[str]:
    parts = entry.path.split("/")
    wrong = [f"{entry.path!r}: {part!r} {why}" for part in parts if (why := _bad_name(part))]
    if wrong:
        yield from wrong
        return
    if len(entry.path.encode()) > _LONGEST_PATH:
        yield f"{entry.path[:80]!r}… is longer than {_LONGEST_PATH} bytes"
    parent = posixpath.dirname(entry.path)
    above = entries.get(parent)
    if above is None:
        yield f"{entry.path!r}: its folder {parent!r} is no entry"
    elif not isinstance(above, Folder):
        yield f"{entry.path!r}: {parent!r} is a {above.kind}, which holds no entries"
    if isinstance(entry, Link) and (why := _leads_astray(entry, entries)):
        yield f"the link {entry.path!r} {why}"


def _bad_name(name: str) -> str | None:
    """Why no file or folder may have this name."""
    if name in ("", ".", ".."):
        return "is no name of a file or folder"
    if "/" in name or "\x00" in name:
        return "has a '/' or a NUL character"
    if len(name.encode()) > _LONGEST_NAME:
        return f"is longer than {_LONGEST_NAME} bytes"
    return None


def _leads_astray(link: Link, entries: dict[str, Entry]) -> str | None:
    """Why a link is refused. Only the shortest way to a file or folder of the same tree is taken: it goes up through
    real folders alone, and then down through real folders, so it leads where its text says."""
    folder = posixpath.dirname(link.path)
    if "\x00" in link.target or not link.target or link.target.startswith("/"):
        return f"leads to {link.target!r}, which is no path relative to its folder"
    meant = _leads_to(link)
    # Above the root, normpath stays at the root: then the way back is another one.
    if posixpath.relpath("/" + meant, "/" + folder) != link.target:
        return f"leads to {link.target!r}, which leaves the folder or is not the shortest way"
    if not isinstance(entries.get(meant), File | Folder):
        return f"leads to {link.target!r}, which is no file or folder of the artifact"
    return None


def _leads_to(link: Link) -> str:
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(link.path), link.target)).removeprefix("/")


def _miscounted(file: File) -> Iterator[str]:
    sizes = file.sizes() if file.size <= CHUNK * MOST_ENTRIES else None
    if sizes is None or len(file.chunks) != len(sizes):
        yield f"{file.path!r} has {len(file.chunks)} chunks, which do not make {file.size} bytes"
    elif not file.chunks and file.sha256 != _EMPTY:
        yield f"{file.path!r} is empty, which is not what its sha256 says"
    elif len(file.chunks) == 1 and file.chunks[0] != file.sha256:
        yield f"{file.path!r} is one chunk, which has another digest than the file"


def _header(entry: Entry) -> bytes:
    """What the digest says of an entry besides a file's content."""
    if isinstance(entry, Link):
        return b"l " + _counted(entry.path) + _counted(entry.target)
    kind = b"d" if isinstance(entry, Folder) else b"x" if entry.executable else b"f"
    return kind + b" " + _counted(entry.path) + b"%d\n" % (entry.size if isinstance(entry, File) else 0)


def _counted(text: str) -> bytes:
    raw = text.encode()
    return b"%d %s\n" % (len(raw), raw)


# References and places


def artifact_uri(artifact: Artifact) -> str:
    """How an artifact that is stored is named in a specification."""
    return f"artifact:{artifact.digest}/{artifact.name}"


def parse_artifact_uri(uri: str) -> Artifact:
    """The artifact that `artifact:<digest>/<name>` means. Raises ValueError with the reason."""
    digest, _, name = uri.removeprefix("artifact:").partition("/")
    if not uri.startswith("artifact:") or not _DIGEST.fullmatch(digest) or "\\" in name or _bad_name(name):
        raise ValueError(f"'{uri}' is no artifact: use artifact:<sha-256>/<name>, as an upload returned it")
    return Artifact(digest=digest, name=name)


def artifact_folder(root: Path, artifact: Artifact) -> Path:
    """The folder in the cache `root` that contains nothing but the artifact, under its own name (what AZUREML_MODEL_DIR
    points at)."""
    return root / "sha256" / artifact.digest


def artifact_path(root: Path, artifact: Artifact) -> Path:
    """The artifact itself, a file or a folder, in the cache `root`."""
    return artifact_folder(root, artifact) / artifact.name
