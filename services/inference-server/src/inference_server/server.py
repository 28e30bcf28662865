"""The online server: a loop of sockets that a thread of its own and the main thread turn by turns (`relay`), `run()`
always on the main thread.

Life: load the script, `init()`, listen, ready; then at SIGTERM or SIGINT drain: the listener is closed, what is in
flight is finished, what still arrives on open connections is answered with `Connection: close`, and the process exits
with 0 once its connections have been quiet for the linger time, or when the drain time is over. A second signal exits
at once. The process outlives its parent; a restarted provisioner adopts it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import socket
import threading
import time
import traceback
from collections.abc import Callable

from inference_server.connection import Connection, Stream
from inference_server.loop import GONE, READ, Loop, Timer
from inference_server.relay import Relay
from inference_server.replies import Reply
from inference_server.scoring import Scoring
from inference_server.seats import Row
from inference_server.settings import Settings
from inference_server.workers import Job, Workers

log = logging.getLogger(__name__)

BACKLOG = 1024
BREATH_SECONDS = 1.0  # before accepting again where there was no descriptor or memory for a connection
YIELD_SECONDS = 0.01  # in which another process may take a connection that this one has no room for
PATIENCE_SECONDS = 2.0  # for an idle process to take it, which may be starved by others or have been stopped


class Server:
    """`listener`: a bound socket. `run()` returns when the server has drained.

    `ready` is called on the loop's thread when requests are taken. `row`: this process's seats, where it shares the
    listener with others.
    """

    def __init__(
        self,
        listener: socket.socket,
        scoring: Scoring,
        settings: Settings,
        ready: Callable[[], None],
        row: Row | None = None,
    ):
        self._listener = listener
        self._ready = ready
        self._settings = settings
        self._row = row
        self._places = settings.places
        self.scoring = scoring
        self.loop = Loop()
        self._deadline = 0.0  # of the drain, monotonic seconds
        self._drain_timer = Timer(lambda: None)
        self.max_body_bytes = settings.max_body_bytes
        self.draining = False
        self._signalled = False
        self.connections: set[Connection] = set()
        self.workers = Workers(self._places, scoring.score, self._deliver, settings.scoring_timeout_ms / 1000, row)
        self.relay = Relay(self.loop, self.workers, main_may_turn=self._places == 1)

    def run(self) -> None:
        """Serves until drained. Call on the main thread, after `init()`."""
        os.register_at_fork(after_in_child=self._listener.close)  # a script's children must not hold the port
        for number in (signal.SIGTERM, signal.SIGINT):
            # Python runs handlers on the main thread, which may be deep in a run(); the bytes reach the loop at once.
            signal.signal(number, lambda *_: None)
        self.loop.on_wake(self._on_wake)
        signal.set_wakeup_fd(self.loop.alarm.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._serve_forever, name="http", daemon=True).start()
        try:
            self.relay.work()
        except BaseException:
            self._fail()

    def stirred(self) -> None:
        """Something happened on a connection."""
        if self.draining:
            self.loop.soon(self._settle)

    def has_room(self, connection: Connection) -> bool:
        """Whether this process may keep a connection after an answer.

        One of several processes keeps no more than it can run at once. So as long as the clients together ask for no
        more than all processes can run, none of them waits in one process while another is idle.
        """
        return self._row is None or self._taken(except_for=connection) < self._places

    def _taken(self, except_for: Connection | None = None) -> int:
        return sum(other.takes_a_place for other in self.connections if other is not except_for)

    # -- on the worker's thread

    def _deliver(self, job: Job, reply: Reply) -> None:
        connection: Connection = job.owner
        if reply.rest is None:
            self.loop.soon(connection.finish, job, reply)
            return
        with contextlib.closing(reply.rest):
            if job.request.method == "HEAD":
                self.loop.soon(connection.finish, job, reply)
            else:
                self.loop.soon(connection.close_stream, job, self._send_pieces(job, reply, connection))

    def _send_pieces(self, job: Job, reply: Reply, connection: Connection) -> bool:
        """Sends a stream as fast as the client takes it. True when it was sent to its end."""
        stream = Stream()
        self.loop.soon(connection.open_stream, job, reply, stream)
        most, size = self._settings.max_response_bytes, len(reply.body)
        try:
            for piece in reply.rest or ():
                size += len(piece)
                if size > most:
                    log.error("A streamed answer is cut: it has more than ENDPUNKT_MAX_RESPONSE_BYTES=%d.", most)
                    return False
                if not stream.ready.wait(self._settings.send_timeout_seconds):
                    log.error("A client took nothing of a streamed answer for too long; it is dropped.")
                    return False
                if stream.gone:
                    return False
                stream.ready.clear()
                self.loop.soon(connection.send_piece, job, piece)
        except BaseException:
            log.error("Encountered Exception in a streamed answer: %s", traceback.format_exc())
            return False
        return True

    # -- on the loop's thread

    def _serve_forever(self) -> None:
        try:
            self._listener.setblocking(False)
            self._listener.listen(BACKLOG)
            self._listen()
            self._watch()
            if self._row is not None:
                self._row.free_all()
            self._ready()
            log.info("Worker with pid %d ready for serving traffic", os.getpid())
            self.relay.stand_by()
        except BaseException:
            self._fail()
        # From here the main thread ends the process, unless the script holds it up with a run() that was given up
        # or with threads and exit handlers of its own.
        time.sleep(max(0, self._deadline - time.monotonic()))
        _exit(0)

    @staticmethod
    def _fail() -> None:
        log.critical("The HTTP server failed: %s", traceback.format_exc())
        _exit(1)

    def _listen(self) -> None:
        if not self.draining:
            self.loop.watch(self._listener.fileno(), READ & ~GONE, self._on_connections)

    def _on_connections(self, _: int) -> None:
        if self._row is not None and self._taken() >= self._places:
            self.loop.forget(self._listener.fileno())
            self.loop.later(YIELD_SECONDS, lambda: self._accept_what_is_left(time.monotonic() + PATIENCE_SECONDS))
        else:
            self._accept()

    def _accept_what_is_left(self, patient_until: float) -> None:
        """A process that runs all that it can takes a connection only where no other would run its request sooner."""
        if self.draining:
            return
        busy = self._row is not None and self._row.others_have_free and not self._row.has_free
        if busy and time.monotonic() < patient_until:
            self.loop.later(YIELD_SECONDS, lambda: self._accept_what_is_left(patient_until))
            return
        self._listen()
        self._accept()

    def _accept(self) -> bool:
        """Takes one connection, if one waits."""
        try:
            client, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return False
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            log.error("Cannot take a connection: %s", error)
            self.loop.forget(self._listener.fileno())
            self.loop.later(BREATH_SECONDS, self._listen)
            return False
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections.add(Connection(self, client))
        return True

    def _on_wake(self, numbers: bytes) -> None:
        for number in numbers:
            if number not in (signal.SIGTERM, signal.SIGINT):
                continue
            if self._signalled:
                log.warning("Second signal: exiting at once.")
                os._exit(128 + number)
            self._signalled = True
            self.drain()

    def drain(self) -> None:
        """Takes in what waits in the listener's backlog and nothing after it, and ends when all is answered."""
        if self.draining:
            return
        self._deadline = time.monotonic() + self._settings.drain_seconds
        log.info("Draining: %d connections are open.", len(self.connections))
        while self._accept():
            pass
        with contextlib.suppress(KeyError):
            self.loop.forget(self._listener.fileno())
        self._listener.close()
        self.draining = True
        self._settle()

    def _settle(self) -> None:
        """Ends the server when nothing is left to do; otherwise looks again when something happens or time is up."""
        self._drain_timer.cancel()
        left = self._deadline - time.monotonic()
        if not self.connections:
            self._end()
        elif any(connection.busy for connection in self.connections):
            self._drain_timer = self.loop.later(left, self._give_up)
        else:
            self._drain_timer = self.loop.later(max(0, min(left, self._settings.linger_seconds)), self._end)

    def _give_up(self) -> None:
        unfinished = sum(connection.busy for connection in self.connections)
        log.error("The drain time is over with %d requests unfinished; exiting.", unfinished)
        _exit(0)

    def _end(self) -> None:
        log.info("Drained; exiting.")
        self.relay.stop()

    def _watch(self) -> None:
        """Answers jobs whose time is up. One timer for all: between two looks no job can become late unseen."""
        now = time.monotonic()
        for job in self.workers.late(now):
            log.error("run() did not finish within %d ms", self._settings.scoring_timeout_ms)
            job.owner.finish(job, self.scoring.timed_out(job.request))
        self.loop.later(self.workers.next_deadline(now) - now, self._watch)


def _exit(code: int) -> None:
    """Without exit handlers, which may be the script's and may hang; what was collected is finished all the same."""
    from inference_server import monitoring

    monitoring.close()
    os._exit(code)
