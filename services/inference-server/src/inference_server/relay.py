"""Who turns the loop: a thread of its own, or the main thread between two calls of a quick `run()`.

Handing a request to the main thread and its reply back costs several times what serving it costs. So a script whose
last calls were all quick is run where its request was read: the main thread takes the loop over. It gives it back
after the first call that was not quick; and if a call does not end at all, the other thread, which looks every 20
milliseconds while there are calls, takes the loop from under it. Health checks and all other connections are so
answered during any `run()`, whatever it did before. `run()` itself stays on the main thread.

With more than one call at a time the loop stays in its own thread.
"""

from __future__ import annotations

import contextlib
import queue
import threading

from inference_server.loop import Loop
from inference_server.replies import Reply
from inference_server.workers import Job, Workers

QUICK_SECONDS = 0.001
QUICK_CALLS = 16  # in a row, before the main thread takes the loop
QUEUED_AT_ONCE = 16  # calls, each of them quick or the last one, between two looks at the sockets
# A call that is seen in two looks loses the loop. Each look takes the interpreter from a call for a moment: at 5 ms all
# of them together cost each of 12,000 requests a second 2 us.
LOOK_SECONDS = 0.02


class Relay:
    def __init__(self, loop: Loop, workers: Workers, main_may_turn: bool):
        self._loop = loop
        self._workers = workers
        self._main_may_turn = main_may_turn
        self._main_turns = False
        self._change = threading.Lock()  # of the above
        self._main_wants = False
        self._given: queue.SimpleQueue[None] = queue.SimpleQueue()  # the loop, to the main thread
        self._bell: queue.SimpleQueue[None] = queue.SimpleQueue()  # calls the other thread
        self._watched = False  # the other thread looks at the main one's calls
        self._calls = 0
        self._stopped = False

    # -- on the thread that turns the loop

    def start(self, job: Job) -> None:
        """Runs the job here and now, or submits it. In either case its owner gets `finish(job, reply)` or a stream.

        When this returns, the loop may be another thread's.
        """
        if self._main_turns and self._workers.jobs.empty():
            job.claim()
            self._run_here(job)
        else:
            self._workers.submit(job)

    def stop(self) -> None:
        """Ends `work` and `stand_by`."""
        self._stopped = True
        self._workers.stop()
        self._bell.put(None)

    # -- on the main thread

    def work(self) -> None:
        """Calls `run()` until `stop`."""
        workers = self._workers
        workers.start()
        quick = 0
        while (job := workers.next_job()) is not None:
            reply = workers.main.run(job)
            quick = quick + 1 if _was_quick(job, reply) else 0
            if reply is not None:
                workers.deliver(job, reply)
            if quick >= QUICK_CALLS and self._main_may_turn:
                self._turn_here()
                quick = 0

    def _turn_here(self) -> None:
        self._main_wants = True
        self._loop.wake()
        self._given.get()
        if not self._workers.jobs.empty():
            self._loop.soon(self._run_queued)
        while self._main_turns and not self._stopped:
            self._loop.turn()

    def _run_queued(self) -> None:
        """Jobs that were submitted before the main thread had the loop come first, a few in each turn. As long as some
        are left, what is read joins them: so many at once that they come to an end."""
        for _ in range(QUEUED_AT_ONCE):
            if not self._main_turns or self._stopped:
                return
            try:
                job = self._workers.jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None and job.claim():
                self._run_here(job)
        self._loop.soon(self._run_queued)

    def _run_here(self, job: Job) -> None:
        self._calls += 1
        if not self._watched:
            self._watched = True
            self._bell.put(None)
        reply = self._workers.main.run(job)
        quick = _was_quick(job, reply)
        with self._change:
            mine = self._main_turns
            self._main_turns = mine and quick
        if mine and quick:
            job.owner.finish(job, reply)
            return
        if mine:
            self._bell.put(None)
        if reply is not None:
            self._workers.deliver(job, reply)

    # -- on the loop's own thread

    def stand_by(self) -> None:
        """Turns the loop, or watches the main thread do it, until `stop`."""
        while not self._stopped:
            while not self._main_wants and not self._stopped:
                self._loop.turn()
            if self._main_wants:
                self._main_wants = False
                self._main_turns = True
                self._given.put(None)
                while self._main_turns and not self._stopped:
                    self._watch()

    def _watch(self) -> None:
        """One look. Nothing wakes this thread while the server is idle."""
        if not self._watched:
            self._bell.get()
            return
        running, calls = self._workers.main.running, self._calls
        with contextlib.suppress(queue.Empty):
            self._bell.get(timeout=LOOK_SECONDS)
        with self._change:
            if running is not None and self._workers.main.running is running:
                self._main_turns = False
        if calls == self._calls and self._workers.main.running is None:
            self._watched = False
            # A call that began before it could see that flag is watched all the same.
            self._watched = self._workers.main.running is not None


def _was_quick(job: Job, reply: Reply | None) -> bool:
    """A stream never is: it is sent as fast as its client takes it."""
    return job.took < QUICK_SECONDS and reply is not None and reply.rest is None
