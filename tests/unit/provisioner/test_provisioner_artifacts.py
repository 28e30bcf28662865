"""What is told of the files and folders that commands name, wherever they lie."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contracts.artifacts.store import ArtifactStore
from contracts.messages import Artifact
from provisioner.artifacts import SourceFiles
from provisioner.core.world import Fact, Source

Change = Callable[[Path], object]
LARGEST = 3 << 20


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(str(tmp_path / "store"), tmp_path / "cache", LARGEST)


@pytest.fixture
def files(store: ArtifactStore) -> SourceFiles:
    return SourceFiles(store, LARGEST)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "weights.bin").write_bytes(b"\x00\xff")
    (folder / "conda.yaml").write_text("name: ä\n")
    (folder / "sub" / "latest").symlink_to("../weights.bin")
    return folder


@pytest.fixture(params=["path", "artifact"])
def fact(request: pytest.FixtureRequest, files: SourceFiles, store: ArtifactStore) -> Callable[..., Fact]:
    """The same is told of a path and of what was uploaded."""

    def look(path: Path, **asked: Any) -> Fact:
        if request.param == "path":
            return files.look(Source("path", str(path), **asked))
        return files.look(Source("path", artifact=store.add(path), **asked))

    return look


@pytest.mark.parametrize(
    ("wanted", "there"),
    [("weights.bin", True), ("./sub/../weights.bin", True), ("sub", False), ("ghost.py", False), ("sub/latest", True)],
)
def test_a_look_tells_which_files_are_there(fact: Callable[..., Fact], model: Path, wanted: str, there: bool) -> None:
    looked = fact(model, wants=(wanted,))
    assert (looked.is_folder, looked.files, looked.artifact) == (True, frozenset([wanted] if there else []), None)


def test_environment_files_are_read(fact: Callable[..., Fact], model: Path) -> None:
    looked = fact(model, reads=("conda.yaml", "requirements.txt", "sub"))
    assert looked.texts == {"conda.yaml": "name: ä\n"}
    looked = fact(model / "conda.yaml", reads=("",))
    assert (looked.is_folder, looked.texts) == (False, {"": "name: ä\n"})


@pytest.mark.parametrize(
    ("content", "says"), [(b"a: \xff", "is no UTF-8 text: invalid start byte at byte 3"), (b"#" * (2 << 20), "1")]
)
def test_an_environment_file_that_cannot_be_one_is_a_problem(
    fact: Callable[..., Fact], model: Path, content: bytes, says: str
) -> None:
    (model / "conda.yaml").write_bytes(content)
    problem = fact(model, reads=("conda.yaml",)).problem
    assert problem is not None
    assert "conda.yaml" in problem
    assert says in problem


def test_storing_adds_the_artifact_to_what_was_seen(files: SourceFiles, store: ArtifactStore, model: Path) -> None:
    source = Source("path", str(model), wants=("weights.bin",))
    fact = files.store(source)
    assert fact.files == {"weights.bin"}
    assert fact.artifact is not None
    assert fact.artifact.name == "model"
    assert store.has(fact.artifact)
    assert files.store(source) == fact


def test_what_was_uploaded_is_stored_already(files: SourceFiles, store: ArtifactStore, model: Path) -> None:
    artifact = store.add(model)
    assert files.store(Source("path", artifact=artifact)).artifact == artifact


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist where the provisioner runs"),
        (lambda folder: (folder / "out").symlink_to("/etc/hostname"), "the link 'out', which leaves the folder"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe', which is neither a file nor a folder"),
        (lambda folder: (folder / "big").write_bytes(b"x" * (LARGEST + 1)), "larger than"),
    ],
)
def test_what_cannot_be_kept_whole_is_a_problem_and_nothing_is_kept(
    files: SourceFiles, model: Path, tmp_path: Path, change: Change, says: str
) -> None:
    change(model)
    source = Source("path", str(model))
    for fact in (files.look(source), files.store(source)):
        assert fact.problem is not None
        assert says in fact.problem
        assert str(model) in fact.problem
        assert fact.artifact is None
    assert not list((tmp_path / "store").iterdir())


def test_an_artifact_that_is_not_there_is_a_problem(files: SourceFiles) -> None:
    source = Source("path", artifact=Artifact(digest="ab" * 32, name="ghost"))
    for fact in (files.look(source), files.store(source)):
        assert fact.problem is not None
        assert "there is no artifact 'ghost'" in fact.problem
