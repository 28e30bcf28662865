"""The jars of the embedded Kafka: what the lock says, and that nothing else gets into the cache."""

import hashlib
import re
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from endpunkt_infra.kafka import CONFIG, KafkaUnavailableError, jars
from endpunkt_infra.kafka.jars import Jar

CONTENTS = {"a-1.0.jar": b"content of a", "b-2.0-linux.jar": b"content of b"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


LOCK = f"""
[metadata]
jgo_version = "2.0.0"

[[dependencies]]
groupId = "org.example"
artifactId = "a"
version = "1.0"
packaging = "jar"
sha256 = "{sha256(CONTENTS["a-1.0.jar"])}"

[[dependencies]]
groupId = "org.example"
artifactId = "b"
version = "2.0"
classifier = "linux"
sha256 = "{sha256(CONTENTS["b-2.0-linux.jar"])}"
"""


class Registry:
    """Stands in for the download: serves bytes by file name and counts."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self.contents = contents
        self.served: list[str] = []

    def fetch(self, jar: Jar, directory: Path) -> Path:
        self.served.append(jar.filename)
        if jar.filename not in self.contents:
            raise RuntimeError("not found in remote repositories")
        file = directory / jar.group / jar.filename
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.contents[jar.filename])
        return file


@pytest.fixture
def lock_file(tmp_path: Path) -> Path:
    file = tmp_path / "jgo.lock.toml"
    file.write_text(LOCK)
    return file


def installed(cache: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in cache.glob("kafka/*/*.jar")}


def test_the_lock_names_each_jar_in_order() -> None:
    assert [(jar.group, jar.filename) for jar in jars.read_lock(LOCK.encode(), Path("x"))] == [
        ("org.example", "a-1.0.jar"),
        ("org.example", "b-2.0-linux.jar"),
    ]


@pytest.mark.parametrize(
    ("lock", "told"),
    [
        ("= broken", ["not TOML"]),
        ("", ["no dependencies"]),
        ('[[dependencies]]\nartifactId = "a"\nversion = "1"', ["dependency 1 (a) has no groupId, sha256"]),
        (LOCK.replace(sha256(CONTENTS["a-1.0.jar"]), "abc"), ["dependency 1 (a)", "64 hexadecimal digits: abc"]),
        (LOCK.replace('packaging = "jar"', 'packaging = "pom"'), ["packaging is pom"]),
        # Every problem at once.
        (LOCK.replace('version = "', 'release = "'), ["dependency 1 (a) has no version", "dependency 2 (b) has no"]),
    ],
)
def test_a_bad_lock_is_told_with_its_place_and_the_next_step(lock: str, told: list[str]) -> None:
    with pytest.raises(KafkaUnavailableError) as error:
        jars.read_lock(lock.encode(), Path("some/jgo.lock.toml"))
    for part in ("some/jgo.lock.toml", "jgo lock", *told):
        assert part in str(error.value)


def test_the_committed_lock_is_that_of_the_committed_wish_and_names_no_address() -> None:
    wish, lock = (CONFIG / "jgo.toml").read_bytes(), jars.LOCK_FILE.read_bytes()
    # jgo's own rule: the first 16 digits of the digest of jgo.toml.
    assert f'spec_hash = "{sha256(wish)[:16]}"' in lock.decode()
    assert not re.search(rb"https?:|\brepositor", wish + lock)
    names = [jar.filename for jar in jars.read_lock(lock, jars.LOCK_FILE)]
    assert "kafka_2.13-4.4.0.jar" in names
    assert len(set(names)) == len(names)


def test_what_the_lock_names_is_installed_and_a_second_time_nothing_is_fetched(lock_file: Path, tmp_path: Path) -> None:
    registry = Registry(CONTENTS)
    installation = jars.install(lock_file, tmp_path, registry.fetch)
    assert installed(tmp_path) == CONTENTS
    assert installation.class_path.split(":") == [str(installation.home / name) for name in CONTENTS]
    assert [entry.name for entry in installation.home.parent.iterdir() if entry.is_dir()] == [installation.home.name]

    assert jars.install(lock_file, tmp_path, registry.fetch) == installation
    assert sorted(registry.served) == sorted(CONTENTS)


def test_a_wrong_jar_is_named_with_both_digests_and_removed(lock_file: Path, tmp_path: Path) -> None:
    forged = {**CONTENTS, "b-2.0-linux.jar": b"something else"}
    with pytest.raises(KafkaUnavailableError) as error:
        jars.install(lock_file, tmp_path, Registry(forged).fetch)
    for part in ("b-2.0-linux.jar", sha256(b"content of b"), sha256(b"something else")):
        assert part in str(error.value)
    assert "a-1.0.jar" not in str(error.value)
    assert not list(tmp_path.rglob("b-2.0-linux.jar"))

    # The next install fetches only what is not verified yet.
    honest = Registry(CONTENTS)
    jars.install(lock_file, tmp_path, honest.fetch)
    assert honest.served == ["b-2.0-linux.jar"]
    assert installed(tmp_path) == CONTENTS


def test_every_jar_that_cannot_be_downloaded_is_told_at_once(lock_file: Path, tmp_path: Path) -> None:
    with pytest.raises(KafkaUnavailableError) as error:
        jars.install(lock_file, tmp_path, Registry({}).fetch)
    for name in CONTENTS:
        assert f"{name}: cannot be downloaded: not found" in str(error.value)


def test_concurrent_installs_fetch_once(lock_file: Path, tmp_path: Path) -> None:
    registry = Registry(CONTENTS)
    together = threading.Barrier(4)

    def install(_: int) -> jars.Installation:
        together.wait()
        return jars.install(lock_file, tmp_path, registry.fetch)

    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(install, range(4)))) == 1
    assert sorted(registry.served) == sorted(CONTENTS)
    assert installed(tmp_path) == CONTENTS


def test_verify_tells_what_changed_and_makes_the_next_install_mend_it(lock_file: Path, tmp_path: Path) -> None:
    installation = jars.install(lock_file, tmp_path, Registry(CONTENTS).fetch)
    jars.verify(installation)

    (installation.home / "a-1.0.jar").write_bytes(b"rotten")
    (installation.home / "b-2.0-linux.jar").unlink()
    cache = installation.home / "key.aot"
    cache.touch()
    with pytest.raises(KafkaUnavailableError) as error:
        jars.verify(installation)
    for part in ("a-1.0.jar", sha256(b"rotten"), "b-2.0-linux.jar: missing"):
        assert part in str(error.value)

    jars.install(lock_file, tmp_path, Registry(CONTENTS).fetch)
    jars.verify(installation)
    assert not cache.exists()


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"ENDPUNKT_CACHE": "/chosen", "XDG_CACHE_HOME": "/xdg"}, Path("/chosen")),
        ({"XDG_CACHE_HOME": "/xdg"}, Path("/xdg/endpunkt")),
        ({}, Path.home() / ".cache" / "endpunkt"),
    ],
)
def test_the_cache_is_outside_the_checkout(environ: dict[str, str], expected: Path) -> None:
    assert jars.cache_directory(environ) == expected
