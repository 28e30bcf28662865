"""Users of instances: numbers without a name or an account, one for each instance while it runs."""

import contextlib
import errno
import os
import secrets
import signal
import time
from collections.abc import Iterator

USERS = range(61184, 65520)
"""systemd's range for users that exist only while their service runs (systemd.exec, DynamicUser=)."""

_PATIENCE_SECONDS = 2.0


class Users:
    """Gives out numbers of `range` that nobody on this machine uses, other homes' instances included."""

    def __init__(self, numbers: range):
        self._numbers = numbers
        self._taken: set[int] = set()

    def take(self) -> int:
        """One that is free. Raises OSError when there is none."""
        busy = self._taken | _seen()
        offset = secrets.randbelow(len(self._numbers))
        for step in range(len(self._numbers)):
            user = self._numbers[(offset + step) % len(self._numbers)]
            if user not in busy:
                self._taken.add(user)
                return user
        raise OSError(errno.EUSERS, f"every user from {self._numbers[0]} to {self._numbers[-1]} has processes")

    def keep(self, user: int) -> None:
        """An adopted instance has it."""
        self._taken.add(user)

    def give_back(self, user: int) -> None:
        """Its instance has ended."""
        self._taken.discard(user)

    def __contains__(self, user: int) -> bool:
        return user in self._numbers


def kill_all_of(user: int) -> None:
    """End every process of `user`, whatever session or parent it gave itself. Blocks for milliseconds."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        alive = [pid for pid, owner in _processes() if owner == user]
        if not alive:
            return
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def _seen() -> set[int]:
    """The users of processes, as quickly as that can be told: who owns the folders in /proc."""
    seen = set[int]()
    with os.scandir("/proc") as entries:
        for entry in entries:
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    seen.add(entry.stat().st_uid)
    return seen


def _processes() -> Iterator[tuple[int, int]]:
    """Every process that lives, with its user; a process can have its folder in /proc given to root, this not."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/status", "rb") as file:
                fields = dict(line.split(b":", 1) for line in file.read().splitlines() if b":" in line)
                if fields[b"State"].split()[0] not in b"ZX":
                    yield int(name), int(fields[b"Uid"].split()[0])
