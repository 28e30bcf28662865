"""The online server: an asyncio loop in a thread of its own, `run()` on the main thread.

Life: load the script, `init()`, listen, ready; then at SIGTERM or SIGINT drain: the listener is closed, what is in
flight is finished, what still arrives on open connections is answered with `Connection: close`, and the process exits
with 0 once its connections have been quiet for the linger time, or when the drain time is over. A second signal exits
at once. The process outlives its parent; a restarted provisioner adopts it.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
import time
import traceback

from inference_server.connection import Connection, Stream
from inference_server.replies import Reply
from inference_server.scoring import Scoring
from inference_server.settings import Settings
from inference_server.status import StatusFile
from inference_server.workers import Job, Workers

log = logging.getLogger(__name__)

BACKLOG = 1024


class Server:
    """`listener`: a bound socket. `run()` returns when the server has drained."""

    def __init__(self, listener: socket.socket, scoring: Scoring, settings: Settings, status: StatusFile):
        self._listener = listener
        self._status = status
        self._settings = settings
        self.scoring = scoring
        self._loop = asyncio.new_event_loop()
        self._stirred = asyncio.Event()
        self._drain: asyncio.Task[None] | None = None
        self._deadline = 0.0  # of the drain, monotonic seconds
        self.max_body_bytes = settings.max_body_bytes
        self.draining = False
        self.connections: set[Connection] = set()
        self.workers = Workers(settings.concurrency, scoring.score, self._deliver, settings.scoring_timeout_ms / 1000)

    def run(self) -> None:
        """Serves until drained. Call on the main thread, after `init()`."""
        os.register_at_fork(after_in_child=self._listener.close)  # a script's children must not hold the port
        alarm, self._alarm = socket.socketpair()
        alarm.setblocking(False)
        self._alarm.setblocking(False)
        for number in (signal.SIGTERM, signal.SIGINT):
            # Python runs handlers on the main thread, which may be deep in a run(); the bytes reach the loop at once.
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(alarm.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._serve_forever, name="http", daemon=True).start()
        self.workers.run()

    def stirred(self) -> None:
        """Something happened on a connection."""
        if self.draining:
            self._stirred.set()

    # -- on the worker's thread

    def _deliver(self, job: Job, reply: Reply) -> None:
        connection: Connection = job.owner
        if reply.rest is None:
            self._loop.call_soon_threadsafe(connection.finish, job, reply)
            return
        with contextlib.closing(reply.rest):
            if job.request.method == "HEAD":
                self._loop.call_soon_threadsafe(connection.finish, job, reply)
            else:
                self._loop.call_soon_threadsafe(connection.close_stream, job, self._send_pieces(job, reply, connection))

    def _send_pieces(self, job: Job, reply: Reply, connection: Connection) -> bool:
        """Sends a stream as fast as the client takes it. True when it was sent to its end."""
        stream = Stream()
        self._loop.call_soon_threadsafe(connection.open_stream, job, reply, stream)
        try:
            for piece in reply.rest or ():
                if not stream.ready.wait(self._settings.send_timeout_seconds):
                    log.error("A client took nothing of a streamed answer for too long; it is dropped.")
                    return False
                if stream.gone:
                    return False
                stream.ready.clear()
                self._loop.call_soon_threadsafe(connection.send_piece, job, piece)
        except BaseException:
            log.error("Encountered Exception in a streamed answer: %s", traceback.format_exc())
            return False
        return True

    # -- on the loop's thread

    def _serve_forever(self) -> None:
        try:
            asyncio.set_event_loop(self._loop)
            self._loop.run_until_complete(self._serve())
        except BaseException:
            log.critical("The HTTP server failed: %s", traceback.format_exc())
            os._exit(1)

    async def _serve(self) -> None:
        drained = asyncio.Event()
        listener = await self._loop.create_server(lambda: Connection(self), sock=self._listener, backlog=BACKLOG)
        self._loop.add_reader(self._alarm, self._on_signal, listener, drained)
        self._watch()
        self._status.write("ready")
        log.info("Worker with pid %d ready for serving traffic", os.getpid())
        await drained.wait()
        self.workers.stop()
        # From here the main thread ends the process, unless the script holds it up with a run() that was given up
        # or with threads and exit handlers of its own.
        await asyncio.sleep(max(0, self._deadline - time.monotonic()))
        os._exit(0)

    def _on_signal(self, listener: asyncio.Server, drained: asyncio.Event) -> None:
        for number in self._alarm.recv(64):
            if number not in (signal.SIGTERM, signal.SIGINT):
                continue
            if self.draining:
                log.warning("Second signal: exiting at once.")
                os._exit(128 + number)
            self.draining = True
            self._deadline = time.monotonic() + self._settings.drain_seconds
            self._drain = self._loop.create_task(self._finish(listener, drained))

    async def _finish(self, listener: asyncio.Server, drained: asyncio.Event) -> None:
        """Drains, then sets `drained`; exits the process itself where `run()` does not end in time."""
        log.info("Draining: %d connections are open.", len(self.connections))
        for _ in range(2):  # a turn of the loop takes in what already waits in the listener's backlog
            await asyncio.sleep(0)
        listener.close()
        while self.connections and (left := self._deadline - time.monotonic()) > 0:
            self._stirred.clear()
            busy = any(connection.busy for connection in self.connections)
            try:
                linger = left if busy else min(left, self._settings.linger_seconds)
                await asyncio.wait_for(self._stirred.wait(), linger)
            except TimeoutError:
                if not busy:
                    break
        unfinished = sum(connection.busy for connection in self.connections)
        if unfinished:
            log.error("The drain time is over with %d requests unfinished; exiting.", unfinished)
            os._exit(0)
        log.info("Drained; exiting.")
        drained.set()

    def _watch(self) -> None:
        """Answers jobs whose time is up. One timer for all: between two looks no job can become late unseen."""
        now = time.monotonic()
        for job in self.workers.late(now):
            log.error("run() did not finish within %d ms", self._settings.scoring_timeout_ms)
            job.owner.finish(job, self.scoring.timed_out(job.request))
        self._loop.call_later(self.workers.next_deadline(now) - now, self._watch)
