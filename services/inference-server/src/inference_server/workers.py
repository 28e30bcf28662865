"""Who calls `run()`: the main thread and, for a concurrency above one, more threads beside it.

The event loop lives in a thread of its own, so a script's `run()` is on the main thread as it is on Azure: there
`asyncio.run`, `signal` and libraries that insist on the main thread work, and a call that outlives its deadline can be
interrupted by a signal, even in the middle of a system call. Calls on the other threads cannot be interrupted in
Python: they are answered in time, but their thread stays taken until `run()` returns.

Jobs are started in the order in which they were submitted. A job that has not started can be cancelled.
"""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from inference_server.http import Request
from inference_server.replies import Reply


class ScoringTimeout(TimeoutError):
    """Raised inside a `run()` whose time is up, as Azure's server does."""


class Job:
    """One call of `run()`; `owner` is whoever waits for it and means nothing here."""

    __slots__ = ("_claim", "late", "owner", "request", "started")

    def __init__(self, request: Request, owner: Any):
        self.request = request
        self.owner = owner
        self.started = 0.0  # monotonic seconds
        self.late = False
        self._claim = threading.Lock()

    def claim(self) -> bool:
        """True for exactly one caller: the worker that starts the job or whoever cancels it before."""
        return self._claim.acquire(blocking=False)


class _Worker:
    """A thread's loop; `running` is what its user code is busy with."""

    def __init__(self, pool: "Workers", interruptible: bool):
        self._pool = pool
        self.interruptible = interruptible
        self.running: Job | None = None
        self._interrupted: Job | None = None

    def loop(self) -> None:
        pool = self._pool
        while (job := pool.jobs.get()) is not None:
            if not job.claim():
                continue
            job.started = time.monotonic()
            try:
                self.running = job
                reply = pool.score(job.request)
                self.running = None
            except ScoringTimeout:  # it has been answered already
                self.running = None
                continue
            pool.deliver(job, reply)

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
    ):
        """`score` and `deliver` are called on the worker's thread and raise nothing."""
        self.score = score
        self.deliver = deliver
        self.jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.timeout_seconds = timeout_seconds
        self._workers = [_Worker(self, interruptible=number == 0) for number in range(count)]

    def run(self) -> None:
        """Works on the calling thread, which must be the main one, until `stop`."""
        first, *others = self._workers
        signal.signal(signal.SIGALRM, first.on_alarm)
        for number, worker in enumerate(others, start=1):
            threading.Thread(target=worker.loop, name=f"run-{number}", daemon=True).start()
        first.loop()

    def stop(self) -> None:
        """Each worker ends after the job that it has, if any."""
        for _ in self._workers:
            self.jobs.put(None)

    def submit(self, request: Request, owner: Any) -> Job:
        job = Job(request, owner)
        self.jobs.put(job)
        return job

    def late(self, now: float) -> Iterator[Job]:
        """The jobs whose deadline has passed since the last call; those that can be are interrupted."""
        for worker in self._workers:
            job = worker.running
            if job is None or job.late or now < job.started + self.timeout_seconds:
                continue
            job.late = True
            yield job
            if worker.interruptible and signal.getsignal(signal.SIGALRM) == worker.on_alarm:
                signal.pthread_kill(_main_thread_id(), signal.SIGALRM)

    def next_deadline(self, now: float) -> float:
        """When to call `late` again: no job can become late before."""
        running = (worker.running for worker in self._workers)
        started = [job.started for job in running if job is not None and not job.late]
        return min([now, *started]) + self.timeout_seconds


def _main_thread_id() -> int:
    identity = threading.main_thread().ident
    if identity is None:
        raise RuntimeError("the main thread has not started")
    return identity
