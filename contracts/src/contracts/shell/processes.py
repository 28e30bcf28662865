"""Which process is meant: a pid alone may belong to another one meanwhile; with its start time and the boot it may not.

Signals go through a pidfd, so nothing that merely inherited a pid is ever touched. None of it needs a child.
"""

import contextlib
import os
import select
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process of this machine, now or in the past. `started` is in clock ticks since `boot` (proc(5))."""

    pid: int
    started: int
    boot: str

    @classmethod
    def of(cls, pid: int) -> "ProcessIdentity | None":
        """The process that has `pid` now; None when there is none, or only its remains."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except (FileNotFoundError, ProcessLookupError):
            return None
        # "pid (name) state ppid …": the name may itself hold spaces and parentheses.
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else cls(pid, int(fields[19]), boot)

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self

    def send(self, number: signal.Signals) -> None:
        """Signal this process; nothing happens when it is gone."""
        with self._handle() as handle:
            if handle is not None:
                signal.pidfd_send_signal(handle, number)

    def wait(self, seconds: float | None) -> bool:
        """Block until it is gone, at most `seconds` (None: as long as it takes); whether it is."""
        with self._handle() as handle:
            if handle is None:
                return True
            exited = select.poll()
            exited.register(handle, select.POLLIN)
            return bool(exited.poll(None if seconds is None else seconds * 1000))

    def terminate(self, patience: float) -> bool:
        """Stop it: SIGTERM, and SIGKILL after `patience` seconds. Whether SIGTERM was enough."""
        self.send(signal.SIGTERM)
        if self.wait(patience):
            return True
        self.send(signal.SIGKILL)
        self.wait(None)
        return False

    @contextlib.contextmanager
    def _handle(self) -> Iterator[int | None]:
        """A descriptor that means this one process whatever becomes of its pid; None when it is gone."""
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            # It may end by itself before a signal reaches it.
            with contextlib.suppress(ProcessLookupError):
                yield handle if self.alive else None
        finally:
            os.close(handle)
