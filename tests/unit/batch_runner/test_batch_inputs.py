"""Which files an input is, on a real disk."""

import os
from pathlib import Path

import pytest

from batch_runner.inputs import local_path, look
from batch_runner.plan import Found
from contracts.messages import BatchInput


def listing(folder: Path, kind: str = "uri_folder") -> Found:
    given = BatchInput.model_validate({"type": kind, "uri": folder.as_uri()})
    return look(given, None, folder.parent / "new-output")


def refusal(folder: Path, kind: str = "uri_folder") -> str:
    [problem] = listing(folder, kind).problems
    assert problem.field == "input.uri"
    return problem.message


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/data/in", "/data/in"),
        ("/data/../etc/x/", "/etc/x"),
        ("/literal%20percent", "/literal%20percent"),
        ("file:///data/a%20b", "/data/a b"),
        ("file:/data", "/data"),
        ("file://localhost/data", "/data"),
        ("file:///caf%E9", os.fsdecode(b"/caf\xe9")),
    ],
)
def test_a_local_path(text: str, path: str) -> None:
    assert str(local_path(text)) == path


@pytest.mark.parametrize(
    "text",
    ["", "data", "./data", "https://host/data", "azureml:data:1", "file://host/data", "file:data", "file:///a?b",
     "file:///a%00b", "/a\0b"],
)  # fmt: skip
def test_what_is_no_local_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        local_path(text)


def test_every_regular_file_is_listed_in_order(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    (folder / "deep" / "er").mkdir(parents=True)
    for name in ("b", "a", "deep/c", "deep/er/.hidden", "line\nbreak"):
        (folder / name).touch()
    (folder / "link").symlink_to(folder / "deep" / "c")
    (folder / "folder-link").symlink_to(folder / "deep")
    found = listing(folder)
    assert found.problems == ()
    assert found.files == ("a", "b", "deep/c", "deep/er/.hidden", "line\nbreak", "link")
    assert (found.folder, found.output) == (str(folder.resolve()), str(tmp_path / "new-output"))


def test_a_folder_that_is_itself_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert listing(tmp_path / "link").files == ("a",)


def test_what_leads_out_of_the_folder_is_refused_by_name(tmp_path: Path) -> None:
    folder, outside = tmp_path / "in", tmp_path / "in-secrets"
    folder.mkdir()
    outside.mkdir()
    (outside / "key").touch()
    (folder / "good").touch()
    (folder / "file").symlink_to(outside / "key")
    (folder / "folder").symlink_to(outside)
    (folder / "nowhere").symlink_to("/no/such")
    os.mkfifo(folder / "pipe")
    message = refusal(folder)
    assert "holds what is not scored" in message
    assert message.count("(") == 3
    assert ", …" in message


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "loop").symlink_to("loop")
    assert "a link to nothing" in refusal(tmp_path / "in")


def test_inputs_that_are_not_there_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty" / "of files").mkdir(parents=True)
    (tmp_path / "file").touch()
    assert "does not exist" in refusal(tmp_path / "nothing")
    assert "nothing to score" in refusal(tmp_path / "empty")
    assert "say type uri_file" in refusal(tmp_path / "file")
    assert "say type uri_folder" in refusal(tmp_path / "empty", "uri_file")
    assert listing(tmp_path / "file", "uri_file").files == ("file",)


@pytest.mark.parametrize("made", ["folder", "file", "dangling link"])
def test_an_output_that_exists_is_refused(tmp_path: Path, made: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").touch()
    output = tmp_path / "out"
    if made == "folder":
        output.mkdir()
    elif made == "file":
        output.touch()
    else:
        output.symlink_to("/no/such")
    [problem] = look(BatchInput(uri=str(tmp_path / "in")), output.as_uri(), tmp_path / "default").problems
    assert (problem.field, "exists already" in problem.message) == ("output", True)


def test_input_and_output_are_both_told(tmp_path: Path) -> None:
    found = look(BatchInput(uri="nonsense"), "https://elsewhere", tmp_path)
    assert [problem.field for problem in found.problems] == ["input.uri", "output"]
    found = look(BatchInput(uri="nonsense"), "file:///caf%E9", tmp_path)
    assert "no Unicode" in found.problems[1].message
