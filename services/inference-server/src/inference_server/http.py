"""HTTP/1.1 requests as a sans-IO parser: bytes in, events out.

No socket, no asyncio, no clock and no thread may enter this module. It is strict (RFC 9112): wherever two readers
of the same bytes could disagree about where a request ends, it refuses the connection instead of guessing:
a bare LF, a folded header line, white space before a colon, `Content-Length` together with
`Transfer-Encoding`, lengths that differ, a coding other than `chunked`.

Usage: `feed()` bytes, then call `next_event()` until it returns None (more bytes are needed). Bytes of a later,
pipelined request wait in the parser until they are asked for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from functools import lru_cache

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 1024  # a chunk's size and its extensions, which are ignored

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 (a grammar's token, not a secret)
_REQUEST_LINE = re.compile(rf"({_TOKEN}) ([\x21-\x7e\x80-\xff]+) HTTP/(\d\.\d)")
_FIELD = re.compile(rf"({_TOKEN}):[\t ]*([\t\x20-\x7e\x80-\xff]*)")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_ABSOLUTE = re.compile(r"https?://[^/?]*(.*)", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")


@dataclass
class Request:
    """One complete request. Header names are in lower case; values of a repeated header are joined by a comma."""

    __slots__ = ("body", "close", "headers", "http_1_0", "method", "target")

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    http_1_0: bool  # such a client understands no chunks and its connection is not kept
    close: bool  # the client wants no further request on this connection


class Continue(Enum):
    """The client waits for `100 Continue` before it sends its body."""

    CONTINUE = auto()


class ProtocolError(Exception):
    """The connection cannot be understood any further: answer `status` with `text`, then close it."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status
        self.text = text


# What the parser reads next. Plain numbers: an Enum's members cost more to look up than a comparison.
_READ_HEAD, _READ_LENGTH, _READ_CHUNK_LINE, _READ_CHUNK_DATA, _READ_TRAILERS = range(5)


