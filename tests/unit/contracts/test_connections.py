"""Connections at rest: sealed, each value for its place, readable by their owner only."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pydantic import ValidationError

from contracts.connections import Connection, ConnectionSpec
from contracts.shell.connections import BadConnection, Connections

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def connection(name: str = "aoai", **credentials: str) -> Connection:
    spec = ConnectionSpec(
        type="custom", target="https://there", credentials=credentials, metadata={"Kind": "test"}, tags={"team": "a"}
    )
    return Connection(name=name, created_at=NOON, updated_at=NOON, spec=spec)


def test_it_is_read_as_it_was_put(tmp_path: Path) -> None:
    Connections(tmp_path).put(connection(key="s3cret", other="x" * 32_768))
    again = Connections(tmp_path)
    assert again.names() == ["aoai"]
    assert again.get("aoai") == connection(key="s3cret", other="x" * 32_768)
    assert again.get("none") is None
    assert again.delete("aoai")
    assert not again.delete("aoai")
    assert again.names() == []


def test_no_value_lies_on_the_disk(tmp_path: Path) -> None:
    Connections(tmp_path).put(connection(key="s3cret"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not any(b"s3cret" in path.read_bytes() for path in files)
    folder = tmp_path / "secrets" / "connections"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "aoai.json").stat().st_mode) == 0o600


def test_a_sealed_value_opens_in_its_own_place_only(tmp_path: Path) -> None:
    kept = Connections(tmp_path)
    kept.put(connection("mine", user="me", password="hunter2"))
    path = tmp_path / "secrets" / "connections" / "mine.json"
    document = json.loads(path.read_bytes())
    sealed = document["spec"]["credentials"]
    sealed["user"], sealed["password"] = sealed["password"], sealed["user"]
    path.write_text(json.dumps(document))
    with pytest.raises(BadConnection, match=r"'mine'.*create it again"):
        kept.get("mine")
    path.rename(path.with_name("theirs.json"))
    with pytest.raises(BadConnection, match="theirs"):
        kept.get("theirs")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    kept = Connections(tmp_path)
    kept.put(connection(key="s3cret"))
    (tmp_path / "secrets" / "connections" / "aoai.json").write_bytes(b"{")
    with pytest.raises(BadConnection, match="damaged"):
        kept.get("aoai")


@pytest.mark.parametrize("name", ["ab", "x" * 34, "../seal", "a b c", "-abc", "a.b"])
def test_names(name: str) -> None:
    with pytest.raises(ValidationError):
        connection(name, key="s3cret")


@pytest.mark.parametrize(
    "spec",
    [
        {"type": "custom", "credentials": {"key": ""}},
        {"type": "custom", "credentials": {"key": "a\x00b"}},
        {"type": "custom", "credentials": {"a/b": "c"}},
        {"type": "custom", "credentials": {"key": "x" * 32_769}},
        {"type": "Custom!", "credentials": {}},
        {"type": "custom", "secret": "s3cret"},
    ],
)
def test_specifications(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ConnectionSpec.model_validate(spec)
