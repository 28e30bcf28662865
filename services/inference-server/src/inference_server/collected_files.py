"""Collected events on disk, written by a thread of their own, so that no answer ever waits for the disk.

What `put` cannot take at once is dropped and counted; the count is logged when a file is closed. A file ends in
`.part` while it is written and is renamed when it is finished: after a minute, at 16 MiB, when its folder's time is
over, and at exit. Lines are written whole, so that a `.part` whose process was killed is good up to its last line end.
"""

from __future__ import annotations

import collections
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from inference_server.collection import Event

MAX_EVENTS = 1500  # waiting, as many as Azure's collector keeps
MAX_WAITING_BYTES = 64 * 2**20
MAX_FILE_BYTES = 16 * 2**20
FILE_SECONDS = 60.0
CLOSE_SECONDS = 5.0  # for what is waiting at exit

log = logging.getLogger(__name__)


class _File:
    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.path = folder / f"{uuid4()}.jsonl"
        self.part = self.path.with_name(f"{self.path.name}.part")
        # Without a buffer: a forked child of the script would write what it inherits of one a second time.
        self.stream = self.part.open("xb", buffering=0)
        self.size = 0
        self.opened = time.monotonic()

    def write(self, line: bytes) -> None:
        written = self.stream.write(line)
        if written < len(line):
            self.stream.truncate(self.size)
            self.stream.seek(self.size)
            raise OSError(f"only {written} of {len(line)} bytes could be written to {self.part}")
        self.size += written

    def finish(self) -> None:
        self.stream.close()
        self.part.rename(self.path)


class CollectedFiles:
    def __init__(self, root: Path, place: Callable[[Event], str], written: Callable[[Event], bytes]):
        """`place` gives an event's folder below `root`, `written` its line; both are called by the writing thread."""
        self._root = root
        self._place = place
        self._written = written
        self._start_over()
        os.register_at_fork(after_in_child=self._start_over)  # a worker process writes files of its own

    def _start_over(self) -> None:
        self._waiting: collections.deque[Event] = collections.deque()
        self._waiting_bytes = 0
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._dropped = 0
        self._told = 0  # of the dropped
        self._files: dict[str, _File] = {}

    def put(self, event: Event) -> bool:
        """Whether the event was taken. Never waits and never raises."""
        with self._changed:
            full = len(self._waiting) >= MAX_EVENTS or self._waiting_bytes + event.size > MAX_WAITING_BYTES
            if full or self._closed:
                self._dropped += 1
                return False
            self._waiting.append(event)
            self._waiting_bytes += event.size
            if self._thread is None:
                self._thread = threading.Thread(target=self._write, name="collector", daemon=True)
                self._thread.start()
            self._changed.notify()
            return True

    def close(self) -> None:
        """Writes what is waiting and finishes the files. Later events are dropped."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(CLOSE_SECONDS)

    # -- on the writing thread

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, self._until_old())
                events = list(self._waiting)
                self._waiting.clear()
                self._waiting_bytes = 0
                closed = self._closed
            for event in events:
                self._write_one(event)
            self._finish_old(everything=closed)
            if closed:
                return

    def _write_one(self, event: Event) -> None:
        def write() -> None:
            folder = self._root / self._place(event)
            file = self._files.get(event.collection)
            if file is not None and file.folder != folder:
                self._finish(event.collection)
                file = None
            if file is None:
                file = self._files[event.collection] = _File(folder)
            file.write(self._written(event))
            if file.size >= MAX_FILE_BYTES:
                self._finish(event.collection)

        self._attempt(write)

    def _attempt(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # a full disk, or data that cannot be told as JSON
            with self._changed:
                self._dropped += 1
                first = self._dropped - self._told == 1
            if first:
                log.error("A collected event is lost: %r", error)

    def _until_old(self) -> float | None:
        """Seconds until the oldest file is to be finished; None where there is none."""
        if not self._files:
            return None
        oldest = min(file.opened for file in self._files.values())
        return max(0.0, oldest + FILE_SECONDS - time.monotonic())

    def _finish_old(self, everything: bool) -> None:
        now = time.monotonic()
        for name, file in list(self._files.items()):
            if everything or now >= file.opened + FILE_SECONDS:
                self._finish(name)
        if (everything or not self._files) and self._dropped > self._told:
            log.error("The data collector has dropped %d events so far.", self._dropped)
            self._told = self._dropped

    def _finish(self, collection: str) -> None:
        self._attempt(self._files.pop(collection).finish)
