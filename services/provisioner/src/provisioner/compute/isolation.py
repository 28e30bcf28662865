"""What keeps instances apart and bounded on this machine, and how each one is launched within it.

As root: a user of its own for each instance, no capabilities, and a view of the machine's files that holds only what
it needs. Where control groups can be made: memory, CPU and processes are bounded by the kernel. Elsewhere less is in
force, and `enforcement` says what.
"""

import logging
import marshal
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from provisioner.compute.cgroups import Cgroups, Group
from provisioner.compute.hiding import SHARED, hiding
from provisioner.compute.interpreter import closed_to_others, prefixes, readable_by_others
from provisioner.compute.limits import Limits
from provisioner.compute.prepared import Prepared
from provisioner.compute.records import InstanceFolder
from provisioner.compute.users import USERS, Users

log = logging.getLogger(__name__)

_LAUNCHER = Path(__file__).with_name("launch.py")
_OPEN_FILES = 65_536
_TRY_SECONDS = 10.0


class NotIsolated(OSError):
    """An instance cannot be kept apart as it has to be; the text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Room:
    """What an instance has for itself: its user and group, None where it has none of its own."""

    user: int | None
    group: Group | None


class Isolation:
    """The means of this machine, found out once: what is allowed is what worked."""

    def __init__(self, home: Path, users: range = USERS):
        self._home = home
        self.users = Users(users)
        self.groups = Cgroups.of(home)
        as_root = os.geteuid() == 0
        self.hides = as_root and _works(users[0], hides=True)
        self.switches = self.hides or (as_root and _works(users[0], hides=False))

    @property
    def bounds_memory(self) -> bool:
        """Whether the kernel bounds memory; where it does not, who uses too much is ended within a second or so."""
        return "memory" in self.groups.folders

    def enforcement(self) -> list[str]:
        """What is in force, and what is not, as sentences for people."""
        said = []
        if self.hides:
            said.append("each instance has a user of its own, no capabilities, and sees only the files that it needs")
        elif self.switches:
            said.append(
                "each instance has a user of its own and no capabilities, but sees what others may read (no mount "
                "namespaces here: CAP_SYS_ADMIN); where other users cannot pass on the way to the home, the "
                "environment or its Python, it runs as the services' user instead, which the log says"
            )
        else:
            said.append("instances run as the services' user and can read what it can: run the provisioner as root")
        missing = self.groups.missing
        if not missing:
            said.append(
                f"memory, CPU and processes are bounded by control groups (version {self.groups.version}) as the "
                "instance type says"
            )
            return said
        names = ", ".join(missing)
        said.append(f"control groups cannot be made for {names} (version {self.groups.version}; not writable)")
        said += self._unbounded("the CPU of instances", by_user=self.switches)
        if "pids" in missing and self.switches:
            said.append("the number of processes is bounded by user")
        return said

    def not_enforced(self, user: int | None) -> list[str]:
        """What does not hold for an instance that runs as a `user` of its own (None: as the services'), as parts of a
        sentence for people; empty where everything holds."""
        said = []
        if user is None:
            said.append("it runs as the services' user and can read what that can")
        elif not self.hides:
            said.append("it sees what others may read")
        return said + self._unbounded("its CPU", by_user=user is not None)

    def _unbounded(self, cpu: str, *, by_user: bool) -> list[str]:
        missing = self.groups.missing
        said = []
        if "memory" in missing:
            said.append("memory over that of its type is seen once a second, and ends the instance only then")
        if "cpu" in missing:
            said.append(f"{cpu} is not bounded")
        if "pids" in missing and not by_user:
            said.append("the number of processes is not bounded")
        return said

    def room(self, instance: str, limits: Limits, prepared: Prepared) -> Room:
        """Room for an instance. Raises OSError, with nothing taken."""
        user = self.users.take() if self._own_user(instance, prepared) else None
        group = self.groups.group(instance) if self.groups.folders else None
        try:
            if group is not None:
                group.make(limits)
        except OSError:
            self.give_back(Room(user, None))
            raise
        return Room(user, group)

    def _own_user(self, instance: str, prepared: Prepared) -> bool:
        if self.hides or not self.switches:
            return self.hides
        if closed := _closed([*_needed(prepared), self._home / "instances"]):
            ways = ", ".join(sorted(map(str, closed)))
            log.warning("%s runs as the services' user: others may not pass %s (chmod o+x)", instance, ways)
        return not closed

    def give_back(self, room: Room) -> None:
        """Every process of it has ended. Blocks for a moment."""
        if room.group is not None:
            room.group.remove()
        if room.user is not None:
            self.users.give_back(room.user)

    def instructions(
        self,
        room: Room,
        limits: Limits,
        prepared: Prepared,
        folder: InstanceFolder,
        argv: list[str],
        environment: Mapping[str, str],
    ) -> bytes:
        """What the launcher is told. Raises NotIsolated."""
        hide = None
        if room.user is not None:
            needed = _needed(prepared)
            _check_readable([*needed, *([prepared.model] if prepared.model else [])])
            if self.hides:
                covered = {self._home, *_closed(needed)}
                shared = [path for path in SHARED if path.is_dir()]
                binds = {**dict.fromkeys(needed, False), folder.work: True}
                seen = hiding(binds, covered, shared, limits.memory_bytes)
                hide = {
                    "covers": [(str(path), options) for path, options in seen.covers],
                    "binds": [(str(path), writable) for path, writable in seen.binds],
                }
        told = {
            "joins": room.group.joins if room.group is not None else [],
            "hide": hide,
            "user": room.user,
            "processes": limits.pids,
            "files": _OPEN_FILES,
            "argv": argv,
            "folder": str(folder.work),
            "environment": dict(environment),
        }
        return marshal.dumps(told)


def launcher(instructions: bytes) -> tuple[list[str], int]:
    """The command that launches by `instructions`, and the descriptor that it must inherit. Close it afterwards."""
    descriptor = os.memfd_create("instructions", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(instructions)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return [sys.executable, "-I", "-S", str(_LAUNCHER), str(descriptor)], descriptor


def _needed(prepared: Prepared) -> list[Path]:
    """The folders that an instance reads, under every name that is in use."""
    given = (prepared.runtime, prepared.code, prepared.model and prepared.model.parent)
    folders = [path for path in given if path is not None]
    return list(dict.fromkeys([*prefixes(prepared.python), *folders, *(path.resolve() for path in folders)]))


def _closed(paths: Iterable[Path]) -> set[Path]:
    """What lies on the way to any of them and may not be passed by others."""
    return {way for path in paths if (way := closed_to_others(path)) is not None}


def _check_readable(paths: list[Path]) -> None:
    for path in paths:
        if path.exists() and not readable_by_others(path):
            raise NotIsolated(f"the instance's user may not read {path}: chmod -R o+rX {path}")


def _works(user: int, hides: bool) -> bool:
    """Whether the launcher can do it, tried without an instance."""
    told: dict[str, object] = {
        "joins": [],
        "hide": {"covers": [(str(SHARED[0]), "size=4096")], "binds": []} if hides else None,
        "user": user,
        "processes": 1,
        "files": _OPEN_FILES,
        "argv": [],
    }
    command, descriptor = launcher(marshal.dumps(told))
    try:
        done = subprocess.run(command, pass_fds=[descriptor], env={}, capture_output=True, timeout=_TRY_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    finally:
        os.close(descriptor)
    return done.returncode == 0
