"""What is collected and how an event reads; and the files, with their limits made small."""

import json
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from inference_server import collected_files, monitoring
from inference_server.collected_files import CollectedFiles
from inference_server.collection import (
    MAX_DATA_BYTES,
    CollectionError,
    Collections,
    Event,
    captured,
    folder,
    line,
    read,
)

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(data: bytes | str = b"{}", kind: str = "application/json", collection: str = "request", **more: str) -> Event:
    return Event(collection, "I", AT, "C", data, kind, more)


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"collections": {}}, Collections()),
        (
            {
                "collections": {"Request": {}, "mine": {"enabled": "true"}, "off": {"enabled": False}, "n": None},
                "sampling_rate": 0.5,
                "rolling_rate": "Day",
                "request_logging": {"capture_headers": ["X-A"]},
            },
            Collections(frozenset({"request", "mine", "n"}), 0.5, "%Y/%m/%d", ("x-a",)),
        ),
    ],
)
def test_settings(document: object, expected: Collections) -> None:
    assert read(json.dumps(document)) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "it is not JSON"),
        ("[]", "it must be an object with 'collections'"),
        ('{"collections": {"../x": {}}}', "'../x' is no name of a collection"),
        ('{"collections": {}, "sampling_rate": 2}', "sampling_rate is 2, not a number from 0 to 1"),
        ('{"collections": {}, "rolling_rate": "week"}', "rolling_rate is 'week', none of year, month,"),
    ],
)
def test_bad_settings(text: str, says: str) -> None:
    with pytest.raises(CollectionError, match=says):
        read(text)


def test_a_sample_is_of_whole_requests_and_of_about_the_right_size() -> None:
    ids = [f"id-{number}" for number in range(10_000)]
    half = Collections(sampling_rate=0.5)
    taken = [identity for identity in ids if half.sampled(identity)]
    assert 4800 < len(taken) < 5200
    assert all(half.sampled(identity) for identity in taken)
    assert all(Collections(sampling_rate=1).sampled(identity) for identity in ids)
    assert not any(Collections(sampling_rate=0).sampled(identity) for identity in ids)


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (b'{"a": 1}', "application/json", {"data": {"a": 1}}),
        (b'{"a": 1}', "application/problem+json; charset=utf-8", {"data": {"a": 1}}),
        (b"{", "application/json", {"data": "{"}),
        ("[1]", "application/json", {"data": [1]}),
        ("ä".encode(), "text/plain", {"data": "ä"}),
        (b"\xff", "image/png", {"data_base64": "/w=="}),
        (b"x" * (MAX_DATA_BYTES + 1), "text/plain", {"dataomitted": "larger than 4194304 bytes"}),
    ],
)
def test_data(data: bytes | str, kind: str, expected: dict[str, Any]) -> None:
    written = line(event(data, kind), "S", "A")
    assert written.endswith(b"\n")
    assert written.count(b"\n") == 1
    document = json.loads(written)
    assert {
        name: value for name, value in document.items() if name.startswith("data") and name != "datacontenttype"
    } == (expected)
    assert document["contentrange"] == f"bytes 0-{len(data) - 1}/{len(data)}"
    assert document["datacontenttype"] == kind


def test_attributes_never_replace_those_of_the_event() -> None:
    document = json.loads(line(event(id="evil", correlationid="evil", xuser="me"), "S", "A"))
    assert (document["id"], document["correlationid"], document["xuser"]) == ("I", "C", "me")
    assert document["time"] == "2026-01-02T03:04:05Z"


def test_captured_headers() -> None:
    headers = {"x-user-id": "7", "authorization": "secret"}
    assert captured(headers, ("x-user-id", "x-none")) == {"xuserid": "7"}


@pytest.mark.parametrize(
    ("rate", "path"),
    [
        ("year", "2026"),
        ("month", "2026/01"),
        ("day", "2026/01/02"),
        ("hour", "2026/01/02/03"),
        ("minute", "2026/01/02/03/04"),
    ],
)
def test_folders(rate: str, path: str) -> None:
    collections = read(json.dumps({"collections": {}, "rolling_rate": rate}))
    assert folder(collections, "e", "d", "request", AT) == f"e/d/request/{path}"


# -- files


def files(root: Path, written: Callable[[Event], bytes] = lambda event: b"line\n") -> CollectedFiles:
    return CollectedFiles(root, lambda event: event.collection, written)


def finished(root: Path) -> dict[str, list[int]]:
    """How many lines each finished file of each collection has."""
    assert not list(root.rglob("*.part"))
    return {
        place.name: sorted(len(file.read_bytes().splitlines()) for file in place.iterdir()) for place in root.iterdir()
    }


