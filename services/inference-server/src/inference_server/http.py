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

MAX_HEAD_BYTES = 64 * 1024
MAX_CHUNK_LINE_BYTES = 1024  # a chunk's size and its extensions, which are ignored

_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # noqa: S105 (a grammar's token, not a secret)
_FIELDS = rf"(?:{_TOKEN}:[\t\x20-\x7e\x80-\xff]*\r\n)*"
_HEAD = re.compile(rf"({_TOKEN}) ([\x21-\x7e\x80-\xff]+) HTTP/(\d\.\d)\r\n({_FIELDS})\r\n")
_TRAILERS = re.compile(rf"{_FIELDS}\r\n")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")
_ABSOLUTE = re.compile(r"https?://[^/?]*(.*)", re.IGNORECASE)
_BARE_LF = re.compile(rb"(?<!\r)\n")


@dataclass
class Request:
    """One complete request. Header names are in lower case; values of a repeated header are joined by a comma."""

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
        self._buffer = bytearray()
        self._searched = 0  # how much of the buffer is known to hold no end of a head
        self._reading = _READ_HEAD
        self._request: Request  # whose head has been read while its body has not
        self._body = bytearray()  # of a chunked request
        self._wanted = 0  # bytes still missing of the body (LENGTH) or of the chunk (CHUNK_DATA)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    @property
    def buffered(self) -> int:
        """Bytes that were fed and not yet returned in an event."""
        return len(self._buffer) + len(self._body)

    @property
    def mid_request(self) -> bool:
        """A request has begun to arrive and is not complete."""
        return self._reading != _READ_HEAD or bool(self._buffer)

    def next_event(self) -> Request | Continue | None:
        """Raises ProtocolError; the parser must not be used after that."""
        if self._reading == _READ_HEAD:
            event = self._read_head()
            if event is not None or self._reading == _READ_HEAD:
                return event
        if self._reading == _READ_LENGTH:
            return self._read_length()
        return self._read_chunks()

    def _read_head(self) -> Request | Continue | None:
        buffer = self._buffer
        if buffer.startswith(b"\r\n"):
            del buffer[:2]  # one empty line before a request is allowed (RFC 9112, 2.2)
        end = buffer.find(b"\r\n\r\n", max(0, self._searched - 3))
        if end < 0:
            if _BARE_LF.search(buffer, max(0, self._searched - 1)):
                raise ProtocolError(400, "A header line ends with a bare LF.")
            self._searched = len(buffer)
            if len(buffer) > MAX_HEAD_BYTES:
                raise ProtocolError(431, f"The request's header exceeds {MAX_HEAD_BYTES} bytes.")
            return None
        end += 4
        if end > MAX_HEAD_BYTES:
            raise ProtocolError(431, f"The request's header exceeds {MAX_HEAD_BYTES} bytes.")
        head = buffer[:end].decode("latin-1")
        del buffer[:end]
        self._searched = 0
        return self._begin(head)

    def _begin(self, head: str) -> Request | Continue | None:
        match = _HEAD.fullmatch(head)
        if match is None:
            raise ProtocolError(400, _what_is_wrong(head))
        method, target, version, lines = match.groups()
        if version not in ("1.1", "1.0"):
            raise ProtocolError(505, f"HTTP/{version} is not supported; use HTTP/1.1.")
        if target[0] != "/" and (absolute := _ABSOLUTE.fullmatch(target)):  # RFC 9112, 3.2.2: accept both forms
            target = absolute[1] if absolute[1].startswith("/") else "/" + absolute[1]
        headers: dict[str, str] = {}
        for line in lines.split("\r\n")[:-1]:
            name, _, value = line.partition(":")
            name = name.lower()
            if name in headers:
                if name == "host":
                    raise ProtocolError(400, "More than one Host header.")
                headers[name] += "," + value.strip(" \t")
            else:
                headers[name] = value.strip(" \t")
        http_1_0 = version == "1.0"
        if not http_1_0 and "host" not in headers:
            raise ProtocolError(400, "The Host header is missing.")
        connection = headers.get("connection")
        close = http_1_0 or (
            connection is not None and "close" in (option.strip() for option in connection.lower().split(","))
        )
        request = Request(method, target, headers, b"", http_1_0, close)
        return self._frame(request)

    def _frame(self, request: Request) -> Request | Continue | None:
        """Decides how the body ends (RFC 9112, 6.3)."""
        headers = request.headers
        length = headers.get("content-length")
        coding = headers.get("transfer-encoding")
        if coding is not None:
            if length is not None:
                raise ProtocolError(400, "Both Content-Length and Transfer-Encoding.")
            if request.http_1_0:
                raise ProtocolError(400, "Transfer-Encoding in an HTTP/1.0 request.")
            if coding.lower() != "chunked":
                raise ProtocolError(501, "The only Transfer-Encoding understood is a single 'chunked'.")
            self._reading, self._body = _READ_CHUNK_LINE, bytearray()
        elif length is not None:
            if "," in length:
                length = _the_same(length.split(","))
            if not length.isascii() or not length.isdigit():
                raise ProtocolError(400, "Content-Length is not a number.")
            if len(length) > 18 or int(length) > self._max_body:
                raise self._too_large()
            self._wanted = int(length)
            if not self._wanted:
                return request
            self._reading = _READ_LENGTH
        else:
            return request
        self._request = request
        expectation = headers.get("expect")
        if expectation is not None and not request.http_1_0:
            if expectation.lower() != "100-continue":
                raise ProtocolError(417, "The only expectation understood is '100-continue'.")
            if not self._buffer:
                return Continue.CONTINUE
        return None

    def _read_length(self) -> Request | None:
        buffer, wanted = self._buffer, self._wanted
        if len(buffer) < wanted:
            return None
        if len(buffer) == wanted:
            self._buffer = bytearray()
            return self._finish(bytes(buffer))
        body = bytes(buffer[:wanted])
        del buffer[:wanted]
        return self._finish(body)

    def _read_chunks(self) -> Request | None:
        buffer = self._buffer
        while True:
            if self._reading == _READ_CHUNK_LINE:
                end = buffer.find(b"\n") + 1
                if not end and len(buffer) <= MAX_CHUNK_LINE_BYTES:
                    return None
                match = _CHUNK_LINE.fullmatch(buffer, 0, end) if end <= MAX_CHUNK_LINE_BYTES else None
                if match is None:
                    raise ProtocolError(400, "A chunk does not start with its size in hexadecimal.")
                self._wanted = int(match[1], 16)
                if len(self._body) + self._wanted > self._max_body:
                    raise self._too_large()
                del buffer[:end]
                self._reading = _READ_CHUNK_DATA if self._wanted else _READ_TRAILERS
            elif self._reading == _READ_CHUNK_DATA:
                part = buffer[: self._wanted]
                self._body += part
                del buffer[: len(part)]
                self._wanted -= len(part)
                if self._wanted or len(buffer) < 2:
                    return None
                if not buffer.startswith(b"\r\n"):
                    raise ProtocolError(400, "A chunk is longer than its size says.")
                del buffer[:2]
                self._reading = _READ_CHUNK_LINE
            else:
                return self._read_trailers()

    def _read_trailers(self) -> Request | None:
        """Trailers are checked and dropped: nothing here may be changed by a header that comes after the body."""
        buffer = self._buffer
        end = 2 if buffer.startswith(b"\r\n") else buffer.find(b"\r\n\r\n") + 4
        if end == 3:
            if _BARE_LF.search(buffer):
                raise ProtocolError(400, "A trailer line ends with a bare LF.")
            if len(buffer) > MAX_HEAD_BYTES:
                raise ProtocolError(431, f"The request's trailers exceed {MAX_HEAD_BYTES} bytes.")
            return None
        if end > MAX_HEAD_BYTES or not _TRAILERS.fullmatch(buffer[:end].decode("latin-1")):
            raise ProtocolError(400, "A malformed trailer line.")
        del buffer[:end]
        return self._finish(bytes(self._body))

    def _finish(self, body: bytes) -> Request:
        self._request.body = body
        self._body = bytearray()
        self._reading, self._searched = _READ_HEAD, 0
        return self._request

    def _too_large(self) -> ProtocolError:
        return ProtocolError(413, f"The request's body exceeds {self._max_body} bytes.")


def _the_same(lengths: list[str]) -> str:
    first, *others = (length.strip(" \t") for length in lengths)
    if any(length != first for length in others):
        raise ProtocolError(400, "Content-Length is given twice with different values.")
    return first


def _what_is_wrong(head: str) -> str:
    """Names the first fault of a head that is not HTTP, for the person who reads the answer."""
    first, *lines = head[:-4].split("\r\n")
    if not re.fullmatch(rf"{_TOKEN} [\x21-\x7e\x80-\xff]+ HTTP/\d\.\d", first):
        return "The first line is not 'METHOD target HTTP/1.1'."
    for line in lines:
        if "\n" in line:
            return "A header line ends with a bare LF."
        if line.startswith((" ", "\t")):
            return "A header line is folded (it starts with white space)."
        name, colon, value = line.partition(":")
        if not colon:
            return "A header line has no colon."
        if not re.fullmatch(_TOKEN, name):
            return f"A header has the name {name[:100]!r}, which is not a token."
        if not re.fullmatch(r"[\t\x20-\x7e\x80-\xff]*", value):
            return f"The header {name[:100]!r} holds a control character."
    return "The request's header is malformed."
