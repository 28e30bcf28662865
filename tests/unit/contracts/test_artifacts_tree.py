"""A tree that came from anybody: nothing of it leaves its folder, and its name is what it holds."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from contracts.artifacts import artifact_path, artifact_uri, parse_artifact_uri
from contracts.artifacts.tree import CHUNK, MOST_ENTRIES, BadTree, File, Folder, Link, Tree, read_tree
from contracts.messages import Artifact

ONE = hashlib.sha256(b"1").hexdigest()
EMPTY = hashlib.sha256(b"").hexdigest()
ROOT = {"kind": "folder", "path": ""}


def file(path: str, **changes: Any) -> dict[str, Any]:
    return {"kind": "file", "path": path, "size": 1, "sha256": ONE, "chunks": [ONE], **changes}


def link(path: str, target: str) -> dict[str, Any]:
    return {"kind": "link", "path": path, "target": target}


def folder(path: str) -> dict[str, Any]:
    return {"kind": "folder", "path": path}


def manifest(*entries: dict[str, Any], name: str = "model") -> bytes:
    return json.dumps({"name": name, "entries": entries}).encode()


@pytest.mark.parametrize(
    ("entries", "says"),
    [
        ([], "the artifact itself"),
        ([file("a")], "the artifact itself"),
        ([link("", "a"), file("a")], "the artifact itself"),
        ([ROOT, file("/etc/passwd")], "'' is no name"),
        ([ROOT, file("../a")], "'..' is no name"),
        ([ROOT, folder("a"), file("a/../../b")], "'..' is no name"),
        ([ROOT, file(".")], "'.' is no name"),
        ([ROOT, folder("a"), file("a/./b")], "'.' is no name"),
        ([ROOT, folder("a"), file("a//b")], "'' is no name"),
        ([ROOT, folder("a"), file("a/")], "'' is no name"),
        ([ROOT, file("a\0b")], "NUL"),
        ([ROOT, file("a" * 256)], "longer than 255 bytes"),
        ([ROOT, *(folder("/".join(["d" * 200] * n)) for n in range(1, 22))], "longer than 4000 bytes"),
        ([ROOT, file("a"), file("a")], "'a' is there twice"),
        ([ROOT, file("a"), folder("a")], "'a' is there twice"),
        ([ROOT, ROOT], "'' is there twice"),
        ([ROOT, file("a"), file("a/b")], "'a' is a file, which holds no entries"),
        ([ROOT, folder("d"), link("a", "d"), file("a/b")], "'a' is a link, which holds no entries"),
        ([file(""), file("b")], "'' is a file, which holds no entries"),
        ([ROOT, file("missing/b")], "its folder 'missing' is no entry"),
        ([ROOT, link("a", "/etc/passwd")], "no path relative"),
        ([ROOT, link("a", "")], "no path relative"),
        ([ROOT, file("b"), link("a", "b\0")], "no path relative"),
        ([ROOT, link("a", "../b")], "leaves the folder"),
        ([ROOT, link("a", "..")], "leaves the folder"),
        ([ROOT, file("b"), link("a", "../model/b")], "leaves the folder"),
        ([ROOT, folder("d"), link("d/a", "../../etc")], "leaves the folder"),
        ([ROOT, folder("d"), file("b"), link("a", "d/../b")], "not the shortest way"),
        ([ROOT, file("b"), link("a", "./b")], "not the shortest way"),
        # Through a link, ".." would go up from where that leads.
        ([ROOT, folder("d"), folder("d/e"), link("l", "d/e"), link("a", "l/../../b")], "leaves the folder"),
        ([ROOT, folder("d"), link("l", "d"), link("a", "l/x")], "no file or folder of the artifact"),
        ([ROOT, link("a", "ghost")], "no file or folder of the artifact"),
        ([ROOT, link("a", "b"), link("b", "a")], "no file or folder of the artifact"),
        ([ROOT, link("a", "a")], "no file or folder of the artifact"),
        ([ROOT, file("a", size=2 * CHUNK)], "chunks, which do not make"),
        ([ROOT, file("a", size=10**30)], "a"),
        ([ROOT, file("a", size=-1)], "greater than or equal to 0"),
        ([ROOT, file("a", chunks=[])], "chunks, which do not make"),
        ([ROOT, file("a", size=0, chunks=[])], "is empty"),
        ([ROOT, file("a", sha256=EMPTY)], "another digest than the file"),
        ([ROOT, file("a", chunks=["../../x"])], "String should match"),
        ([ROOT, file("a", sha256=ONE.upper())], "String should match"),
        ([ROOT, file("a", mode=0o4755)], "mode: unknown field"),
        ([ROOT, {"kind": "device", "path": "a"}], "kind"),
        ([ROOT, {"path": "a"}], "kind"),
    ],
)
def test_a_hostile_manifest_is_refused(entries: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(BadTree) as bad:
        read_tree(manifest(*entries))
    assert says in str(bad.value)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\0", "a\\b", "n" * 256])
def test_a_hostile_name_is_refused(name: str) -> None:
    with pytest.raises(BadTree):
        read_tree(manifest(ROOT, name=name))
    with pytest.raises(ValueError, match="is no artifact"):
        parse_artifact_uri(f"artifact:{ONE}/{name}")


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"name": "\xff", "entries": []}', b'{"name": "\\ud800"}'])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(BadTree):
        read_tree(raw)


def test_too_many_entries_are_refused() -> None:
    entries = [ROOT, *(folder(str(index)) for index in range(MOST_ENTRIES))]
    with pytest.raises(BadTree, match="at most 100000 items"):
        read_tree(manifest(*entries))


def test_every_trouble_is_told_at_once_up_to_a_hundred() -> None:
    with pytest.raises(BadTree) as bad:
        read_tree(manifest(ROOT, file("../a"), link("b", "/c"), file("c", chunks=[])))
    assert len(bad.value.troubles) == 3
    with pytest.raises(BadTree) as bad:
        read_tree(manifest(ROOT, *(file(f"../{index}") for index in range(500))))
    assert len(bad.value.troubles) == 100


GOOD = Tree(
    name="model",
    entries=(
        Folder(path=""),
        Folder(path="sub"),
        File(path="sub/run.sh", size=1, executable=True, sha256=ONE, chunks=(ONE,)),
        File(path="empty", size=0, sha256=EMPTY),
        Link(path="sub/latest", target="../empty"),
        Link(path="sub/self", target="."),
        Link(path="top", target="sub"),
    ),
)


def test_a_good_tree_reads_back_the_same_whatever_its_order() -> None:
    again = read_tree(GOOD.manifest())
    assert again.artifact() == GOOD.artifact()
    assert [entry.path for entry in again.entries] == [
        "",
        "empty",
        "sub",
        "sub/latest",
        "sub/run.sh",
        "sub/self",
        "top",
    ]
    turned = GOOD.model_copy(update={"entries": GOOD.entries[::-1]})
    assert turned.manifest() == GOOD.manifest()


def test_the_digest_is_the_one_that_artifacts_always_had() -> None:
    assert GOOD.artifact().digest == "7d9ca6167098dd78aef149f44d6ab86ab0c12f5712b03dd94b43fe42f10d0e54"


def test_chunks_are_no_part_of_the_digest() -> None:
    whole = File(path="", size=CHUNK + 1, sha256=ONE, chunks=(EMPTY, ONE))
    other = whole.model_copy(update={"chunks": (ONE, EMPTY)})
    assert Tree(name="m", entries=(whole,)).artifact() == Tree(name="m", entries=(other,)).artifact()
    assert whole.sizes() == [CHUNK, 1]


def test_a_file_is_found_through_a_link() -> None:
    found = GOOD.file("sub/latest")
    assert found is not None
    assert found.path == "empty"
    assert GOOD.file("sub") is GOOD.file("top") is GOOD.file("ghost") is None


def test_references() -> None:
    artifact = Artifact(digest=ONE, name="my model")
    assert parse_artifact_uri(artifact_uri(artifact)) == artifact
    assert artifact_path(Path("/cache"), artifact) == Path(f"/cache/sha256/{ONE}/my model")
    for wrong in ("file:///a", f"artifact:{ONE}", f"artifact:{ONE[:-1]}/a", f"artifact:../../{ONE}/a", ""):
        with pytest.raises(ValueError, match="is no artifact"):
            parse_artifact_uri(wrong)
