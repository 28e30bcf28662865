"""Who calls `run()`: the main thread and, for a concurrency above one, more threads beside it.

A script's `run()` is on the main thread as it is on Azure: there `asyncio.run`, `signal` and libraries that insist on
the main thread work, and a call that outlives its deadline can be interrupted by a signal, even in the middle of a
system call. Calls on the other threads cannot be interrupted in Python: they are answered in time, but their thread
stays taken until `run()` returns.

Jobs are started in the order in which they were submitted. A job that has not started can be cancelled.
"""

from __future__ import annotations

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from inference_server.http import Request
from inference_server.replies import Reply
from inference_server.seats import Row


class ScoringTimeout(TimeoutError):
    """Raised inside a `run()` whose time is up, as Azure's server does."""


class Job:
    """One call of `run()`; `owner` is whoever waits for it and means nothing here."""

    __slots__ = ("_unclaimed", "late", "owner", "request", "started", "took")

    def __init__(self, request: Request, owner: Any):
        self.request = request
        self.owner = owner
        self.started = 0.0  # monotonic seconds
        self.took = 0.0  # seconds, when it has ended
        self.late = False
        self._unclaimed = [True]

    def claim(self) -> bool:
        """True for exactly one caller: the worker that starts the job or whoever cancels it before."""
        try:
            self._unclaimed.pop()  # one thread alone can take what a list holds
        except IndexError:
            return False
        return True


class Worker:
    """One thread that calls `run()`; `running` is what its user code is busy with."""

    def __init__(self, score: Callable[[Request], Reply], place: int, row: Row | None):
        self._score = score
        self._place = place
        self._row = row
        self.interruptible = place == 0
        self.running: Job | None = None
        self._interrupted: Job | None = None

    def run(self, job: Job) -> Reply | None:
        """The reply to a job that the caller has claimed; None when its time was up, for it has been answered."""
        if self._row is not None:
            self._row.take(self._place)
        reply = None
        self.running = job
        job.started = time.monotonic()
        try:
            reply = self._score(job.request)
            self.running = None
        except ScoringTimeout:
            self.running = None
        job.took = time.monotonic() - job.started
        if self._row is not None:  # before the client can see its answer and ask again
            self._row.free(self._place)
        return reply

    def on_alarm(self, signum: int, frame: FrameType | None) -> None:
        """Once for each late job; an alarm that comes after its job has ended does nothing."""
        job = self.running
        if job is not None and job.late and job is not self._interrupted:
            self._interrupted = job
            raise ScoringTimeout


class Workers:
    def __init__(
        self,
        count: int,
        score: Callable[[Request], Reply],
        deliver: Callable[[Job, Reply], None],
        timeout_seconds: float,
        row: Row | None = None,
    ):
        """`score` and `deliver` are called on the worker's thread and raise nothing. `row` has a seat for each
        worker."""
        self.deliver = deliver
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.timeout_seconds = timeout_seconds
        self.main, *self._others = (Worker(score, place, row) for place in range(count))

    def start(self) -> None:
        """Starts the threads beside the main one, which calls this."""
        signal.signal(signal.SIGALRM, self.main.on_alarm)
        for number, worker in enumerate(self._others, start=1):
            threading.Thread(target=self.work, args=(worker,), name=f"run-{number}", daemon=True).start()

    def work(self, worker: Worker) -> None:
        """The loop of a worker's thread, until `stop`."""
        while (job := self.next_job()) is not None:
            reply = worker.run(job)
            if reply is not None:
                self.deliver(job, reply)

    def next_job(self) -> Job | None:
        """Waits for a job that nobody has cancelled; None when it is time to stop."""
        while (job := self.jobs.get()) is not None and not job.claim():
            pass
        return job

    def stop(self) -> None:
        """Each worker ends after the job that it has, if any."""
        for _ in (self.main, *self._others):
            self.jobs.put(None)

    def submit(self, job: Job) -> None:
        self.jobs.put(job)

    def late(self, now: float) -> Iterator[Job]:
        """The jobs whose deadline has passed since the last call; those that can be are interrupted."""
        for worker in (self.main, *self._others):
            job = worker.running
            if job is None or job.late or now < job.started + self.timeout_seconds:
                continue
            job.late = True
            yield job
            if worker.interruptible and signal.getsignal(signal.SIGALRM) == worker.on_alarm:
                signal.pthread_kill(_main_thread_id(), signal.SIGALRM)

    def next_deadline(self, now: float) -> float:
        """When to call `late` again: no job can become late before."""
        running = (worker.running for worker in (self.main, *self._others))
        started = [job.started for job in running if job is not None and not job.late]
        return min([now, *started]) + self.timeout_seconds


def _main_thread_id() -> int:
    identity = threading.main_thread().ident
    if identity is None:
        raise RuntimeError("the main thread has not started")
    return identity
