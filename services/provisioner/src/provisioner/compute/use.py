"""What processes use of the machine, from /proc: for instances whose control group does not count it."""

import contextlib
import os
import time
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
_LOOK_FOR_CHILDREN_SECONDS = 10.0


class Use(NamedTuple):
    """CPU seconds since the start, and bytes of memory that cannot be given back. From /proc it is resident memory,
    and pages that processes share are counted for each."""

    cpu_seconds: float
    memory_bytes: int


class Sessions:
    """Reads the use of sessions, and of users who have one instance each. To look through all of /proc each second
    would cost more than many models do, so new members are looked for every ten seconds."""

    def __init__(self) -> None:
        self._members: list[tuple[int, int, int]] = []
        self._looked_at = float("-inf")

    def use(self, leader: int, user: int | None = None) -> Use | None:
        """The use of the leader's session, and of all processes of `user`; None when the leader is gone."""
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_FOR_CHILDREN_SECONDS:
            self._members, self._looked_at = _members(), now
        if (own := _process(leader)) is None:
            return None
        others = (
            _process(pid)
            for pid, session, owner in self._members
            if pid != leader and (session == leader or owner == user)
        )
        parts = [own, *(each for each in others if each is not None)]
        return Use(sum(part.cpu_seconds for part in parts), sum(part.memory_bytes for part in parts))


def _process(pid: int) -> Use | None:
    try:
        # After the command in parentheses: state, ppid, ... utime, stime, cutime, cstime at 11 to 14.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Use(sum(int(field) for field in fields[11:15]) / _TICKS, pages * _PAGE)


def _members() -> list[tuple[int, int, int]]:
    """Every process with its session and its user."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                members.append((int(name), os.getsid(int(name)), os.stat(f"/proc/{name}").st_uid))
    return members
