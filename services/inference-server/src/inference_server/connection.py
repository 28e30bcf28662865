"""One client connection on the loop: requests in order, one at a time, each answered before the next is read.

Keep-alive connections are never closed for being idle: whoever pools them (the router) decides that, and so a pooled
connection can't vanish under a request. A request that arrives while the server drains is answered, with
`Connection: close`.

Everything here is called by the thread that turns the loop. `run()` may be called from in here, see `relay`; another
thread may turn the loop meanwhile, and then the rest is left to it.
"""

from __future__ import annotations

import logging
import socket
import threading
from typing import TYPE_CHECKING

from inference_server.http import Continue, ProtocolError, Request, RequestParser
from inference_server.loop import BROKEN, GONE, READ, WRITE
from inference_server.replies import Reply
from inference_server.workers import Job

if TYPE_CHECKING:
    from inference_server.server import Server

log = logging.getLogger(__name__)

READ_BYTES = 64 * 1024
MAX_AHEAD_BYTES = 64 * 1024  # of pipelined requests that are taken in while one is being answered
MAX_UNSENT_BYTES = 64 * 1024  # what a client may leave untaken before nothing more is made for it
REFUSED_SECONDS = 2.0  # for a refused client to read the reason while it may still be sending

_KEEP = b"\r\n"
_CLOSE = b"Connection: close\r\n\r\n"


