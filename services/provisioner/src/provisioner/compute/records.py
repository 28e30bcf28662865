"""What is known of an instance on the disk, so that a provisioner that was killed finds its instances again.

<home>/instances/<id>/ holds instance.json (this record) and console.log (the instance's output), which only the
provisioner may write to, and work/: the instance's home and working folder, its user's own. There it writes status.json
(what the inference server says of itself) and collected/ (data that the provisioner fetches); both are read as what
they are, the work of user code.
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from pydantic import ValidationError

from contracts.messages import DeploymentDesired, OnlineDeploymentSpec, Part
from contracts.shell.files import write_atomically
from contracts.shell.processes import ProcessIdentity
from provisioner.compute.cgroups import Group
from provisioner.compute.logs import end_of, last_lines
from provisioner.core.failures import Status
from provisioner.core.lifecycle import Place

_LARGEST_STATUS = 65_536
_LARGEST_TAIL = 65_536
_SHORTEST_DRAIN = 30.0


class InstanceRecord(Part):
    """An instance: which process it is, whose, what it was made of, and what bounds it (`memory_bytes` is what its type
    grants; `user` None: it runs as the provisioner's; `group` None: it has no control group)."""

    id: str
    place: Place
    template: DeploymentDesired
    address: str
    started_at: datetime
    process: ProcessIdentity
    memory_bytes: int | None = None
    user: int | None = None
    group: Group | None = None
    stopping: bool = False

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self.process.pid

    @property
    def drain_seconds(self) -> float:
        """See `drain_seconds`."""
        return drain_seconds(self.spec)

    @property
    def spec(self) -> OnlineDeploymentSpec:
        """The specification that it was started with."""
        assert isinstance(self.template.spec, OnlineDeploymentSpec)
        return self.template.spec


def drain_seconds(spec: OnlineDeploymentSpec) -> float:
    """How long an instance that was told to end may take: a request may run that long."""
    return max(_SHORTEST_DRAIN, spec.request_settings.request_timeout_ms / 1000)


@dataclass(frozen=True, slots=True)
class InstanceFolder:
    """The folder of one instance."""

    path: Path

    @property
    def work(self) -> Path:
        """The instance's own."""
        return self.path / "work"

    @property
    def status_file(self) -> Path:
        """Where the inference server says how it is."""
        return self.work / "status.json"

    @property
    def collected(self) -> Path:
        """Where the inference server puts data that it collects."""
        return self.work / "collected"

    @property
    def console(self) -> Path:
        """Where the instance's output goes."""
        return self.path / "console.log"

    @property
    def older_console(self) -> Path:
        """What came before `console`, once that was too long."""
        return self.path / "console.log.1"

    def make(self, user: int | None) -> None:
        """Make it. Others may pass on the way to the part that is `user`'s (None: ours), and read nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.parent.chmod(0o711)
        self.path.mkdir()
        self.path.chmod(0o711)
        self.work.mkdir(mode=0o700)
        self.collected.mkdir(mode=0o700)
        self.console.touch(mode=0o600, exist_ok=False)
        if user is not None:
            # Its output is its user's too: /dev/stdout opens it anew.
            for path in (self.work, self.collected, self.console):
                os.chown(path, user, user)

    def write(self, record: InstanceRecord) -> None:
        """Keep the record."""
        write_atomically(self.path / "instance.json", record.model_dump_json().encode())

    def read(self) -> InstanceRecord | None:
        """The record; None when there is none that can be read (a start was cut short)."""
        try:
            return InstanceRecord.model_validate_json((self.path / "instance.json").read_bytes())
        except (OSError, ValidationError):
            return None

    def status(self) -> Status | None:
        """What the inference server says; None while it says nothing."""
        with contextlib.suppress(OSError), _open(self.status_file) as file:
            return Status.read(file.read(_LARGEST_STATUS))
        return None

    def log_tail(self) -> bytes:
        """The end of the instance's output, at most 64 KiB."""
        return end_of([self.older_console, self.console], _LARGEST_TAIL)

    def last_lines(self, lines: int, largest: int) -> list[str]:
        """The last `lines` lines of the instance's output, of at most its last `largest` bytes."""
        return last_lines([self.older_console, self.console], lines, largest)

    def trim(self, largest: int) -> None:
        """Bound the output: over `largest` bytes, its end becomes console.log.1 and it begins anew. The process
        appends, so it goes on at the new beginning; what it writes during the copy is lost."""
        with contextlib.suppress(FileNotFoundError):
            if self.console.stat().st_size <= largest:
                return
            with self.console.open("r+b") as file, self.older_console.open("wb") as older:
                file.seek(-largest, os.SEEK_END)
                shutil.copyfileobj(file, older, 1 << 20)
                file.truncate(0)

    def keep_console(self, target: Path) -> None:
        """Move the output to `target`. What was in it before it was bounded last comes along only where the newest
        part says little."""
        with contextlib.suppress(OSError):
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self.console.stat().st_size < _LARGEST_TAIL and self.older_console.exists():
                write_atomically(target, self.log_tail())
            else:
                self.console.replace(target)

    def remove(self) -> None:
        """Remove all of it. Blocks for as long as there are files."""
        shutil.rmtree(self.path, ignore_errors=True)


def _open(path: Path) -> BinaryIO:
    """A file in a folder that user code may write: a link must not lead elsewhere, a pipe not make the reader wait."""
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(f"{path} is no regular file")
    return file


def folders(root: Path) -> Iterator[InstanceFolder]:
    """The folders of every instance, those that still run and those that do not."""
    if root.exists():
        yield from (InstanceFolder(path) for path in sorted(root.iterdir()) if path.is_dir())
