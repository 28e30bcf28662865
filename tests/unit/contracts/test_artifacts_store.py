"""The artifact store over a folder and over memory: once, whole or not at all, verified, resumed."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from contracts.artifacts import artifact_path
from contracts.artifacts import blobs as blobs_module
from contracts.artifacts import scan as scan_module
from contracts.artifacts.blobs import Blobs, StoreError
from contracts.artifacts.store import ArtifactError, ArtifactStore
from contracts.messages import Artifact

from .artifact_store_rules import NewStore, StoreRules, digest_of, make_model, mode_of

Change = Callable[[Path], object]


class TestFolder(StoreRules):
    """The default: a folder of this machine."""

    @pytest.fixture
    def new(self, tmp_path: Path) -> NewStore:
        return lambda cache: ArtifactStore(str(tmp_path / "store"), tmp_path / cache, 10_000)


class TestMemory(StoreRules):
    """As an object store does it: no paths, no links."""

    @pytest.fixture
    def new(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NewStore:
        shared = MemoryStore()
        monkeypatch.setattr(blobs_module, "from_url", lambda url: shared)
        return lambda cache: ArtifactStore("memory:///", tmp_path / cache, 10_000)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore((tmp_path / "store").as_uri(), tmp_path / "cache", 10_000)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


def blob(tmp_path: Path, data: bytes) -> Path:
    digest = digest_of(data)
    return tmp_path / "store" / "blobs" / "sha256" / digest[:2] / digest


# The same content


def test_the_same_content_is_the_same_artifact_wherever_and_whenever(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    first = store.add(model)
    before = blob(tmp_path, b"\x00\x01").stat()
    elsewhere = tmp_path / "elsewhere" / "model"
    shutil.copytree(model, elsewhere, symlinks=True)
    (elsewhere / "sub" / "__pycache__" / "y.pyc").write_bytes(b"y")
    os.utime(elsewhere / "weights.bin", (1, 1))
    (elsewhere / "weights.bin").chmod(0o600)
    assert store.add(elsewhere) == first
    assert blob(tmp_path, b"\x00\x01").stat() == before, "it is not written again"


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
    first = store.add(model)
    change(model)
    assert store.add(model).digest != first.digest


def test_another_name_is_another_artifact(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    first = store.add(model)
    second = store.add(model.rename(tmp_path / "other"))
    assert (second.name, second.digest != first.digest) == ("other", True)


def test_links_are_kept_by_what_they_mean(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    (model / "absolute").symlink_to(model / "weights.bin")
    current = tmp_path / "current"
    current.symlink_to(model)
    kept = store.fetch(store.add(current))
    assert (kept.name, kept.is_symlink()) == ("current", False)
    assert (kept / "absolute").readlink() == Path("weights.bin")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: shutil.rmtree(folder), "No such file or directory"),
        (lambda folder: (folder / "out").symlink_to("/etc/hostname"), "the link 'out', which leaves the folder"),
        (lambda folder: (folder / "sub" / "up").symlink_to("../../model.pem"), "which leads nowhere"),
        (lambda folder: (folder / "loop").symlink_to("loop"), "the link 'loop', which leads nowhere"),
        (lambda folder: (folder / "byte").symlink_to("sub/__pycache__/x.pyc"), "no file or folder of the artifact"),
        (lambda folder: os.mkfifo(folder / "pipe"), "'pipe', which is neither a file nor a folder"),
        (lambda folder: (folder / "big").write_bytes(b"x" * 10_001), "larger than"),
        (lambda folder: Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).write_bytes(b""), "no UTF-8 text"),
    ],
)
def test_what_cannot_be_kept_whole_is_refused_and_nothing_is_kept(
    store: ArtifactStore, model: Path, tmp_path: Path, change: Change, says: str
) -> None:
    change(model)
    with pytest.raises(ArtifactError) as error:
        store.add(model)
    assert says in str(error.value)
    assert str(model) in str(error.value)
    assert not list((tmp_path / "store").iterdir())


def test_a_file_that_changes_while_it_is_copied_is_refused(
    store: ArtifactStore, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = store.missing

    def slow(digests: object) -> list[str]:
        (model / "weights.bin").write_bytes(b"\x07\x07")
        return missing(digests)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "missing", slow)
    with pytest.raises(ArtifactError, match="changed while it was copied"):
        store.add(model)
    assert not (tmp_path / "store" / "trees").exists()


def test_ignored_entries_are_no_content(model: Path) -> None:
    tree = scan_module.scan(model, 10_000, lambda path, is_folder: path in ("sub", "none"))
    assert [entry.path for entry in tree.entries] == ["", "empty", "weights.bin"]


# On one machine


def test_a_file_of_one_chunk_is_a_second_name_of_its_blob_and_a_program_is_not(
    store: ArtifactStore, model: Path, tmp_path: Path
) -> None:
    path = store.fetch(store.add(model))
    assert (path / "weights.bin").samefile(blob(tmp_path, b"\x00\x01"))
    assert mode_of(blob(tmp_path, b"\x00\x01")) == 0o444
    assert (path / "sub" / "run.sh").stat().st_nlink == 1


def test_where_links_are_not_possible_files_are_copied(
    store: ArtifactStore, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    path = store.fetch(store.add(model))
    assert (path / "weights.bin").stat().st_nlink == 1
    assert mode_of(path / "weights.bin") == 0o444


def test_what_only_the_cache_has_is_taken_into_the_store(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = store.add(model)
    store.fetch(artifact)
    shutil.rmtree(tmp_path / "store")
    later = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache", 10_000)
    assert later.has(artifact)
    assert later.read(artifact, "weights.bin", 2) == b"\x00\x01"
    assert ArtifactStore(str(tmp_path / "store"), tmp_path / "new", 10_000).fetch(artifact).is_dir()


# Damage


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"\x00\x02", "does not hold what its name says"), (b"\x00", "does not hold"), (b"\x00" * 9, "more than 2 bytes")],
)
def test_a_damaged_blob_is_told_by_its_place_and_leaves_nothing(
    store: ArtifactStore, model: Path, tmp_path: Path, data: bytes, says: str
) -> None:
    artifact = store.add(model)
    damage(blob(tmp_path, b"\x00\x01"), data)
    with pytest.raises(ArtifactError) as error:
        store.fetch(artifact)
    assert says in str(error.value)
    assert str(blob(tmp_path, b"\x00\x01")) in str(error.value)
    assert "add the artifact again" in str(error.value)
    assert not artifact_path(tmp_path / "cache", artifact).exists()
    assert not list((tmp_path / "cache" / "incoming").iterdir())
    blob(tmp_path, b"\x00\x01").unlink()
    assert store.add(model) == artifact
    assert store.fetch(artifact).is_dir(), "the next step that is told mends it"


def test_a_missing_blob_is_told(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = store.add(model)
    blob(tmp_path, b"#!/bin/sh\n").unlink()
    with pytest.raises(ArtifactError, match="is not there any more: add the artifact again"):
        store.fetch(artifact)


def test_a_blob_of_another_size_is_never_overwritten(store: ArtifactStore, tmp_path: Path) -> None:
    path = blob(tmp_path, b"data")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"dat")
    with pytest.raises(ArtifactError, match="has 3 bytes instead of 4"):
        store.put_blob(digest_of(b"data"), b"data")
    assert path.read_bytes() == b"dat"


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"name": "model", "entries": [{"kind": "folder", "path": ""}]}'])
def test_a_damaged_manifest_is_told_by_its_place(store: ArtifactStore, model: Path, tmp_path: Path, raw: bytes) -> None:
    artifact = store.add(model)
    manifest = tmp_path / "store" / "trees" / f"{artifact.digest}.json"
    damage(manifest, raw)
    with pytest.raises(ArtifactError) as error:
        store.fetch(artifact)
    assert str(manifest) in str(error.value)


# Interruption. The processes are real, and die by SIGKILL in the middle of what they do.

_DYING = """
import os, signal, sys
from pathlib import Path
from contracts.artifacts import blobs, store
from contracts.messages import Artifact

