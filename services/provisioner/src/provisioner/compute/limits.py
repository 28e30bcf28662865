"""What an instance type grants, as the files of a control group say it.

PURE: numbers in, names of files with their text out. Sources: the kernel's admin-guide, cgroup-v1 and cgroup-v2.

Page cache counts as the group's memory, but the kernel takes it back before it ends a process: only what cannot be
given back (the heap, /tmp, /dev/shm) can go over the limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from contracts.catalog import InstanceType

PIDS = 1024
"""How many processes and threads an instance may have: numpy asks for few, a fork bomb for all."""

_PERIOD_US = 100_000

OPTIONAL = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max", "memory.oom.group"})
"""Files that kernels without swap accounting, or old ones, do not have."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an instance may use."""

    cpus: float
    memory_bytes: int
    pids: int = PIDS


def limits_of(kind: InstanceType, machine_cpus: int) -> Limits:
    """The limits of an instance type, on a machine that may be smaller."""
    return Limits(min(kind.vcpus, machine_cpus), int(kind.memory_gib * 2**30))


def v1_files(limits: Limits) -> dict[str, Mapping[str, str]]:
    """By controller, files and their text, in the order in which the kernel wants them. Swap is off."""
    memory = str(limits.memory_bytes)
    return {
        "cpu": {"cpu.cfs_period_us": str(_PERIOD_US), "cpu.cfs_quota_us": str(_quota(limits))},
        "cpuacct": {},
        "memory": {"memory.limit_in_bytes": memory, "memory.memsw.limit_in_bytes": memory},
        "pids": {"pids.max": str(limits.pids)},
    }


def v2_files(limits: Limits) -> dict[str, Mapping[str, str]]:
    """As `v1_files`. An instance whose memory is used up ends as a whole."""
    return {
        "cpu": {"cpu.max": f"{_quota(limits)} {_PERIOD_US}"},
        "memory": {"memory.max": str(limits.memory_bytes), "memory.swap.max": "0", "memory.oom.group": "1"},
        "pids": {"pids.max": str(limits.pids)},
    }


def _quota(limits: Limits) -> int:
    # The kernel takes no quota below 1 ms.
    return max(1000, round(limits.cpus * _PERIOD_US))


def numbers(text: str) -> dict[str, int]:
    """The numbers of a flat keyed file (memory.stat, memory.events, memory.oom_control, cpu.stat)."""
    return {name: int(number) for name, _, number in (line.partition(" ") for line in text.splitlines())}


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Where this process stands among control groups: `folders` by controller, all of `version`. In version 2 every
    controller has the same folder."""

    version: int
    folders: Mapping[str, str]


CONTROLLERS = ("cpu", "cpuacct", "memory", "pids")


def hierarchies(own: str, mountinfo: str) -> list[Hierarchy]:
    """Version 2's, then version 1's, as far as they are mounted: from /proc/self/cgroup and /proc/self/mountinfo."""
    paths = {names: path for _, names, path in (line.split(":", 2) for line in own.splitlines())}
    second, first = dict[str, str](), dict[str, str]()
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mounted = before.split(" ")[3:5]
        if kind == "cgroup2" and "" in paths:
            second = dict.fromkeys(("cpu", "memory", "pids"), _below(mounted, root, paths[""]))
        elif kind == "cgroup":
            for names, path in paths.items():
                if names and set(names.split(",")) <= set(options.split(",")):
                    first |= {name: _below(mounted, root, path) for name in names.split(",") if name in CONTROLLERS}
    return [Hierarchy(version, folders) for version, folders in ((2, second), (1, first)) if folders]


def _below(mounted: str, root: str, path: str) -> str:
    """Where the group `path` is to be seen when only what lies below the group `root` is mounted."""
    if root != "/":
        path = path.removeprefix(root) if path == root or path.startswith(f"{root}/") else ""
    return f"{mounted}{path}".rstrip("/")