class Connection:
    def __init__(self, server: Server, client: socket.socket):
        self._server = server
        self._loop = server.loop
        self._socket = client
        self._fd = client.fileno()
        self._parser = RequestParser(server.max_body_bytes)
        self._events = READ
        self._unsent = bytearray()
        self._job: Job | None = None
        self._stream: Stream | None = None
        self._client_done = False  # it will send nothing more
        self._closing = False  # when all is sent
        self._refused = False
        self._closed = False
        self.takes_a_place = True  # of run(), as far as is known: what it last asked for, or will, was not a probe
        self._loop.watch(self._fd, READ, self._on_events)

    @property
    def busy(self) -> bool:
        """A request is arriving, being answered, or its answer is not yet sent."""
        return (self._job is not None or self._parser.mid_request or bool(self._unsent)) and not self._refused

    # -- what the socket tells

    def _on_events(self, events: int) -> None:
        try:
            if events & BROKEN:
                self._close()
                return
            if events & WRITE:
                self._send_rest()
            if events & READ and not self._closed:
                self._read(bool(events & GONE))
        except Exception:
            log.critical("A connection failed", exc_info=True)
            self._close()

    def _read(self, client_done: bool) -> None:
        try:
            data = self._socket.recv(READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close()
            return
        if not data:
            self._read_end()
            return
        if self._refused or self._closing:
            return
        self._client_done = client_done
        self._parser.feed(data)
        if self._server.draining:
            self._server.stirred()
        if self._job is None:
            self._advance()
        elif self._parser.buffered > MAX_AHEAD_BYTES:
            self._listen(False)

    def _read_end(self) -> None:
        """A client that half-closes is gone, unless `run()` is already working for it."""
        job = self._job
        if job is None or job.claim():
            if self._unsent and job is None:
                self._closing = True
                self._listen(False)
            else:
                self._close()
        else:
            job.request.close = True
            self._listen(False)

    def _listen(self, on: bool) -> None:
        events = (READ if on else 0) | (WRITE if self._unsent else 0)
        if events != self._events and not self._closed:
            self._events = events
            self._loop.change(self._fd, events)

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.forget(self._fd)
        self._socket.close()
        self._server.connections.discard(self)
        if self._job is not None:
            self._job.claim()  # if it has not started, it never will
            self._job = None
        if self._stream is not None:
            self._stream.end()
        self._server.stirred()

    # -- requests

    def _advance(self) -> None:
        """Answers what has arrived, up to one call of `run()`."""
        while self._job is None and len(self._unsent) <= MAX_UNSENT_BYTES and not (self._closing or self._closed):
            try:
                event = self._parser.next_event()
            except ProtocolError as error:
                self._refuse(error)
                return
            if event is None:
                if not self._events & READ:
                    self._listen(True)
                return
            if isinstance(event, Continue):
                self._send(b"HTTP/1.1 100 Continue\r\n\r\n")
                continue
            reply = self._server.scoring.answer(event)
            if reply is not None:
                self.takes_a_place = False
                self._write(event, reply)
            elif self._client_done:
                self._close()  # nobody waits for this run()
            else:
                self.takes_a_place = True
                job = self._job = Job(event, self)
                self._server.relay.start(job)
                return

    def _refuse(self, error: ProtocolError) -> None:
        """Closing at once would reset the connection and lose the answer while the client is still sending."""
        reply = self._server.scoring.refused(error.status, error.text)
        self._refused = True
        self._send(b"".join((reply.head, _CLOSE, reply.body)))
        if not self._unsent and not self._closed:
            self._say_end()
        self._loop.later(REFUSED_SECONDS, self._close)

    def finish(self, job: Job, reply: Reply) -> None:
        """The whole reply to a job. Without effect where the job was answered before or its client is gone."""
        if job is not self._job:
            return
        self._job = None
        request, server = job.request, self._server
        if not server.has_room(self):
            request.close = True
        self._write(request, reply)
        if server.draining:
            server.stirred()
        if self._parser.mid_request:
            self._loop.soon(self._advance)  # after the other connections
        elif not self._events & READ:
            self._listen(not self._closing)

    def _write(self, request: Request, reply: Reply) -> None:
        self._closing = close = request.close or self._server.draining
        body = b"" if request.method == "HEAD" else reply.body
        self._send(reply.head + (_CLOSE if close else _KEEP) + body)

    # -- bytes

    def _send(self, data: bytes) -> None:
        """Sends what the client takes and keeps the rest; closes after it where that was asked for."""
        if self._closed:
            return
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError:
            self._close()
            return
        if sent < len(data):
            self._unsent += memoryview(data)[sent:]
            self._listen(bool(self._events & READ))
        elif self._closing:
            self._close()

    def _send_rest(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self._close()
            return
        del self._unsent[:sent]
        if not self._unsent:
            self._listen(bool(self._events & READ))
            if self._closing:
                self._close()
                return
            if self._refused:
                self._say_end()
        if len(self._unsent) <= MAX_UNSENT_BYTES:
            if self._stream is not None:
                self._stream.ready.set()
            if not self._refused:
                self._loop.soon(self._advance)
        self._server.stirred()

    def _say_end(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            self._close()

    # -- streams

    def open_stream(self, job: Job, reply: Reply, stream: Stream) -> None:
        if job is not self._job:
            stream.end()
            return
        self._stream = stream
        job.request.close = job.request.close or self._server.draining or not self._server.has_room(self)
        framing = b"" if job.request.http_1_0 else b"Transfer-Encoding: chunked\r\n"
        self._send(b"".join((reply.head, framing, _CLOSE if job.request.close else _KEEP)))
        self.send_piece(job, reply.body)

    def send_piece(self, job: Job, piece: bytes) -> None:
        if job is not self._job or self._stream is None:
            return
        if piece:
            self._send(piece if job.request.http_1_0 else b"%x\r\n%b\r\n" % (len(piece), piece))
        if self._stream is not None and len(self._unsent) <= MAX_UNSENT_BYTES:
            self._stream.ready.set()

    def close_stream(self, job: Job, complete: bool) -> None:
        """Ends the stream. One that broke off is cut, so that the client can tell."""
        if job is not self._job:
            return
        self._job = self._stream = None
        if not complete:
            self._close()
            return
        self._closing = job.request.close or self._server.draining
        if not job.request.http_1_0:
            self._send(b"0\r\n\r\n")
        elif self._closing and not self._unsent:
            self._close()
        self._server.stirred()
        self._advance()


class Stream:
    """The worker's side of a streamed reply: `ready` when the client has taken what was sent."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.gone = False

    def end(self) -> None:
        """The client is gone: whoever waits for it need not."""
        self.gone = True
        self.ready.set()