class RequestParser:
    def __init__(self, max_body_bytes: int):
        self._max_body = max_body_bytes
        self._buffer = b""
        self._at = 0  # how much of the buffer has been read
        self._reading = _READ_HEAD
        self._request: Request  # whose head has been read while its body has not
        self._body = bytearray()
        self._wanted = 0  # bytes still missing of the body (LENGTH) or of the chunk (CHUNK_DATA)

    def feed(self, data: bytes) -> None:
        left = self._buffer[self._at :]
        self._buffer = left + data if left else data
        self._at = 0
        if self._reading == _READ_LENGTH or self._reading == _READ_CHUNK_DATA:
            self._take()

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet returned in an event."""
        return len(self._buffer) - self._at + len(self._body)

    @property
    def mid_request(self) -> bool:
        """A request has begun to arrive and is not complete."""
        return self._reading != _READ_HEAD or self._at < len(self._buffer)

    def next_event(self) -> Request | Continue | None:
        """Raises ProtocolError; the parser must not be used after that."""
        if self._reading == _READ_HEAD:
            event = self._read_head()
            if event is not None or self._reading == _READ_HEAD:
                return event
        if self._reading == _READ_LENGTH:
            return None if self._wanted else self._finish()
        return self._read_chunks()

    def _take(self) -> None:
        """Moves what belongs to the body there."""
        part = self._buffer[self._at : self._at + self._wanted]
        self._body += part
        self._at += len(part)
        self._wanted -= len(part)

    def _read_head(self) -> Request | Continue | None:
        buffer, at = self._buffer, self._at
        if buffer.startswith(b"\r\n", at):  # one empty line before a request is allowed (RFC 9112, 2.2)
            self._at = at = at + 2
        end = buffer.find(b"\r\n\r\n", at)
        if end < 0:
            if _BARE_LF.search(buffer, at):
                raise ProtocolError(400, "A header line ends with a bare LF.")
            if len(buffer) - at > MAX_HEAD_BYTES:
                raise self._long_head()
            return None
        if end + 4 - at > MAX_HEAD_BYTES:
            raise self._long_head()
        self._at = end + 4
        return self._begin(buffer[at:end].decode("latin-1"))

    def _begin(self, head: str) -> Request | Continue | None:
        first, *lines = head.split("\r\n")
        method, target, http_1_0 = _request_line(first)
        headers = dict(map(_field, lines))
        if len(headers) < len(lines):
            headers = _joined(lines)
        if "host" not in headers and not http_1_0:
            raise ProtocolError(400, "The Host header is missing.")
        close = http_1_0 or ("connection" in headers and _says_close(headers["connection"]))
        request = Request(method, target, headers, b"", http_1_0, close)
        # How the body ends: RFC 9112, 6.3.
        if "transfer-encoding" in headers:
            self._begin_chunks(request)
        elif "content-length" in headers:
            wanted = self._length(headers["content-length"])
            end = self._at + wanted
            if end <= len(self._buffer):  # it has come with its head
                request.body = self._buffer[self._at : end]
                self._at = end
                return request
            self._reading, self._wanted = _READ_LENGTH, wanted
            self._take()
        else:
            return request
        self._request = request
        if "expect" in headers and not http_1_0:
            if headers["expect"].lower() != "100-continue":
                raise ProtocolError(417, "The only expectation understood is '100-continue'.")
            if not self.buffered:
                return Continue.CONTINUE
        return None

    def _length(self, length: str) -> int:
        if "," in length:
            length = _the_same(length.split(","))
        if not length.isascii() or not length.isdigit():
            raise ProtocolError(400, "Content-Length is not a number.")
        if len(length) > 18 or int(length) > self._max_body:
            raise self._too_large()
        return int(length)

    def _begin_chunks(self, request: Request) -> None:
        if "content-length" in request.headers:
            raise ProtocolError(400, "Both Content-Length and Transfer-Encoding.")
        if request.http_1_0:
            raise ProtocolError(400, "Transfer-Encoding in an HTTP/1.0 request.")
        if request.headers["transfer-encoding"].lower() != "chunked":
            raise ProtocolError(501, "The only Transfer-Encoding understood is a single 'chunked'.")
        self._reading = _READ_CHUNK_LINE

    def _read_chunks(self) -> Request | None:
        buffer = self._buffer
        while True:
            if self._reading == _READ_CHUNK_LINE:
                end = buffer.find(b"\n", self._at) + 1
                if not end and len(buffer) - self._at <= MAX_CHUNK_LINE_BYTES:
                    return None
                match = _CHUNK_LINE.fullmatch(buffer, self._at, end) if end <= self._at + MAX_CHUNK_LINE_BYTES else None
                if match is None:
                    raise ProtocolError(400, "A chunk does not start with its size in hexadecimal.")
                self._wanted = int(match[1], 16)
                if len(self._body) + self._wanted > self._max_body:
                    raise self._too_large()
                self._at = end
                self._reading = _READ_CHUNK_DATA if self._wanted else _READ_TRAILERS
                self._take()
            elif self._reading == _READ_CHUNK_DATA:
                if self._wanted or len(buffer) < self._at + 2:
                    return None
                if not buffer.startswith(b"\r\n", self._at):
                    raise ProtocolError(400, "A chunk is longer than its size says.")
                self._at += 2
                self._reading = _READ_CHUNK_LINE
            else:
                return self._read_trailers()

    def _read_trailers(self) -> Request | None:
        """Trailers are checked and dropped: nothing here may be changed by a header that comes after the body."""
        buffer, at = self._buffer, self._at
        end = at if buffer.startswith(b"\r\n", at) else buffer.find(b"\r\n\r\n", at)
        if end < 0:
            if _BARE_LF.search(buffer, at):
                raise ProtocolError(400, "A trailer line ends with a bare LF.")
            if len(buffer) - at > MAX_HEAD_BYTES:
                raise ProtocolError(431, f"The request's trailers exceed {MAX_HEAD_BYTES} bytes.")
            return None
        lines = buffer[at:end].decode("latin-1").split("\r\n") if end > at else []
        if end - at > MAX_HEAD_BYTES or not all(map(_FIELD.fullmatch, lines)):
            raise ProtocolError(400, "A malformed trailer line.")
        self._at = end + (4 if lines else 2)
        return self._finish()

    def _finish(self) -> Request:
        self._request.body = bytes(self._body)
        self._body = bytearray()
        self._reading = _READ_HEAD
        return self._request

    def _long_head(self) -> ProtocolError:
        return ProtocolError(431, f"The request's header exceeds {MAX_HEAD_BYTES} bytes.")

    def _too_large(self) -> ProtocolError:
        return ProtocolError(413, f"The request's body exceeds {self._max_body} bytes.")


# Clients say much the same in each request, so what their lines mean is remembered: the lines of a head cost a look-up
# each. The lines that differ (ids, lengths) push each other out, those that return stay.
@lru_cache(maxsize=64)
def _request_line(line: str) -> tuple[str, str, bool]:
    """Method, target and whether it is HTTP/1.0."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise ProtocolError(400, "The first line is not 'METHOD target HTTP/1.1'.")
    method, target, version = match.groups()
    if version not in ("1.1", "1.0"):
        raise ProtocolError(505, f"HTTP/{version} is not supported; use HTTP/1.1.")
    if target[0] != "/" and (absolute := _ABSOLUTE.fullmatch(target)):  # RFC 9112, 3.2.2: accept both forms
        target = absolute[1] if absolute[1].startswith("/") else "/" + absolute[1]
    return method, target, version == "1.0"


@lru_cache(maxsize=256)
def _field(line: str) -> tuple[str, str]:
    """Name, in lower case, and value of a header line."""
    match = _FIELD.fullmatch(line)
    if match is None:
        raise ProtocolError(400, _what_is_wrong(line))
    return match[1].lower(), match[2].rstrip(" \t")


def _joined(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in map(_field, lines):
        if name in headers:
            if name == "host":
                raise ProtocolError(400, "More than one Host header.")
            headers[name] += "," + value
        else:
            headers[name] = value
    return headers


def _says_close(connection: str) -> bool:
    return "close" in (option.strip() for option in connection.lower().split(","))


def _the_same(lengths: list[str]) -> str:
    first, *others = (length.strip(" \t") for length in lengths)
    if any(length != first for length in others):
        raise ProtocolError(400, "Content-Length is given twice with different values.")
    return first


def _what_is_wrong(line: str) -> str:
    """Names the fault of a header line that is none, for the person who reads the answer."""
    if "\n" in line:
        return "A header line ends with a bare LF."
    if line.startswith((" ", "\t")):
        return "A header line is folded (it starts with white space)."
    name, colon, _ = line.partition(":")
    if not colon:
        return "A header line has no colon."
    if not re.fullmatch(_TOKEN, name):
        return f"A header has the name {name[:100]!r}, which is not a token."
    return f"The header {name[:100]!r} holds a control character."
