"""Collected data moves to the home; whatever else user code puts there does not, and leads nowhere."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import pytest

from contracts.messages import DataCollector
from inference_server.collected_files import CollectedFiles
from inference_server.collection import Event, folder, read
from provisioner.compute import collected as module
from provisioner.compute.collected import fetch
from provisioner.compute.logs import end_of, last_lines

HOUR = "shop/blue/request/2026/11/22/23"


@pytest.fixture
def hour(tmp_path: Path) -> Path:
    folder = tmp_path / "collected" / HOUR
    folder.mkdir(parents=True)
    return folder


def fetched(tmp_path: Path, ended: bool = False) -> dict[str, str]:
    fetch(tmp_path / "collected", "shop", "blue", tmp_path / "data", ended)
    data = tmp_path / "data"
    return {str(path.relative_to(data)): path.read_text() for path in data.rglob("*") if path.is_file()}


def test_finished_files_move_and_unfinished_ones_stay(tmp_path: Path, hour: Path) -> None:
    (hour / "a.jsonl").write_text("1\n")
    (hour / "b.jsonl.part").write_text("2\n")
    assert fetched(tmp_path) == {f"{HOUR}/a.jsonl": "1\n"}
    assert [path.name for path in hour.iterdir()] == ["b.jsonl.part"]
    assert (tmp_path / "data" / HOUR / "a.jsonl").stat().st_mode & 0o777 == 0o600
    (hour / "b.jsonl.part").rename(hour / "b.jsonl")
    assert fetched(tmp_path).keys() == {f"{HOUR}/a.jsonl", f"{HOUR}/b.jsonl"}


@pytest.mark.parametrize("rate", get_args(DataCollector.model_fields["rolling_rate"].annotation))
def test_what_the_runtime_writes_is_fetched_at_every_rate(tmp_path: Path, rate: str) -> None:
    collector = DataCollector.model_validate({"rolling_rate": rate, "collections": {"request": {}}})
    settings = read(collector.model_dump_json())
    files = CollectedFiles(
        tmp_path / "collected",
        lambda event: folder(settings, "shop", "blue", event.collection, event.at),
        lambda event: event.id.encode() + b"\n",
    )
    for id, minute in (("one", 4), ("two", 5)):
        assert files.put(Event("request", id, datetime(2026, 1, 2, 3, minute, tzinfo=UTC), "C", b""))
    files.close()
    found = fetched(tmp_path)
    assert not [path for path in (tmp_path / "collected").rglob("*") if path.is_file()]
    assert sorted("".join(found.values()).splitlines()) == ["one", "two"]
    folders = {"year": "2026", "month": "2026/01", "day": "2026/01/02", "hour": "2026/01/02/03"}
    expected = {"2026/01/02/03/04", "2026/01/02/03/05"} if rate == "minute" else {folders[rate]}
    assert {str(Path(path).parent.relative_to("shop/blue/request")) for path in found} == expected


def test_what_an_ended_instance_did_not_finish_is_taken_up_to_its_last_line_end(
    tmp_path: Path, hour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 10)
    (tmp_path / "secret").write_text("hush\n")
    (hour / "torn.jsonl.part").write_text('1\n2\n{"')
    (hour / "none.jsonl.part").write_text('{"')
    (hour / "large.jsonl.part").write_text("123456789\n1")
    (hour / "link.jsonl.part").symlink_to(tmp_path / "secret")
    (hour / "folder.jsonl.part").mkdir()
    (hour / "kept.jsonl").write_text("finished\n")
    (hour / "kept.jsonl.part").write_text("forged\n")
    os.mkfifo(hour / "pipe.jsonl.part")
    assert fetched(tmp_path) == {f"{HOUR}/kept.jsonl": "finished\n"}
    assert fetched(tmp_path, ended=True) == {f"{HOUR}/kept.jsonl": "finished\n", f"{HOUR}/torn.jsonl": "1\n2\n"}
    assert not list(hour.iterdir())


def test_what_was_moved_before_is_not_replaced(tmp_path: Path, hour: Path) -> None:
    for text in ("first", "forged"):
        (hour / "a.jsonl").write_text(text)
        assert fetched(tmp_path) == {f"{HOUR}/a.jsonl": "first"}
    assert not list(hour.iterdir())


def test_links_pipes_folders_and_large_files_are_dropped(
    tmp_path: Path, hour: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_BYTES", 10)
    (tmp_path / "secret").write_text("hush")
    (hour / "link.jsonl").symlink_to(tmp_path / "secret")
    os.mkfifo(hour / "pipe.jsonl")
    (hour / "folder.jsonl" / "deep").mkdir(parents=True)
    (hour / "large.jsonl").write_text("x" * 11)
    (hour / "good.jsonl").write_text("x" * 10)
    assert fetched(tmp_path) == {f"{HOUR}/good.jsonl": "x" * 10}
    assert not list(hour.iterdir())
    assert (tmp_path / "secret").read_text() == "hush"


@pytest.mark.parametrize(
    "path",
    [
        "other/blue/request/2026/11/22/23/a.jsonl",
        "shop/green/request/2026/11/22/23/a.jsonl",
        "shop/blue/re quest/2026/11/22/23/a.jsonl",
        "shop/blue/request/a.jsonl",
        "shop/blue/request/2026/99/22/23/a.jsonl",
        "shop/blue/request/2026/11/22/23/deeper/a.jsonl",
        "shop/blue/request/2026/11/22/23/60/a.jsonl",
        "shop/blue/request/2026/11/22/23/59/59/a.jsonl",
        "shop/blue/request/2026/11/22/23/a.json",
        "shop/blue/request/2026/11/22/23/a\n.jsonl",
    ],
)
def test_names_that_do_not_fit_and_others_data_are_left(tmp_path: Path, path: str) -> None:
    file = tmp_path / "collected" / path
    file.parent.mkdir(parents=True)
    file.write_text("x")
    assert fetched(tmp_path) == {}
    assert file.exists()


def test_a_folder_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / HOUR).mkdir(parents=True)
    (elsewhere / HOUR / "a.jsonl").write_text("others'")
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected" / "shop").symlink_to(elsewhere / "shop")
    assert fetched(tmp_path) == {}
    (tmp_path / "collected" / "shop").unlink()
    (tmp_path / "collected").rmdir()
    (tmp_path / "collected").symlink_to(elsewhere)
    assert fetched(tmp_path) == {}


def test_no_more_than_so_many_at_once(tmp_path: Path, hour: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_FILES", 2)
    for number in range(5):
        (hour / f"{number}.jsonl").touch()
    moved = []
    while times := fetch(tmp_path / "collected", "shop", "blue", tmp_path / "data"):
        moved.append(times)
    assert moved == [2, 2, 1]


@pytest.mark.parametrize(
    ("lines", "largest", "expected"),
    [
        (2, 1000, ["three", "four"]),
        (9, 1000, ["one", "two", "three", "four"]),
        (9, 11, ["three", "four"]),
        (9, 7, ["e", "four"]),
        (1, 1000, ["four"]),
    ],
)
def test_the_last_lines_of_two_files(tmp_path: Path, lines: int, largest: int, expected: list[str]) -> None:
    older, newer = tmp_path / "log.1", tmp_path / "log"
    older.write_text("one\ntwo\n")
    newer.write_text("three\nfour\n")
    assert last_lines([older, newer], lines, largest) == expected
    assert end_of([tmp_path / "none", newer], 5) == b"four\n"