what, home, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
calls = []

def dying(function):
    def call(*arguments, **named):
        calls.append(1)
        if len(calls) > count:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call

store._THREADS = 1 if count < 1000 else store._THREADS
kept = store.ArtifactStore(str(home / "store"), home / "cache", 10_000)
if what == "add":
    blobs.obstore.put = dying(blobs.obstore.put)
    kept.add(home / "model")
else:
    store.ArtifactStore._contents = dying(store.ArtifactStore._contents)
    kept.fetch(Artifact(digest=sys.argv[4], name="model"))
"""


def killed(what: str, home: Path, count: int, *more: str) -> None:
    done = subprocess.run([sys.executable, "-c", _DYING, what, str(home), str(count), *more], check=False)
    assert done.returncode == -signal.SIGKILL


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_an_add_that_was_killed_leaves_no_tree_and_goes_on(
    store: ArtifactStore, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    (model / "third").write_bytes(b"third")
    killed("add", tmp_path, count)
    assert not list((tmp_path / "store").glob("trees/*"))
    there = sum(len(files) for _, _, files in os.walk(tmp_path / "store"))
    written = []
    put = Blobs.put

    def counted(self: Blobs, name: str, data: bytes) -> bool:
        written.append(name)
        return put(self, name, data)

    monkeypatch.setattr(Blobs, "put", counted)
    assert (store.fetch(store.add(model)) / "third").read_bytes() == b"third"
    assert there == count
    assert len(written) == 4 - count, "what was there is not written again"


@pytest.mark.parametrize("count", [0, 1])
def test_a_fetch_that_was_killed_leaves_nothing_that_looks_whole(
    store: ArtifactStore, model: Path, tmp_path: Path, count: int
) -> None:
    artifact = store.add(model)
    killed("fetch", tmp_path, count, artifact.digest)
    assert not artifact_path(tmp_path / "cache", artifact).exists()
    assert list((tmp_path / "cache" / "incoming").iterdir())
    store.tidy()
    assert not list((tmp_path / "cache" / "incoming").iterdir())
    killed("fetch", tmp_path, count, artifact.digest)
    assert (store.fetch(artifact) / "weights.bin").read_bytes() == b"\x00\x01"
    assert not list((tmp_path / "cache" / "incoming").iterdir())


def test_two_processes_and_many_threads_fetch_at_once(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    for index in range(100):
        (model / f"part-{index}").write_bytes(index.to_bytes(2, "big"))
    artifact = store.add(model)
    command = [sys.executable, "-c", _DYING, "fetch", str(tmp_path), "1000000", artifact.digest]
    processes = [subprocess.Popen(command) for _ in range(2)]
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: store.fetch(artifact), range(8)))) == 1
    assert [process.wait(60) for process in processes] == [0, 0]
    path = artifact_path(tmp_path / "cache", artifact)
    assert [(path / f"part-{index}").read_bytes() for index in range(100)] == [i.to_bytes(2, "big") for i in range(100)]


def test_tidying_removes_what_an_earlier_version_left(store: ArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "cache" / "incoming" / "half").mkdir(parents=True)
    store.tidy()
    assert not list((tmp_path / "cache" / "incoming").iterdir())


def test_other_users_can_read_whatever_the_umask(store: ArtifactStore, model: Path) -> None:
    before = os.umask(0o077)
    try:
        path = store.fetch(store.add(model))
    finally:
        os.umask(before)
    modes = [mode_of(each) for each in (path.parent, path, path / "sub", path / "none", path / "sub" / "run.sh")]
    assert modes == [0o755, 0o755, 0o755, 0o444, 0o555]


def test_tidying_leaves_alone_what_is_being_fetched(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = store.add(model)
    contents = store._contents

    def meanwhile(file: object) -> object:
        ArtifactStore(str(tmp_path / "store"), tmp_path / "cache", 10_000).tidy()
        return contents(file)  # type: ignore[arg-type]

    store._contents = meanwhile  # type: ignore[method-assign,assignment]
    assert store.fetch(artifact).is_dir()


# Where it is


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:secret@bucket/x",
        "s3://key@bucket/x",
        "az://container/x?sig=secret",
        "gs://b/x#secret",
        "abfss://fs:secret@a.dfs.core.windows.net/x",
    ],
)
def test_no_credentials_in_a_url_and_none_in_the_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="credentials are taken from the environment") as error:
        ArtifactStore(url, tmp_path, 1)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "https://host/x", "file://host/x"])
def test_other_places_are_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="the artifact store"):
        ArtifactStore(url, tmp_path, 1)


@pytest.mark.parametrize("url", ["s3://bucket/a", "gs://bucket/a", "abfss://fs@account.dfs.core.windows.net/a"])
def test_object_stores_are_opened_without_asking_them(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    ArtifactStore(url, tmp_path, 1)


def test_others_may_not_look_into_a_folder_that_is_made_for_it(store: ArtifactStore, tmp_path: Path) -> None:
    assert mode_of(tmp_path / "store") == 0o700


def test_a_store_that_fails_is_told_with_its_place(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache", 10_000)
    (tmp_path / "store" / "blobs").write_text("in the way")
    with pytest.raises(StoreError) as error:
        store.put_blob(digest_of(b"x"), b"x")
    assert str(tmp_path / "store") in str(error.value)
    assert "Debug" not in str(error.value)


def test_a_cache_that_cannot_be_written_is_told(store: ArtifactStore, model: Path, tmp_path: Path) -> None:
    artifact = store.add(model)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "incoming").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot be written"):
        store.fetch(artifact)


def test_long_copies_are_told_in_parts(tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "cache", 1 << 30)
    (tmp_path / "big").write_bytes(os.urandom(9 << 20))
    told: list[str] = []
    store.fetch(store.add(tmp_path / "big", told.append), told.append)
    assert told == ["keeping 'big': 9 of 9 MiB", "fetching 'big': 9 of 9 MiB"]
    assert Artifact.model_validate(store.add(tmp_path / "big", told.append))
    assert len(told) == 2, "what is there is not copied again"
