"""One client connection on the event loop: requests in order, one at a time, each answered before the next is read.

Keep-alive connections are never closed for being idle: whoever pools them (the router) decides that, and so a pooled
connection can't vanish under a request. A request that arrives while the server drains is answered, with
`Connection: close`.
"""

import asyncio
import threading
from typing import Protocol, cast

from inference_server.http import Continue, ProtocolError, Request, RequestParser
from inference_server.replies import Reply
from inference_server.scoring import Scoring
from inference_server.workers import Job, Workers

MAX_AHEAD_BYTES = 64 * 1024  # of pipelined requests that are taken in while one is being answered
REFUSED_SECONDS = 2.0  # for a refused client to read the reason while it may still be sending

_KEEP = b"\r\n"
_CLOSE = b"Connection: close\r\n\r\n"


class Owner(Protocol):
    """What a connection needs of its server."""

    workers: Workers
    draining: bool
    max_body_bytes: int
    scoring: Scoring
    connections: set["Connection"]

    def stirred(self) -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, server: Owner):
        self._server = server
        self._parser = RequestParser(server.max_body_bytes)
        self._transport: asyncio.Transport
        self._job: Job | None = None
        self._stream: Stream | None = None
        self._writable = True
        self._refused = False

    @property
    def busy(self) -> bool:
        """A request is arriving, being answered, or its answer is not yet sent."""
        return (
            self._job is not None or self._parser.mid_request or self._transport.get_write_buffer_size() > 0
        ) and not self._refused

    # -- what the transport tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.add(self)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._parser.feed(data)
        if self._server.draining:
            self._server.stirred()
        if self._job is None and self._writable:
            self._advance()
        elif self._parser.buffered > MAX_AHEAD_BYTES:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        """A client that half-closes is gone, unless `run()` is already working for it."""
        job = self._job
        if job is None or job.claim():
            self._job = None
            return False
        job.request.close = True
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        if self._job is not None:
            self._job.claim()  # if it has not started, it never will
            self._job = None
        if self._stream is not None:
            self._stream.end()
        self._server.stirred()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._stream is not None:
            self._stream.ready.set()
        self._advance()

    # -- requests

    def _advance(self) -> None:
        while self._job is None and self._writable and not self._transport.is_closing():
            try:
                event = self._parser.next_event()
            except ProtocolError as error:
                self._refuse(error)
                return
            if event is None:
                self._transport.resume_reading()
                return
            if isinstance(event, Continue):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                continue
            reply = self._server.scoring.answer(event)
            if reply is None:
                self._job = self._server.workers.submit(event, self)
            else:
                self._write(event, reply)

    def _refuse(self, error: ProtocolError) -> None:
        """Closing at once would reset the connection and lose the answer while the client is still sending."""
        reply = self._server.scoring.refused(error.status, error.text)
        self._transport.write(b"".join((reply.head, _CLOSE, reply.body)))
        self._refused = True
        if self._transport.can_write_eof():
            self._transport.write_eof()
        asyncio.get_running_loop().call_later(REFUSED_SECONDS, self._transport.close)

    def finish(self, job: Job, reply: Reply) -> None:
        """The whole reply to a job. Without effect where the job was answered before or its client is gone."""
        if job is not self._job:
            return
        self._job = None
        self._write(job.request, reply)
        self._server.stirred()
        self._advance()

    def _write(self, request: Request, reply: Reply) -> None:
        close = request.close or self._server.draining
        body = b"" if request.method == "HEAD" else reply.body
        self._transport.write(b"".join((reply.head, _CLOSE if close else _KEEP, body)))
        if close:
            self._transport.close()

    # -- streams

    def open_stream(self, job: Job, reply: Reply, stream: "Stream") -> None:
        if job is not self._job:
            stream.end()
            return
        self._stream = stream
        job.request.close = job.request.close or self._server.draining
        framing = b"" if job.request.http_1_0 else b"Transfer-Encoding: chunked\r\n"
        self._transport.write(b"".join((reply.head, framing, _CLOSE if job.request.close else _KEEP)))
        self.send_piece(job, reply.body)

    def send_piece(self, job: Job, piece: bytes) -> None:
        if job is not self._job or self._stream is None:
            return
        if piece:
            self._transport.write(piece if job.request.http_1_0 else b"%x\r\n%b\r\n" % (len(piece), piece))
        if self._writable:
            self._stream.ready.set()

    def close_stream(self, job: Job, complete: bool) -> None:
        """Ends the stream. One that broke off is cut, so that the client can tell."""
        if job is not self._job:
            return
        self._job = self._stream = None
        if not complete:
            self._transport.abort()
        elif not job.request.http_1_0:
            self._transport.write(b"0\r\n\r\n")
        if job.request.close or self._server.draining:
            self._transport.close()
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
