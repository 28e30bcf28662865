"""The JVM's start-up cache: used when it is there, and never half written."""

from pathlib import Path

import pytest

from endpunkt_infra.kafka import jvm
from endpunkt_infra.kafka.broker import new_cluster_id
from endpunkt_infra.kafka.jars import Installation, Jar


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return jvm.start_up_cache(Installation(tmp_path, ()))


def test_the_cache_is_beside_the_jars_and_of_these_options(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.parent == tmp_path
    monkeypatch.setattr(jvm, "OPTIONS", (*jvm.OPTIONS, "-Xss256k"))
    assert jvm.start_up_cache(Installation(tmp_path, ())) != cache


def test_it_is_used_only_when_it_is_there(cache: Path) -> None:
    assert jvm.using(cache) == ()
    cache.touch()
    assert jvm.using(cache) == (f"-XX:AOTCache={cache}", "-XX:+VerifySharedSpaces")


def test_a_complete_recording_becomes_the_cache(cache: Path) -> None:
    recording, another = jvm.new_recording(cache), jvm.new_recording(cache)
    recording.write_text("complete")
    another.write_text("another broker's, under way")
    jvm.settle(recording, complete=True)
    assert cache.read_text() == "complete"
    assert sorted(cache.parent.iterdir()) == sorted([cache, another])


def test_an_incomplete_recording_is_removed_with_its_remnants(cache: Path) -> None:
    recording = jvm.new_recording(cache)
    recording.write_text("half")
    recording.with_name(recording.name + ".config").touch()
    jvm.settle(recording, complete=False)
    assert not list(cache.parent.iterdir())


def test_a_broker_that_recorded_nothing_leaves_no_cache(cache: Path) -> None:
    jvm.settle(jvm.new_recording(cache), complete=True)
    assert not list(cache.parent.iterdir())


def test_the_command_names_each_jar(tmp_path: Path) -> None:
    jars = tuple(Jar("g", name, "1", "", "") for name in ("b", "a"))
    command = jvm.command(Installation(tmp_path, jars), ("-Dx=y",), "some.Main", "argument")
    assert command[-5:] == ["-Dx=y", "-cp", f"{tmp_path}/b-1.jar:{tmp_path}/a-1.jar", "some.Main", "argument"]


def test_a_cluster_id_is_kafkas_and_never_looks_like_an_option() -> None:
    ids = {new_cluster_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(text) == 22 and not text.startswith("-") for text in ids)
