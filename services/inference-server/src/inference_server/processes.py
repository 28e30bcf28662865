"""Several worker processes behind one listener, for scripts that a single one holds up: `WORKER_COUNT`.

The process that was started loads nothing (or, with `WORKER_PRELOAD`, imports the script once) and forks the workers.
Each worker calls `init()` and serves by itself, all of them accepting from the same listener. This process:

- tells that the instance is ready when all workers are;
- replaces a worker that ends or falls silent, and ends everything with exit code 4 when that is in vain (`deaths`);
- ends everything with exit code 3 when a worker cannot start, for the next one could not either;
- ends when its workers have drained. It tells them by closing a pipe, which also happens when it is killed.

`WORKER_TIMEOUT` is how long a worker may take to start, and how long it may then be silent: its loop, not its `run()`,
gives the sign of life, so a long call is no silence (`SCORING_TIMEOUT_MS` bounds calls). A process that holds the
interpreter's lock, or is stopped, is silent. With one worker there is no second process: `start_limit` bounds its
start, and then nothing watches but the instance's probes, which see the same.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from inference_server.deaths import Deaths
from inference_server.loop import READ, Loop
from inference_server.seats import Row, Seats

if TYPE_CHECKING:
    from inference_server.server import Server

FAILED = 3  # the exit code of a process whose script cannot be served
DYING = 4  # of one whose workers died again and again
LAST_WORDS_SECONDS = 1.0  # for a silent worker to write its stacks before it is killed
_HANDLED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)

log = logging.getLogger(__name__)


class Link:
    """A worker's side: what it tells, and how it learns that it is to end."""

    def __init__(self, pipe: int, life: int, silence_seconds: float, row: Row):
        """`row`: the worker's seats."""
        self.row = row
        self._pipe = pipe
        self._life = life
        self._silence_seconds = silence_seconds
        self._server: Server | None = None

    def failed(self, code: str, message: str) -> None:
        self._say({"code": code, "message": message})

    def attach(self, server: Server) -> None:
        """Before the server runs."""
        self._server = server
        server.loop.watch(self._life, READ, self._on_end)

    def ready(self) -> None:
        """On the server's loop, from then on."""
        self._say("ready")
        self._beat()

    def _beat(self) -> None:
        if self._server is not None:
            self._say("alive")
            self._server.loop.later(self._silence_seconds / 3, self._beat)

    def _on_end(self, _: int) -> None:
        if self._server is not None:
            self._server.loop.forget(self._life)
            self._server.drain()

    def _say(self, what: object) -> None:
        try:
            os.write(self._pipe, json.dumps(what).encode() + b"\n")
        except OSError:  # nobody is left to hear it; the other pipe tells the loop so
            self._server = None


class _Worker:
    def __init__(self, number: int, pid: int, pipe: int):
        self.number = number  # no other worker that lives has it
        self.pid = pid
        self.pipe = pipe
        self.ready = False
        self.heard = time.monotonic()  # started, or last heard of
        self.unread = b""
        self.aborted = False


