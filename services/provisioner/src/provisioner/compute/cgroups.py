"""Control groups of instances: made, joined by the launcher, read, killed, removed.

They lie below the provisioner's own group, so whatever bounds the provisioner bounds its instances too:
<own group>/endpunkt-<short id of the home>/<instance>. Version 2 forbids processes in a group that has groups below
it; there the processes of the own group (which a service manager or a container gave to Endpunkt) move into the group
endpunkt-services beside it.
"""

import contextlib
import errno
import hashlib
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from provisioner.compute.limits import CONTROLLERS, OPTIONAL, Limits, hierarchies, numbers, v1_files, v2_files
from provisioner.compute.use import Use

_SERVICES = "endpunkt-services"
_NANOSECONDS, _MICROSECONDS = 1e9, 1e6
_PATIENCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Group:
    """One instance's group: a folder for each controller, the same one in version 2."""

    version: int
    folders: dict[str, Path]

    @property
    def joins(self) -> list[str]:
        """The files by which a process joins."""
        return [str(folder / "cgroup.procs") for folder in self._distinct()]

    def make(self, limits: Limits) -> None:
        """Raises OSError, with nothing left."""
        try:
            for controller, files in (v2_files if self.version == 2 else v1_files)(limits).items():
                if (folder := self.folders.get(controller)) is None:
                    continue
                _prepare(self.version, folder.parent, controller)
                folder.mkdir(exist_ok=True)
                for name, text in files.items():
                    if name not in OPTIONAL or (folder / name).exists():
                        (folder / name).write_text(text)
        except OSError:
            self.remove()
            raise

    def use(self) -> Use | None:
        """CPU and the memory that cannot be given back; None when not both are counted."""
        memory = self.folders.get("memory")
        try:
            if self.version == 2 and memory is not None:
                seconds = numbers((memory / "cpu.stat").read_text())["usage_usec"] / _MICROSECONDS
                used, cache = (memory / "memory.current").read_text(), "inactive_file"
            elif memory is not None and "cpuacct" in self.folders:
                seconds = int((self.folders["cpuacct"] / "cpuacct.usage").read_text()) / _NANOSECONDS
                used, cache = (memory / "memory.usage_in_bytes").read_text(), "total_inactive_file"
            else:
                return None
            return Use(seconds, max(0, int(used) - numbers((memory / "memory.stat").read_text())[cache]))
        except (OSError, KeyError):
            return None

    def out_of_memory(self) -> bool:
        """Whether the kernel ended a process of it because its memory was used up."""
        if (memory := self.folders.get("memory")) is None:
            return False
        with contextlib.suppress(OSError):
            events = memory / ("memory.events" if self.version == 2 else "memory.oom_control")
            return numbers(events.read_text()).get("oom_kill", 0) > 0
        return False

    def peak_bytes(self) -> int | None:
        """The most memory that it ever had, page cache included; None where the kernel does not say."""
        if (memory := self.folders.get("memory")) is None:
            return None
        try:
            return int((memory / ("memory.peak" if self.version == 2 else "memory.max_usage_in_bytes")).read_text())
        except OSError:
            return None

    def kill(self) -> None:
        """End every process in it, whatever session or parent it gave itself. Blocks for milliseconds."""
        for folder in self._distinct():
            with contextlib.suppress(OSError):
                (folder / "cgroup.kill").write_text("1")
        if (pids := self.folders.get("pids")) is not None:
            with contextlib.suppress(OSError):
                (pids / "pids.max").write_text("0")  # so that none is born while we kill
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (members := self._members()) and time.monotonic() < deadline:
            for pid in members:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove it; what has not ended yet is waited for, for a moment."""
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for folder in self._distinct():
            while True:
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                        break
                    time.sleep(0.01)
                else:
                    break

    def _members(self) -> list[int]:
        for folder in self._distinct():
            with contextlib.suppress(OSError):
                return [int(pid) for pid in (folder / "cgroup.procs").read_text().split()]
        return []

    def _distinct(self) -> list[Path]:
        return list(dict.fromkeys(self.folders.values()))


class Cgroups:
    """The groups of one home's instances. `folders`: where they lie, by controller."""

    def __init__(self, version: int, folders: dict[str, Path]):
        self.version = version
        self.folders = folders

    @classmethod
    def of(
        cls,
        home: Path,
        own: Path = Path("/proc/self/cgroup"),
        mountinfo: Path = Path("/proc/self/mountinfo"),
    ) -> "Cgroups":
        """Those that this machine lets us make; none at all, with `folders` empty, where it does not."""
        name = f"endpunkt-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
        made: list[Cgroups] = []
        with contextlib.suppress(OSError):
            for hierarchy in hierarchies(own.read_text(), mountinfo.read_text()):
                folders = dict[str, Path]()
                for controller, parent in hierarchy.folders.items():
                    with contextlib.suppress(OSError):
                        base = Path(parent)
                        if hierarchy.version == 2:
                            base = _delegated(base, controller)
                        _prepare(hierarchy.version, base / name, controller)
                        folders[controller] = base / name
                made.append(cls(hierarchy.version, folders))
        for groups in made:
            groups.close()  # they are made again with the first instance
        return max(made, key=lambda each: len(each.folders), default=cls(1, {}))

    def group(self, instance: str) -> Group:
        """An instance's group, which may not exist yet."""
        return Group(self.version, {name: folder / instance for name, folder in self.folders.items()})

    def instances(self) -> Iterator[str]:
        """Those that have a group."""
        for folder in dict.fromkeys(self.folders.values()):
            with contextlib.suppress(OSError):
                yield from (entry.name for entry in os.scandir(folder) if entry.is_dir())

    def close(self) -> None:
        """Leave no group, except where instances run."""
        for folder in dict.fromkeys(self.folders.values()):
            with contextlib.suppress(OSError):
                folder.rmdir()

    @property
    def missing(self) -> list[str]:
        """The controllers that cannot be used."""
        return [name for name in CONTROLLERS if name not in self.folders and (self.version, name) != (2, "cpuacct")]


def _prepare(version: int, home: Path, controller: str) -> None:
    """Make the group of a home's instances, which `controller` can bound. Raises OSError."""
    home.mkdir(exist_ok=True)
    if version == 2:
        (home / "cgroup.subtree_control").write_text(f"+{controller}")


def _delegated(own: Path, controller: str) -> Path:
    """The group whose children `controller` can bound: `own`, after its processes made room. Raises OSError."""
    own = own.parent if own.name == _SERVICES else own
    control = own / "cgroup.subtree_control"
    try:
        control.write_text(f"+{controller}")
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        (own / _SERVICES).mkdir(exist_ok=True)
        for pid in (own / "cgroup.procs").read_text().split():
            with contextlib.suppress(ProcessLookupError):
                (own / _SERVICES / "cgroup.procs").write_text(pid)
        control.write_text(f"+{controller}")
    return own
