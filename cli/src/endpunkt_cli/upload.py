"""Brings local files and folders to the artifact store, through the studio: specifications then name `artifact:` URIs.

What is in the store is not sent again, so an upload that broke off goes on where it was. As in `az ml`, a folder's
.amlignore, or else its .gitignore, says what stays here.
"""

import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from endpunkt_cli.client import Unreachable
from endpunkt_cli.errors import CliError
from endpunkt_cli.options import tell
from endpunkt_cli.references import path_of
from endpunkt_cli.session import session

if TYPE_CHECKING:
    from contracts.artifacts.scan import Ignored
    from contracts.artifacts.tree import Tree
    from endpunkt_cli.forms import Resource

_IGNORE_FILES = (".amlignore", ".gitignore")
_DIGESTS_AT_ONCE = 10_000
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before each new attempt at a request whose connection broke."""

_ANY_SIZE = 1 << 62
"""How large an artifact may be is the studio's to say, before anything is sent."""


def uploaded(resource: "Resource") -> dict[str, Any]:
    """The resource's body with every local file and folder uploaded. Raises BadFile with all those that can't be."""
    from endpunkt_cli.files import BadFile

    body, troubles = deepcopy(resource.body), []
    for field in resource.paths:
        *parents, name = field.split(".")
        parent: Any = body
        for part in parents:
            parent = parent.get(part) if isinstance(parent, dict) else None
        if not isinstance(parent, dict) or (path := path_of(parent.get(name))) is None:
            continue
        try:
            if (text := resource.texts.get(field)) is not None:
                parent[name] = text_uploaded(Path(path).name, text)
            else:
                parent[name] = path_uploaded(Path(path))
        except ValueError as error:
            troubles.append(resource.trouble(field, str(error)))
    if troubles:
        raise BadFile(troubles)
    return body


def path_uploaded(path: Path) -> str:
    """The `artifact:` URI of a file or folder as it is now. Raises ValueError with the reason why it can't be sent."""
    from contracts.artifacts.scan import Unusable, chunk_of, reason, scan

    try:
        tree = scan(path, _ANY_SIZE, _ignored(path))
        return _sent(tree, lambda file, index: chunk_of(path, file, index))
    except FileNotFoundError as error:
        raise ValueError(f"'{error.filename or path}' does not exist: check the path") from None
    except (Unusable, OSError) as error:
        raise ValueError(reason(path, error)) from None


def text_uploaded(name: str, text: str) -> str:
    """The `artifact:` URI of a file that is made of `text`."""
    import hashlib

    from contracts.artifacts.tree import File, Tree

    raw = text.encode()
    digest = hashlib.sha256(raw).hexdigest()
    file = File(path="", size=len(raw), sha256=digest, chunks=(digest,) if raw else ())
    return _sent(Tree(name=name, entries=(file,)), lambda _, __: raw)


def _sent(tree: "Tree", chunk: Callable[[Any, int], bytes]) -> str:
    """The URI of `tree`, whose chunks that are missing there are sent: `chunk(file, index)`."""
    from contracts.artifacts.progress import Told
    from contracts.artifacts.tree import File

    sizes = tree.chunks()
    missing = set(_missing(list(sizes), tree.size))
    told = Told(tell, f"uploading '{tree.name}'", sum(sizes[digest] for digest in missing))
    for file in tree.entries:
        for index, digest in enumerate(file.chunks if isinstance(file, File) else ()):
            if digest in missing:
                missing.remove(digest)
                data = chunk(file, index)
                _send("PUT", "blobs", digest, body=data)
                told.add(sizes[digest])
    uri: str = _send("PUT", "trees", body=tree.manifest())["uri"]
    return uri


def _missing(digests: list[str], size: int) -> Iterator[str]:
    for start in range(0, max(len(digests), 1), _DIGESTS_AT_ONCE):
        asked = {"digests": digests[start : start + _DIGESTS_AT_ONCE], "size": size}
        yield from session.studio.send("POST", "artifacts", "missing", body=asked)["missing"]


def _send(method: str, *path: str, body: bytes) -> Any:
    """The answer to what may be sent twice, through broken connections and restarts of the studio."""
    for pause in _PAUSES:
        try:
            return session.studio.send(method, "artifacts", *path, body=body)
        except Unreachable as error:
            tell(f"{error} Trying again in {pause:g} s.")
            time.sleep(pause)
    return session.studio.send(method, "artifacts", *path, body=body)


def _ignored(root: Path) -> "Ignored":
    """What the folder's ignore file leaves out, by the rules of .gitignore."""
    from contracts.artifacts.scan import keep_all

    file = next((each for name in _IGNORE_FILES if (each := root / name).is_file()), None)
    if file is None:
        return keep_all
    from pathspec import GitIgnoreSpec

    try:
        rules = GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8").splitlines())
    except ValueError as error:
        raise CliError(f"{file}: is no list of patterns: {error}") from None
    return lambda path, is_folder: rules.match_file(f"{path}/" if is_folder else path)
