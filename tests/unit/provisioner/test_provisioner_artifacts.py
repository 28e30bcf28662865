"""The artifact store: same content once, another name apart, nothing from outside the folder, whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest

from contracts.artifacts import artifact_folder, artifact_path
from contracts.messages import Artifact
from provisioner.artifacts import ArtifactStore
from provisioner.core.world import Source

Change = Callable[[Path], object]


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store", largest=10_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder with a file, an executable, a link, an empty folder and bytecode."""
    folder = tmp_path / "model"
    (folder / "sub" / "__pycache__").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "weights.bin").write_bytes(b"\x00\x01")
    (folder / "sub" / "run.sh").write_text("#!/bin/sh\n")
    (folder / "sub" / "run.sh").chmod(0o755)
    (folder / "sub" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (folder / "sub" / "latest").symlink_to("../weights.bin")
    return folder


def stored(store: ArtifactStore, path: Path) -> Artifact:
    fact = store.store(Source("path", str(path)))
    assert fact.problem is None
    assert fact.artifact is not None
    return fact.artifact


def test_a_folder_is_kept_as_it_is_under_its_digest_and_name(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = stored(store, model)
    assert artifact.name == "model"
    kept = artifact_path(tmp_path / "store", artifact)
    assert sorted(str(each.relative_to(kept)) for each in kept.rglob("*")) == [
        "empty",
        "sub",
        "sub/latest",
        "sub/run.sh",
        "weights.bin",
    ]
    assert os.access(kept / "sub" / "run.sh", os.X_OK)
    assert not os.access(kept / "weights.bin", os.X_OK)
    assert (kept / "sub" / "latest").readlink() == Path("../weights.bin")
    assert (kept / "sub" / "latest").read_bytes() == b"\x00\x01"
    # Nothing else is in the folder that AZUREML_MODEL_DIR points at, and nothing is left of the making.
    assert [each.name for each in artifact_folder(tmp_path / "store", artifact).iterdir()] == ["model"]
    assert not list((tmp_path / "store" / "incoming").iterdir())


def test_a_file_is_an_artifact_too(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = stored(store, model / "weights.bin")
    assert artifact_path(tmp_path / "store", artifact).read_bytes() == b"\x00\x01"


def test_the_same_content_is_the_same_artifact_wherever_and_whenever(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    first = stored(store, model)
    inode = artifact_path(tmp_path / "store", first).stat().st_ino
    elsewhere = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, elsewhere, symlinks=True)
    (elsewhere / "sub" / "__pycache__" / "y.pyc").write_bytes(b"y")
    os.utime(elsewhere / "weights.bin", (1, 1))
    (elsewhere / "weights.bin").chmod(0o600)
    assert stored(store, elsewhere) == first
    assert artifact_path(tmp_path / "store", first).stat().st_ino == inode, "it is not copied again"


def relink(folder: Path, target: str) -> None:
    (folder / "sub" / "latest").unlink()
    (folder / "sub" / "latest").symlink_to(target)


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "weights.bin").write_bytes(b"\x00\x02"),
        lambda folder: relink(folder, "../" + (folder / "weights.bin").rename(folder / "w").name),
        lambda folder: (folder / "weights.bin").chmod(0o755),
        lambda folder: (folder / "more").write_bytes(b""),
        lambda folder: (folder / "more").mkdir(),
        lambda folder: (folder / "empty").rmdir(),
        lambda folder: ((folder / "empty").rmdir(), (folder / "empty").write_bytes(b"")),
        lambda folder: relink(folder, "run.sh"),
    ],
)
def test_any_other_content_is_another_artifact(store: ArtifactStore, model: Path, change: Change) -> None:
    first = stored(store, model)
    change(model)
    assert stored(store, model).digest != first.digest


def test_another_name_is_another_artifact(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    first = stored(store, model)
    renamed = model.rename(tmp_path / "other")
    second = stored(store, renamed)
    assert (second.name, second.digest != first.digest) == ("other", True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "does not exist where the provisioner runs"),
        (lambda folder: (folder / "out").symlink_to("/etc/hostname"), "the link 'out', which leaves the folder"),
        (lambda folder: (folder / "sub" / "up").symlink_to("../../model.pem"), "which leads nowhere"),
        (lambda folder: (folder / "loop").symlink_to("loop"), "the link 'loop', which leads nowhere"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe', which is neither a file nor a folder"),
        (lambda folder: (folder / "big").write_bytes(b"x" * 10_001), "larger than"),
    ],
)
def test_what_cannot_be_kept_whole_is_refused_and_nothing_is_stored(
    store: ArtifactStore, model: Path, tmp_path: Path, change: Change, says: str
) -> None:
    change(model)
    source = Source("path", str(model))
    for fact in (store.look(source), store.store(source)):
        assert fact.problem is not None
        assert says in fact.problem
        assert str(model) in fact.problem
        assert fact.artifact is None
    assert not (tmp_path / "store").exists()


def test_a_link_is_stored_by_what_it_means_and_a_named_link_by_what_it_points_at(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    (model / "absolute").symlink_to(model / "weights.bin")
    current = tmp_path / "current"
    current.symlink_to(model)
    kept = artifact_path(tmp_path / "store", stored(store, current))
    assert kept.name == "current"
    assert not kept.is_symlink()
    assert (kept / "absolute").readlink() == Path("weights.bin")


@pytest.mark.parametrize(
    ("script", "there"),
    [("weights.bin", True), ("./sub/../sub/run.sh", True), ("sub", False), ("ghost.py", False), ("sub/latest", True)],
)
def test_a_look_tells_whether_the_script_is_there(store: ArtifactStore, model: Path, script: str, there: bool) -> None:
    fact = store.look(Source("code", str(model), script=script))
    assert (fact.is_folder, fact.has_script, fact.artifact) == (True, there, None)


def test_what_an_interrupted_copy_left_is_removed(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "store" / "incoming" / "half").mkdir(parents=True)
    store.tidy()
    assert not (tmp_path / "store" / "incoming").exists()


def test_a_folder_that_changes_while_it_is_copied_is_refused(
    store: ArtifactStore, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(source: BinaryIO, target: BinaryIO, length: int) -> None:
        (model / "weights.bin").write_bytes(b"\x07\x07")
        target.write(source.read())

    monkeypatch.setattr(shutil, "copyfileobj", slow)
    fact = store.store(Source("path", str(model)))
    assert fact.problem is not None
    assert "changed while it was copied" in fact.problem
