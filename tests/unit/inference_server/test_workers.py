"""Who runs a job, in which order, and when it is late. The clock is the test's own."""

import signal
import threading
from collections.abc import Iterator

import pytest

from inference_server.http import Request
from inference_server.replies import Reply
from inference_server.workers import Job, Workers

TIMEOUT = 10.0


@pytest.fixture(autouse=True)
def _alarm() -> Iterator[None]:
    """Workers take the alarm signal, which pytest-timeout wants back."""
    handler = signal.getsignal(signal.SIGALRM)
    yield
    signal.signal(signal.SIGALRM, handler)


def request(name: str) -> Request:
    return Request("POST", name, {}, b"", http_1_0=False, close=False)


class Bench:
    """Workers whose score() takes note of the job and, for "wait", ends when `go` is set."""

    def __init__(self, count: int):
        self.ran: list[str] = []
        self.delivered: list[tuple[str, bytes]] = []
        self.started, self.go = threading.Event(), threading.Event()
        self.workers = Workers(count, self.score, self.deliver, TIMEOUT)

    def score(self, asked: Request) -> Reply:
        self.ran.append(asked.target)
        if asked.target == "wait":
            self.started.set()
            self.go.wait(20)
        return Reply(b"", asked.target.encode())

    def deliver(self, job: Job, reply: Reply) -> None:
        self.delivered.append((job.owner, reply.body))

    def submit(self, *names: str) -> list[Job]:
        jobs = [Job(request(name), name.upper()) for name in names]
        for job in jobs:
            self.workers.submit(job)
        return jobs


@pytest.fixture
def running() -> Iterator[tuple[Bench, Job]]:
    """A worker, on a thread of its own as the test is on the main one, that is in the middle of the job "wait"."""
    bench = Bench(1)
    (job,) = bench.submit("wait")
    worker = bench.workers.main
    worker.interruptible = False
    thread = threading.Thread(target=bench.workers.work, args=(worker,))
    thread.start()
    bench.started.wait(20)
    yield bench, job
    bench.go.set()
    bench.workers.stop()
    thread.join(20)
    assert not thread.is_alive()


def test_jobs_run_in_order_on_the_calling_thread() -> None:
    bench = Bench(1)
    bench.submit("a", "b", "c")
    bench.workers.stop()
    bench.workers.work(bench.workers.main)
    assert bench.ran == ["a", "b", "c"]
    assert bench.delivered == [("A", b"a"), ("B", b"b"), ("C", b"c")]


def test_a_job_that_is_claimed_before_it_starts_never_runs() -> None:
    bench = Bench(1)
    _, cancelled, _ = bench.submit("a", "b", "c")
    assert cancelled.claim()
    bench.workers.stop()
    bench.workers.work(bench.workers.main)
    assert bench.ran == ["a", "c"]


def test_a_job_that_has_started_cannot_be_claimed(running: tuple[Bench, Job]) -> None:
    _, job = running
    assert not job.claim()


def test_a_job_is_late_once_when_its_time_is_up(running: tuple[Bench, Job]) -> None:
    bench, job = running
    assert list(bench.workers.late(job.started + TIMEOUT - 0.001)) == []
    assert list(bench.workers.late(job.started + TIMEOUT)) == [job]
    assert list(bench.workers.late(job.started + TIMEOUT + 1)) == []


def test_the_next_look_is_at_the_first_deadline(running: tuple[Bench, Job]) -> None:
    bench, job = running
    assert bench.workers.next_deadline(job.started + 4) == job.started + TIMEOUT
    list(bench.workers.late(job.started + TIMEOUT))
    assert bench.workers.next_deadline(job.started + TIMEOUT) == job.started + 2 * TIMEOUT


def test_an_idle_server_looks_again_after_a_whole_timeout() -> None:
    assert Bench(2).workers.next_deadline(5.0) == 5.0 + TIMEOUT
