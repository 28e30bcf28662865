"""What every kind of store does: run over a folder and over memory here, over an S3 server among the integration
tests."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.artifacts import artifact_folder, artifact_path
from contracts.artifacts.store import ArtifactError, ArtifactStore
from contracts.artifacts.tree import BadTree, File, Folder, Tree
from contracts.messages import Artifact

NewStore = Callable[[str], ArtifactStore]
"""A store with an own cache, whose name is given; all share what is kept."""


def make_model(folder: Path) -> Path:
    """A folder with a file, an executable, a link, an empty folder, an empty file and bytecode."""
    (folder / "sub" / "__pycache__").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    (folder / "none").write_bytes(b"")
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "sub" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "sub" / "latest").symlink_to("../weights.bin")
    return folder


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_tree(data: bytes, name: str = "weights") -> Tree:
    digest = digest_of(data)
    return Tree(name=name, entries=(File(path="", size=len(data), sha256=digest, chunks=(digest,)),))


class StoreRules:
    """Subclasses give `new`."""

    def test_a_folder_comes_back_as_it_was_and_read_only(self, new: NewStore, tmp_path: Path) -> None:
        model = make_model(tmp_path / "model")
        store = new("one")
        artifact = store.add(model)
        path = store.fetch(artifact)
        assert path == artifact_path(tmp_path / "one", artifact)
        assert sorted(each.relative_to(path).as_posix() for each in path.rglob("*")) == [
            "empty",
            "none",
            "sub",
            "sub/latest",
            "sub/run.sh",
            "weights.bin",
        ]
        modes = {name: mode_of(path / name) for name in ("none", "weights.bin", "sub/run.sh", "sub")}
        assert modes == {"none": 0o444, "weights.bin": 0o444, "sub/run.sh": 0o555, "sub": 0o755}
        assert (path / "sub" / "latest").readlink() == Path("../weights.bin")
        assert (path / "sub" / "latest").read_bytes() == b"\x00\x01"
        # Nothing else is in the folder that AZUREML_MODEL_DIR points at, and nothing is left of the making.
        assert [each.name for each in artifact_folder(tmp_path / "one", artifact).iterdir()] == ["model"]
        assert not list((tmp_path / "one" / "incoming").iterdir())

    def test_what_one_keeps_another_fetches(self, new: NewStore, tmp_path: Path) -> None:
        artifact = new("one").add(make_model(tmp_path / "model"))
        other = new("other")
        assert other.has(artifact)
        assert (other.fetch(artifact) / "weights.bin").read_bytes() == b"\x00\x01"
        assert other.read(artifact, "sub/latest", 2) == b"\x00\x01"
        assert other.fetch(artifact) == artifact_path(tmp_path / "other", artifact), "once is enough"

    def test_a_file_of_several_chunks_comes_back_whole(
        self, new: NewStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("tree", "scan", "store"):
            monkeypatch.setattr(f"contracts.artifacts.{module}.CHUNK", 1000)
        data = os.urandom(3500)
        (tmp_path / "big").write_bytes(data + data[:1000])
        store = new("one")
        artifact = store.add(tmp_path / "big")
        assert len(store.tree(artifact).chunks()) == 5
        assert store.fetch(artifact).read_bytes() == data + data[:1000]
        assert store.read(artifact, "", 4500) == data + data[:1000]

    def test_a_chunk_is_taken_only_as_what_it_says(self, new: NewStore) -> None:
        store, digest = new("one"), digest_of(b"data")
        assert store.missing([digest, digest_of(b""), digest]) == [digest, digest_of(b"")]
        with pytest.raises(ArtifactError, match="has the SHA-256"):
            store.put_blob(digest, b"date")
        assert store.missing([digest]) == [digest]
        assert [store.put_blob(digest, b"data"), store.put_blob(digest, b"data")] == [True, False]
        assert store.missing([digest]) == []

    def test_a_tree_is_taken_only_when_its_chunks_are_there(self, new: NewStore) -> None:
        store, tree = new("one"), file_tree(b"data")
        with pytest.raises(BadTree, match="is not there: put it first"):
            store.put_tree(tree)
        assert not store.has(tree.artifact())
        store.put_blob(digest_of(b"data"), b"data")
        assert store.put_tree(tree) == tree.artifact()
        assert store.put_tree(tree) == tree.artifact()
        assert store.fetch(tree.artifact()).read_bytes() == b"data"

    def test_a_tree_with_another_size_than_its_chunks_is_refused(self, new: NewStore) -> None:
        store, digest = new("one"), digest_of(b"data")
        store.put_blob(digest, b"data")
        with pytest.raises(BadTree, match="has 4 bytes, not 5"):
            store.put_tree(Tree(name="m", entries=(File(path="", size=5, sha256=digest, chunks=(digest,)),)))

    def test_an_unsafe_or_too_large_tree_is_refused(self, new: NewStore) -> None:
        store = new("one")
        with pytest.raises(BadTree, match="no name"):
            store.put_tree(Tree(name="m", entries=(Folder(path=""), Folder(path=".."))))
        digest = digest_of(b"x")
        with pytest.raises(BadTree, match="ENDPUNKT_ARTIFACT_GIB"):
            store.put_tree(Tree(name="m", entries=(File(path="", size=10_001, sha256=digest, chunks=(digest,)),)))

    def test_what_is_not_there_is_told(self, new: NewStore) -> None:
        store, ghost = new("one"), Artifact(digest="ab" * 32, name="ghost")
        assert not store.has(ghost)
        with pytest.raises(ArtifactError, match="there is no artifact 'ghost'"):
            store.fetch(ghost)

    def test_a_manifest_is_of_its_artifact_alone(self, new: NewStore) -> None:
        store, tree = new("one"), file_tree(b"data")
        store.put_blob(digest_of(b"data"), b"data")
        artifact = store.put_tree(tree)
        with pytest.raises(ArtifactError, match="the manifest of something else"):
            store.fetch(Artifact(digest=artifact.digest, name="other"))

    def test_small_files_are_read_and_no_others(self, new: NewStore, tmp_path: Path) -> None:
        store = new("one")
        artifact = store.add(make_model(tmp_path / "model"))
        assert store.read(artifact, "none", 0) == b""
        for path, says in (("ghost", "has no file 'ghost'"), ("sub", "has no file"), ("weights.bin", "at most 1")):
            with pytest.raises(ArtifactError, match=says):
                store.read(artifact, path, 1)
