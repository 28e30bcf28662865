"""What the disk and the artifact store say of the files and folders that commands name. Everything blocks."""

import posixpath
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from contracts.artifacts.scan import Unusable, look, reason
from contracts.artifacts.store import ArtifactError, ArtifactStore
from contracts.artifacts.tree import Folder
from provisioner.core.world import Fact, Source

_LARGEST_TEXT = 1 << 20


class SourceFiles:
    """Looks at sources, and has `store` keep them; paths hold at most `largest` bytes."""

    def __init__(self, store: ArtifactStore, largest: int):
        self._store = store
        self._largest = largest

    def look(self, source: Source) -> Fact:
        """What can be said of `source`, whose only contents that are read are environment files."""
        path = Path(source.path)
        try:
            return self._of_artifact(source) if source.artifact is not None else self._of_path(source, path)
        except FileNotFoundError:
            return Fact(problem=f"'{path}' does not exist where the provisioner runs: check the path")
        except ArtifactError as error:
            return Fact(problem=str(error))
        except (Unusable, OSError) as error:
            return Fact(problem=reason(path, error))

    def store(self, source: Source) -> Fact:
        """What `look` says, with the artifact, which then is in the store. Content that is there is not copied."""
        fact = self.look(source)
        if fact.problem is not None:
            return fact
        try:
            return replace(fact, artifact=source.artifact or self._store.add(Path(source.path)))
        except ArtifactError as error:
            return Fact(problem=str(error))

    def _of_path(self, source: Source, path: Path) -> Fact:
        found = look(path, self._largest)

        def read(name: str) -> bytes:
            with (path / name).open("rb") as file:
                return file.read(_LARGEST_TEXT + 1)

        files = {each.path: stat.S_ISREG(each.mode) or each.link is not None for each in found}
        return _fact(source, files, read)

    def _of_artifact(self, source: Source) -> Fact:
        assert source.artifact is not None
        artifact = source.artifact
        files = {entry.path: not isinstance(entry, Folder) for entry in self._store.tree(artifact).entries}
        return _fact(source, files, lambda name: self._store.read(artifact, name, _LARGEST_TEXT))


def _fact(source: Source, is_file: Mapping[str, bool], read: Callable[[str], bytes]) -> Fact:
    """What is to be known of `source`, whose entries are `is_file` by their paths."""
    texts = {}
    for name in source.reads:
        if is_file.get(name):
            raw = read(name)
            if len(raw) > _LARGEST_TEXT:
                return Fact(
                    problem=f"'{_named(source, name)}' has more than {_LARGEST_TEXT >> 20} MiB: too much for it"
                )
            try:
                texts[name] = raw.decode()
            except UnicodeDecodeError as error:
                return Fact(problem=f"'{_named(source, name)}' is no UTF-8 text: {error.reason} at byte {error.start}")
    wanted = frozenset(name for name in source.wants if is_file.get(posixpath.normpath(name)))
    return Fact(is_folder=not is_file[""], files=wanted, texts=texts)


def _named(source: Source, name: str) -> str:
    return posixpath.join(source.path or source.name, name) if name else source.path or source.name
