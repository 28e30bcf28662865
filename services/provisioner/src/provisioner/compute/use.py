"""What processes use of the machine, from /proc."""

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_FOR_CHILDREN_SECONDS = 10.0


class Use(NamedTuple):
    """CPU seconds since the start, and bytes of resident memory, of a session's processes together. Pages that they
    share are counted for each."""

    cpu_seconds: float
    memory_bytes: int


class Sessions:
    """Reads the use of sessions. To look through all of /proc each second would cost more than many models do, so new
    members of a session are looked for every ten seconds."""

    def __init__(self) -> None:
        self._members: dict[int, list[int]] = {}
        self._looked_at = float("-inf")

    def use(self, leaders: Iterable[int]) -> dict[int, Use]:
        """The use of each leader's session; those that are gone are left out."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_FOR_CHILDREN_SECONDS:
            self._members, self._looked_at = _members(), now
        used = {}
        for leader in leaders:
            if (own := _process(leader)) is None:
                continue
            others = [_process(pid) for pid in self._members.get(leader, ()) if pid != leader]
            parts = [own, *(each for each in others if each is not None)]
            used[leader] = Use(sum(part.cpu_seconds for part in parts), sum(part.memory_bytes for part in parts))
        return used


def _process(pid: int) -> Use | None:
    try:
        # After the command in parentheses: state, ppid, ... utime, stime, cutime, cstime at 11 to 14.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Use(sum(int(field) for field in fields[11:15]) / _TICKS, pages * _PAGE)


def _members() -> dict[int, list[int]]:
    members: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                members.setdefault(os.getsid(int(name)), []).append(int(name))
    return members