def test_files_are_finished_at_the_end(tmp_path: Path) -> None:
    collected = files(tmp_path)
    for collection in ("a", "b", "a"):
        assert collected.put(event(collection=collection))
    collected.close()
    assert finished(tmp_path) == {"a": [2], "b": [1]}
    assert not collected.put(event())
    collected.close()


def test_a_full_file_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected_files, "MAX_FILE_BYTES", 10)
    collected = files(tmp_path)
    for _ in range(5):
        collected.put(event(collection="a"))
    collected.close()
    assert finished(tmp_path) == {"a": [1, 2, 2]}


def test_an_old_file_is_finished_without_a_further_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collected_files, "FILE_SECONDS", 0.0)
    finish, done = collected_files._File.finish, threading.Event()

    def told(file: collected_files._File) -> None:
        finish(file)
        done.set()

    monkeypatch.setattr(collected_files._File, "finish", told)
    collected = files(tmp_path)
    collected.put(event(collection="a"))
    assert done.wait(30)
    assert finished(tmp_path) == {"a": [1]}


def test_what_the_queue_cannot_take_is_dropped_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(collected_files, "MAX_EVENTS", 0)
    monkeypatch.setattr(logging.getLogger("inference_server"), "propagate", True)
    collected = files(tmp_path)
    assert [collected.put(event()), collected.put(event())] == [False, False]
    monkeypatch.setattr(collected_files, "MAX_EVENTS", 1)
    monkeypatch.setattr(collected_files, "MAX_WAITING_BYTES", 2)
    assert not collected.put(event(b"three"))
    assert collected.put(event(b"2"))
    collected.close()
    assert "The data collector has dropped 3 events so far." in caplog.text
    assert finished(tmp_path) == {"request": [1]}


def test_an_event_that_cannot_be_written_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("inference_server"), "propagate", True)

    def written(event: Event) -> bytes:
        if event.data == b"bad":
            raise ValueError("no line")
        return b"line\n"

    collected = files(tmp_path, written)
    for data in (b"good", b"bad", b"good"):
        collected.put(event(data))
    collected.close()
    assert finished(tmp_path) == {"request": [2]}
    assert "A collected event is lost: ValueError('no line')" in caplog.text


# -- what scripts import


class Taken:
    def __init__(self, takes: bool = True):
        self.events: list[Event] = []
        self.takes = takes

    def put(self, event: Event) -> bool:
        self.events.append(event)
        return self.takes


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Taken:
    taken = Taken()
    monkeypatch.setattr(monitoring, "_files", taken)
    monkeypatch.setattr(monitoring, "_collections", Collections(frozenset({"inputs"})))
    return taken


def test_a_collector(taken: Taken) -> None:
    context = monitoring.BasicCorrelationContext(id="C", timestamp=60, headers={"X-A": "b"})
    assert monitoring.Collector(name="Inputs").collect(pd.DataFrame({"a": [1]}), context) is context
    (event,) = taken.events
    assert (event.collection, event.correlation_id, event.data) == ("inputs", "C", '[{"a":1}]')
    assert event.at == datetime(1970, 1, 1, 0, 1, tzinfo=UTC)
    assert event.attributes["xa"] == "b"
    made = monitoring.Collector(name="inputs").collect(pd.DataFrame({"a": [1]}))
    assert taken.events[1].correlation_id == made.get_id() == str(made) != ""


@pytest.mark.parametrize(
    ("name", "says"),
    [("", "collection name is not provided"), ("other", "collection other is not enabled, drop the data")],
)
def test_a_collector_that_is_off(taken: Taken, name: str, says: str) -> None:
    with pytest.raises(Exception, match=says):
        monitoring.Collector(name=name)
    errors: list[Exception] = []
    collector = monitoring.Collector(name=name, on_error=errors.append)
    collector.collect(pd.DataFrame())
    assert [str(error) for error in errors] == [says, says]
    assert taken.events == []


def test_a_pause(taken: Taken) -> None:
    collector = monitoring.Collector(name="inputs")
    with monitoring.paused():
        collector.collect(pd.DataFrame())
    assert taken.events == []
    collector.collect(pd.DataFrame())
    assert len(taken.events) == 1


def test_only_dataframes_are_collected(taken: Taken) -> None:
    with pytest.raises(TypeError, match=r"data type \(list\) not supported, supported types: pandas.DataFrame"):
        monitoring.Collector(name="inputs").collect([1])


def test_a_full_queue_is_no_error_of_the_script(taken: Taken) -> None:
    taken.takes = False
    monitoring.Collector(name="inputs").collect(pd.DataFrame())
    errors: list[Exception] = []
    monitoring.Collector(name="inputs", on_error=errors.append).collect(pd.DataFrame())
    assert len(errors) == 1
