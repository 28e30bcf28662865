"""Usage that Kafka has not taken, on disk: no stop and no kill takes it along. <home>/usage/<source>.json has it.

The file also holds the source's last epoch: the next one is larger, whatever the clock says. Who tells usage as a
source holds its lock: a process that is replaced may still tell its last requests, and what an earlier epoch tells
after a later one would count no more.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote, unquote

from pydantic import BaseModel, ValidationError

from contracts.messages import UsageRecorded
from contracts.shell.files import write_atomically

log = logging.getLogger(__name__)

Interval = Sequence[UsageRecorded]


class _Kept(BaseModel):
    epoch: int = 0
    intervals: list[list[UsageRecorded]] = []


class Unsent:
    """What `source` has not sent. Where the disk fails, the log says so and the router goes on. `is_former`: whether a
    source is none of today's, so that what it left is this one's to send."""

    def __init__(self, home: Path, source: str, is_former: Callable[[str], bool] = lambda _: False):
        self._is_former = is_former
        self._folder = home / "usage"
        self._file = self._folder / f"{quote(source, safe='')}.json"
        self._locks: dict[Path, int] = {}
        self._others: list[Path] = []

    def last_epoch(self) -> int:
        """The epoch of whoever was this source before; 0 where nobody was."""
        try:
            return _read(self._file).epoch
        except OSError as error:
            log.error("the usage in %s cannot be read: %s", self._file, error)
            return 0

    def claim(self) -> bool:
        """Become the one process that tells usage as this source; False while another one lives."""
        try:
            return self._lock(self._file)
        except OSError as error:
            log.error("usage cannot be kept under %s: %s", self._folder, error)
            return True

    def take(self) -> list[Interval]:
        """The intervals that were left here, in order: this source's, and those of former ones. They stay on disk until
        `keep`."""
        intervals: list[Interval] = []
        others = [file for file in self._folder.glob("*.json") if self._is_former(unquote(file.stem))]
        for file in (self._file, *others):
            try:
                if self._lock(file):
                    intervals += _read(file).intervals
                    if file != self._file:
                        self._others.append(file)
            except OSError as error:
                log.error("the usage in %s cannot be read: %s", file, error)
        if intervals:
            log.info("%d intervals of usage are left from before and are sent now", len(intervals))
        return intervals

    def keep(self, epoch: int, intervals: Sequence[Interval]) -> bool:
        """Have these on disk, and no others; whether they are."""
        kept = _Kept(epoch=epoch, intervals=[list(interval) for interval in intervals if interval])
        try:
            write_atomically(self._file, kept.model_dump_json().encode(), 0o600)
            for other in self._others:  # what they held is sent, or in our file
                other.unlink(missing_ok=True)
                os.close(self._locks.pop(other))
            self._others.clear()
        except OSError as error:
            log.error("usage cannot be kept in %s: %s", self._file, error)
            return False
        return True

    def release(self) -> None:
        """Let another process be this source."""
        while self._locks:
            os.close(self._locks.popitem()[1])

    def _lock(self, file: Path) -> bool:
        if file in self._locks:
            return True
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(file.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[file] = descriptor
        return True


def _read(file: Path) -> _Kept:
    try:
        return _Kept.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return _Kept()
    except ValidationError as error:
        aside = file.with_suffix(".unreadable")
        log.error("%s is no file of usage and is put aside as %s: %s", file, aside, error)
        os.replace(file, aside)
        return _Kept()
