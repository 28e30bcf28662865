"""Which files a job's input is, and whether its output can be where it is wanted.

Every regular file below a folder is scored, hidden ones too. A link to a file counts when it leads to a file of the
same folder; one that leads elsewhere is refused, since whoever may write into the folder could have any file of this
machine scored. Links to folders are not followed: what is inside is listed in its own place. What is neither file nor
folder (pipes, sockets, devices) is refused too. A file that cannot be read is the script's affair: it fails its
mini-batch.
"""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from batch_runner.plan import Found, in_order
from contracts.messages import BatchInput, Problem

_SHOWN = 3


def local_path(text: str) -> Path:
    """The path that a `file:` URI or an absolute path names. Raises ValueError."""
    if text.startswith("/"):
        path = os.path.normpath(text)
    else:
        parts = urlsplit(text)
        if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query or parts.fragment:
            raise ValueError(f"'{text[:200]}' is no local path: give file:///absolute/path (with %20 for a space)")
        path = os.path.normpath(os.fsdecode(unquote_to_bytes(parts.path)))
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"'{text[:200]}' is no absolute path: give file:///absolute/path")
    return Path(path)


def look(given: BatchInput, output: str | None, default_output: Path) -> Found:
    """What the disk says, with every problem of the input and the output."""
    problems: list[Problem] = []
    folder, files = "", tuple[str, ...]()
    try:
        folder, files = _input(given)
    except (OSError, ValueError) as error:
        problems.append(Problem(code="BadArgument", field="input.uri", message=_reason(error)))
    place = default_output
    try:
        place = default_output if output is None else local_path(output)
        str(place).encode()
        if os.path.lexists(place):
            raise FileExistsError(f"{place} exists already: a job's output is a new folder, name another")
    except (OSError, ValueError) as error:
        problems.append(Problem(code="BadArgument", field="output", message=_reason(error)))
    return Found(folder, files, str(place), tuple(problems))


def _input(given: BatchInput) -> tuple[str, tuple[str, ...]]:
    path = local_path(given.uri)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist where the batch-runner runs")
    if given.type == "uri_file":
        if not path.is_file():
            raise ValueError(f"{path} is no file: say type uri_folder, or name a file")
        return str(path.parent), (path.name,)
    if not path.is_dir():
        raise ValueError(f"{path} is no folder: say type uri_file, or name a folder")
    listing = _Listing(os.path.realpath(path))
    listing.read()
    if listing.refused:
        shown = ", ".join(listing.refused[:_SHOWN]) + (", …" if len(listing.refused) > _SHOWN else "")
        raise ValueError(f"{path} holds what is not scored: {shown}; put the files themselves into the folder")
    if not listing.files:
        raise ValueError(f"{path} holds no file: there is nothing to score")
    return listing.root, in_order(listing.files)


@dataclass(slots=True)
class _Listing:
    root: str
    files: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def read(self) -> None:
        """Take everything below the root. Raises OSError for a folder that cannot be read."""
        folders = [""]
        while folders:
            folder = folders.pop()
            with os.scandir(os.path.join(self.root, folder)) as entries:
                for entry in entries:
                    name = os.path.join(folder, entry.name)
                    if entry.is_symlink():
                        self._link(name, entry.path)
                    elif entry.is_dir():
                        folders.append(name)
                    elif entry.is_file():
                        self.files.append(name)
                    else:
                        self.refused.append(f"{name!r} (no regular file)")

    def _link(self, name: str, path: str) -> None:
        target = os.path.realpath(path)
        try:
            mode = os.stat(target).st_mode
        except OSError:
            self.refused.append(f"{name!r} (a link to nothing)")
            return
        if os.path.commonpath([self.root, target]) != self.root:
            self.refused.append(f"{name!r} (a link out of the folder)")
        elif stat.S_ISREG(mode):
            self.files.append(name)
        elif not stat.S_ISDIR(mode):
            self.refused.append(f"{name!r} (no regular file)")


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeError):
        return "is no Unicode text: name a folder by UTF-8"
    return str(error).encode(errors="backslashreplace").decode()