class Processes:
    def __init__(
        self,
        listener: socket.socket,
        count: int,
        places: int,
        timeout_seconds: float,
        serve: Callable[[Link], int],
        ready: Callable[[], None],
        failed: Callable[[str, str], None],
    ):
        """`places`: calls of `run()` at a time in each worker. `serve` is called in each worker and gives its exit
        code; `ready` and `failed` are called here, once."""
        self._listener = listener
        self._count = count
        self._seats = Seats(count, places)
        self._timeout_seconds = timeout_seconds
        self._serve = serve
        self._ready = ready
        self._failed = failed
        self._loop = Loop()
        self._life, self._end_of_life = os.pipe()
        self._workers: dict[int, _Worker] = {}
        self._told_ready = False
        self._deaths = Deaths(count)
        self._code: int | None = None  # set: no worker is started any more

    def run(self) -> int:
        """Starts and keeps the workers until told to end; the exit code. In a worker it raises SystemExit."""
        for number in _HANDLED:
            signal.signal(number, lambda *_: None)
        self._loop.on_wake(self._on_wake)
        signal.set_wakeup_fd(self._loop.alarm.fileno(), warn_on_full_buffer=False)
        for _ in range(self._count):
            self._start()
        self._look()
        while self._code is None or self._workers:
            self._loop.turn()
        return self._code

    def _start(self) -> None:
        if self._code is not None:
            return
        number = min(set(range(self._count)) - {worker.number for worker in self._workers.values()})
        pipe, theirs = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)  # until the child has no part in this loop any more
        pid = os.fork()
        if pid == 0:
            self._become_worker(number, theirs)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.close(theirs)
        self._workers[pid] = worker = _Worker(number, pid, pipe)
        self._loop.watch(pipe, READ, lambda _: self._hear(worker))

    def _become_worker(self, number: int, pipe: int) -> None:
        signal.set_wakeup_fd(-1)
        for signum in _HANDLED:
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        self._loop.close()
        os.close(self._end_of_life)  # or no worker would see its end
        for other in self._workers.values():
            os.close(other.pipe)
        sys.exit(self._serve(Link(pipe, self._life, self._timeout_seconds, self._seats.of(number))))

    def _hear(self, worker: _Worker) -> None:
        data = os.read(worker.pipe, 65536)
        if not data:
            self._loop.forget(worker.pipe)
            os.close(worker.pipe)
            worker.pipe = -1
            return
        *lines, worker.unread = (worker.unread + data).split(b"\n")
        worker.heard = time.monotonic()
        for line in lines:
            said = json.loads(line)
            if isinstance(said, dict):
                self._give_up(said["code"], said["message"])
            elif said == "ready":
                worker.ready = True
        if not self._told_ready and len(self._workers) == self._count and all(w.ready for w in self._workers.values()):
            self._told_ready = True
            self._ready()

    def _on_wake(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGCHLD:
                self._reap()
            elif number in (signal.SIGTERM, signal.SIGINT):
                if self._code is not None:
                    log.warning("Second signal: exiting at once.")
                    self._kill(signal.SIGKILL, self._workers)
                    os._exit(128 + number)
                self._end(0)

    def _reap(self) -> None:
        for worker in list(self._workers.values()):
            ended, status = os.waitpid(worker.pid, os.WNOHANG)
            if not ended:
                continue
            if worker.pipe >= 0:
                self._hear_all(worker)
            del self._workers[worker.pid]
            self._seats.of(worker.number).take_all()
            if self._code is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            how = f"with exit code {code}" if code >= 0 else f"by signal {-code}"
            if not worker.ready:
                text = f"The worker process {worker.pid} ended {how} before it was ready"
                self._give_up("UserScriptInitFailed", text)
                continue
            wait = self._deaths.wait_after(time.monotonic())
            if wait is None:
                text = f"Worker processes died again and again, the last one, {worker.pid}, {how}"
                hint = (
                    ": the machine's or the instance's memory was probably used up"
                    if code == -signal.SIGKILL and not worker.aborted
                    else ""
                )
                self._give_up("InternalServerError", text + hint, DYING)
                continue
            after = f" after {wait:g} s" if wait else ""
            log.error("The worker process %d ended %s; another one is started%s.", worker.pid, how, after)
            self._loop.later(wait, self._start)

    def _hear_all(self, worker: _Worker) -> None:
        """Its last words. Its own children may still hold the pipe, so its end is not waited for."""
        os.set_blocking(worker.pipe, False)
        try:
            while worker.pipe >= 0:
                self._hear(worker)
        except BlockingIOError:
            self._loop.forget(worker.pipe)
            os.close(worker.pipe)

    def _look(self) -> None:
        """Finds workers that have been silent for too long."""
        now = time.monotonic()
        silent = {pid: w for pid, w in self._workers.items() if now - w.heard >= self._timeout_seconds}
        for worker in silent.values():
            what = "was silent for" if worker.ready else "took longer to start than"
            text = f"The worker process {worker.pid} {what} {self._timeout_seconds:g} s (WORKER_TIMEOUT)"
            log.critical(text)
            worker.heard = now
            worker.aborted = True
            self._kill(signal.SIGABRT, {worker.pid: worker})  # faulthandler writes where it was
            if not worker.ready:
                self._give_up("UserScriptInitFailed", text)
        if silent:
            self._loop.later(LAST_WORDS_SECONDS, lambda: self._kill(signal.SIGKILL, silent))
        oldest = min((worker.heard for worker in self._workers.values()), default=now)
        self._loop.later(max(0.0, oldest + self._timeout_seconds - time.monotonic()), self._look)

    def _give_up(self, code: str, message: str, exit_code: int = FAILED) -> None:
        if self._code is None:
            log.error(message)
            self._failed(code, message)
            self._end(exit_code)

    def _end(self, code: int) -> None:
        """Workers that serve drain; those that start have nothing to finish."""
        self._code = code
        self._listener.close()
        os.close(self._end_of_life)
        starting = {pid: w for pid, w in self._workers.items() if not (w.ready or w.aborted)}
        self._kill(signal.SIGTERM, starting)

    def _kill(self, number: int, workers: dict[int, _Worker]) -> None:
        for pid, worker in workers.items():
            if self._workers.get(pid) is worker:  # it has not been reaped, so the number is still its own
                os.kill(pid, number)
