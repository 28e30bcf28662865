"""What this machine has, as far as this process may use it."""

import contextlib
import os
from pathlib import Path

from provisioner.core.world import Machine

_CGROUP = Path("/sys/fs/cgroup")


def this_machine(cgroup: Path = _CGROUP) -> Machine:
    """Cores and memory; less where the container around all this is bounded (control groups of both versions)."""
    cores = float(len(os.sched_getaffinity(0)))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    second = _words(cgroup / "cpu.max")
    first = [*_words(cgroup / "cpu" / "cpu.cfs_quota_us"), *_words(cgroup / "cpu" / "cpu.cfs_period_us")]
    for share in (second, first):
        # "max", or -1 in version 1, is no bound.
        if len(share) == 2 and share[0].isdecimal():
            cores = min(cores, int(share[0]) / int(share[1]))
    for limit in (*_words(cgroup / "memory.max"), *_words(cgroup / "memory" / "memory.limit_in_bytes")):
        if limit.isdecimal():
            memory = min(memory, int(limit))
    return Machine(cores, memory / 2**30)


def _words(file: Path) -> list[str]:
    with contextlib.suppress(OSError):
        return file.read_text().split()
    return []
