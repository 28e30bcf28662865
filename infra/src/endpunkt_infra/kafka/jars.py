"""The jars of the embedded Kafka: exactly those of infra/kafka/jgo.lock.toml, in the cache outside the checkout.

jgo downloads (its pure Python client, so no Maven); we verify. jgo compares a download with the registry's own
SHA-1, only warns when they differ, and does not read the SHA-256 of its lock file back. So each jar is hashed
here before it gets its name in the cache.

    $ENDPUNKT_CACHE/kafka/<lock digest>/            complete and verified: it came to be by one rename
    $ENDPUNKT_CACHE/kafka/<lock digest>.partial/    an install under way, or one that a later install resumes
"""

import hashlib
import logging
import os
import shutil
import tomllib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from contracts.shell.files import locked
from endpunkt_infra.kafka import CONFIG, KafkaUnavailableError

LOCK_FILE = CONFIG / "jgo.lock.toml"
_HEXADECIMAL = frozenset("0123456789abcdef")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked artifact, by its Maven coordinates."""

    group: str
    artifact: str
    version: str
    classifier: str
    sha256: str

    @property
    def filename(self) -> str:
        return "-".join(filter(None, (self.artifact, self.version, self.classifier))) + ".jar"


# Downloads one jar somewhere under the directory and returns the file.
Fetch = Callable[[Jar, Path], Path]


@dataclass(frozen=True, slots=True)
class Installation:
    """A directory that holds every jar of one lock file."""

    home: Path
    jars: tuple[Jar, ...]

    @property
    def class_path(self) -> str:
        """Each jar by name, in the order of the lock: the JVM's start-up cache asks for the same list each time."""
        return ":".join(str(self.home / jar.filename) for jar in self.jars)


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where downloads are kept: $ENDPUNKT_CACHE, else endpunkt in the XDG cache directory."""
    if chosen := environ.get("ENDPUNKT_CACHE"):
        return Path(chosen).expanduser().resolve()
    return Path(environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endpunkt"


def read_lock(content: bytes, source: Path) -> tuple[Jar, ...]:
    """The jars that a lock file names. Raises KafkaUnavailableError that tells every problem of the file."""
    try:
        entries = tomllib.loads(content.decode()).get("dependencies", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise KafkaUnavailableError(f"{source}: not TOML: {error}; renew it with jgo lock") from error
    problems, jars = [], []
    for number, entry in enumerate(entries, 1):
        where = f"dependency {number} ({entry.get('artifactId', 'unnamed')})"
        missing = [key for key in ("groupId", "artifactId", "version", "sha256") if not entry.get(key)]
        if missing:
            problems.append(f"{where} has no {', '.join(missing)}")
        elif len(entry["sha256"]) != 64 or not _HEXADECIMAL.issuperset(entry["sha256"]):
            problems.append(f"{where}: sha256 is not 64 hexadecimal digits: {entry['sha256']}")
        elif entry.get("packaging", "jar") != "jar":
            problems.append(f"{where}: packaging is {entry['packaging']}, not jar")
        else:
            jars.append(
                Jar(
                    entry["groupId"],
                    entry["artifactId"],
                    entry["version"],
                    entry.get("classifier", ""),
                    entry["sha256"],
                )
            )
    if not entries:
        problems.append("no dependencies")
    if problems:
        raise KafkaUnavailableError(f"{source}: {'; '.join(problems)}; renew it with jgo lock")
    return tuple(jars)


def download(jar: Jar, directory: Path) -> Path:
    """Fetch by jgo into `directory`. Mirrors come from jgo's own settings file ([repositories])."""
    # Here, not above: a warm start needs neither jgo nor the third of a second that its import takes.
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=directory, timeout=30)
    context.remote_repos.update(GlobalSettings.load().repositories)
    component = context.project(jar.group, jar.artifact).at_version(jar.version)
    file: Path = component.artifact(jar.classifier, "jar").resolve()
    return file


def install(lock_file: Path = LOCK_FILE, cache: Path | None = None, fetch: Fetch = download) -> Installation:
    """Make sure the jars are there; no network and no hashing when they are. Safe to call from many processes."""
    content = lock_file.read_bytes()
    jars = read_lock(content, lock_file)
    home = (cache or cache_directory()) / "kafka" / hashlib.sha256(content).hexdigest()[:16]
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with locked(home.with_suffix(".lock")):
            if not home.is_dir():
                log.info("installing the %d jars of Apache Kafka into %s", len(jars), home)
                _fill(home.with_suffix(".partial"), jars, fetch)
                home.with_suffix(".partial").rename(home)
    return Installation(home, jars)


def verify(installation: Installation) -> None:
    """Hash every installed jar again. Bad ones are removed, so that the next install fetches them anew."""
    home, partial = installation.home, installation.home.with_suffix(".partial")
    with locked(home.with_suffix(".lock")):
        problems = {jar: problem for jar in installation.jars if (problem := _mismatch(jar, home / jar.filename))}
        if problems:
            # Out of its name first: only a complete directory may bear it.
            home.rename(partial)
            for jar in problems:
                (partial / jar.filename).unlink(missing_ok=True)
            for cache in partial.glob("*.aot*"):  # the JVM takes a start-up cache only with the very files it saw
                cache.unlink()
    if problems:
        raise KafkaUnavailableError(
            "\n".join(problems.values()) + "\nWhat was bad is removed; the next start fetches it again."
        )


def _fill(partial: Path, jars: tuple[Jar, ...], fetch: Fetch) -> None:
    downloads = partial / "downloads"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)

    def fill(jar: Jar) -> str | None:
        target = partial / jar.filename
        if target.exists():  # verified by an install that was interrupted later
            return None
        try:
            file = fetch(jar, downloads)
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's own RuntimeErrors
            return f"{jar.filename}: cannot be downloaded: {error}"
        if problem := _mismatch(jar, file):
            file.unlink()
            return problem
        with file.open("rb") as written:
            os.fsync(written.fileno())  # the rename must not outlive the content
        file.replace(target)
        return None

    with ThreadPoolExecutor(4) as pool:
        problems = [problem for problem in pool.map(fill, jars) if problem]
    shutil.rmtree(downloads)
    if problems:
        raise KafkaUnavailableError(
            "\n".join(problems) + f"\nWhat was verified is kept in {partial}; the next start resumes from there."
        )


def _mismatch(jar: Jar, file: Path) -> str | None:
    try:
        with file.open("rb") as content:
            actual = hashlib.file_digest(content, "sha256").hexdigest()
    except FileNotFoundError:
        return f"{jar.filename}: missing"
    if actual == jar.sha256:
        return None
    return f"{jar.filename}: the lock expects SHA-256 {jar.sha256}, this file has {actual}; it was removed"
