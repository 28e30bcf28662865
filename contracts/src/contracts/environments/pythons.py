"""Which interpreter an environment gets: the choice (pure), and what is installed on this machine.

Nothing is downloaded: a version that is not there is told with those that are.
"""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

OLDEST = Version("3.9")
"""The inference server runs on it, and on every later one."""


@dataclass(frozen=True, slots=True)
class Interpreter:
    """A CPython of this machine. `open` says whether every user may run it: instances run as one without rights."""

    version: str
    path: str
    open: bool = True

    @property
    def minor(self) -> str:
        """Such as 3.11."""
        return ".".join(self.version.split(".")[:2])


def chosen(specifier: str | None, installed: Sequence[Interpreter], own: str) -> Interpreter | None:
    """The interpreter for a file that asks for `specifier`, or for nothing: then it is of the services' `own` minor
    version. One that everybody may run comes first, then the own minor version, then the newest.

    A patch release (==3.10.4.*; ==3.10 is the first of 3.10) that is not there is stood in for by another of the same
    minor version: they are compatible, and files that tools write name whatever release their author had.
    """
    asked = specifier or f"=={own}.*"
    usable = [one for one in installed if Version(one.version) >= OLDEST]
    found = [one for one in usable if fits(asked, one)]
    if not found and (minor := _pinned(SpecifierSet(asked))):
        found = [one for one in usable if one.minor == minor]
    return max(found, key=lambda one: (one.open, one.minor == own, Version(one.version)), default=None)


def fits(specifier: str, python: Interpreter) -> bool:
    """Whether it is what was asked for."""
    return SpecifierSet(specifier).contains(python.version, prereleases=True)


def _pinned(asked: SpecifierSet) -> str | None:
    """The minor version of which one patch release is asked for."""
    if len(asked) != 1:
        return None
    (only,) = asked
    release = only.version.removesuffix(".*").split(".")
    return ".".join(release[:2]) if only.operator == "==" and len(release) > 1 else None


def wanted(specifier: str) -> str:
    """A specifier as a person would say it: ==3.10.* is 3.10."""
    only = specifier.removeprefix("==").removesuffix(".*")
    return only if only.replace(".", "").isdigit() else specifier


def missing(specifier: str | None, installed: Sequence[Interpreter], own: str) -> str:
    """What a person is told when no interpreter was chosen."""
    usable = {one.minor for one in installed if Version(one.version) >= OLDEST}
    have = ", ".join(sorted(usable, key=Version)) or "none that can be used"
    if specifier is None:
        return f"Python {own}, the services' own, is not on this machine, which has {have}: name one, as in python=3.11"
    asked = SpecifierSet(specifier)
    if _allows(asked, 0, OLDEST.minor) and not _allows(asked, OLDEST.minor, 30):
        return f"Python {wanted(specifier)} is too old: the server needs {OLDEST} or newer, this machine has {have}"
    return f"Python {wanted(specifier)} is not on this machine, which has {have}: install it or change the line"


def _allows(asked: SpecifierSet, first: int, end: int) -> bool:
    """Whether a release of a minor version from `first` and below `end` would do."""
    minors = ["2.7"] * (first == 0) + [f"3.{minor}" for minor in range(first, end)]
    return any(asked.contains(f"{minor}.{patch}") for minor in minors for patch in range(30))


def search_path(environment: Mapping[str, str]) -> str:
    """PATH, with pyenv's switches (which run one version at a time) replaced by the interpreters behind them."""
    folders: list[str] = []
    for folder in environment.get("PATH", os.defpath).split(os.pathsep):
        path = Path(folder)
        # Not `Path.is_dir`, which raises where this user may not look.
        if path.name == "shims" and os.path.isdir(path.parent / "versions"):
            folders += sorted(str(one) for one in (path.parent / "versions").glob("[3-9]*/bin"))
        elif folder:
            folders.append(folder)
    return os.pathsep.join(dict.fromkeys(folders))


def installed(uv: str, environment: Mapping[str, str]) -> list[Interpreter]:
    """The interpreters that uv finds, and the services' own. Blocks for a second at most, the first time."""
    command = [uv, "python", "list", "--only-installed", "--output-format", "json"]
    listed = subprocess.run(command, env=dict(environment), cwd="/", capture_output=True, timeout=60, check=False)
    try:
        rows = json.loads(listed.stdout)
    except ValueError:
        rows = []
    found = {os.path.realpath(sys.executable): ".".join(map(str, sys.version_info[:3]))}
    for row in rows:
        if row["path"] and row["implementation"] == "cpython" and row["variant"] == "default":
            found.setdefault(os.path.realpath(row["path"]), row["version"])
    return [Interpreter(version, path, open_to_all(path)) for path, version in found.items()]


def open_to_all(path: str) -> bool:
    """Whether every user of the machine may run the program at `path`. Nobody but root runs programs as another."""
    if os.geteuid() != 0:
        return True
    return all(os.stat(place).st_mode & stat.S_IXOTH for place in (path, *map(str, Path(path).parents)))
