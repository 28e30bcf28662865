"""Replies: what is written back for an outcome, byte for byte.

Pure but for the clock of the Date header and the request id of a request that brings none. The status codes,
texts and headers are azureml-inference-server-http's (1.5), so that clients and dashboards made for Azure read them
unchanged. A reply's head lacks only what the connection decides: `Connection` and how a stream is framed.
"""

from __future__ import annotations

import itertools
import json
import os
import time
import uuid
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from typing import Any

from inference_server.response import FAILED, TEXT, piece

MAX_ID_LENGTH = 100
SCRIPT_FAILED = "An unexpected error occurred in scoring script. Check the logs for more info."
NOT_FOUND = (
    "The requested URL was not found on the server. If you entered the URL manually please check your spelling "
    "and try again."
)
NOT_ALLOWED = "The method is not allowed for the requested URL."
STREAM_TYPE = "text/plain; charset=utf-8"  # of a bare generator; an AMLResponse names its own

_REASONS = {status.value: status.phrase for status in HTTPStatus}
_OURS = frozenset({"content-length", "transfer-encoding", "connection", "keep-alive", "date"})
_NO_BODY = frozenset({204, 304})
_OTHER_IDS = frozenset({"traceid", "x-ms-request-id", "x-ms-client-request-id"})
_PLAIN = frozenset({list, dict, str, int, float, bool, type(None)})


def _encoder() -> Callable[[Any], str]:
    """`json.dumps`, but for the C encoder that it makes anew for each value: this one is made once."""
    plain = json.JSONEncoder()
    try:
        make = getattr(json.encoder, "c_make_encoder")  # noqa: B009 (CPython's own; not in every Python, nor typed)
        encode = make(None, plain.default, json.encoder.encode_basestring_ascii, None, ": ", ", ", False, False, True)
    except (AttributeError, TypeError):
        return plain.encode

    def to_json(value: Any) -> str:
        try:
            return "".join(encode(value, 0))
        except RecursionError:
            return plain.encode(value)  # which tells a value that contains itself from one that is too deep

    return to_json


_to_json = _encoder()
_ids: Iterator[int]  # the last 48 bits of request ids, counted
_ids_of_process: str  # what comes before them


def _seed() -> None:
    """Gives this process ids of its own."""
    global _ids, _ids_of_process
    unique = uuid.uuid4()
    _ids_of_process = str(unique)[:-12]
    _ids = itertools.count(unique.node)


_seed()
os.register_at_fork(after_in_child=_seed)


class UnsendableOutput(Exception):
    """What `run()` returned cannot be sent; the text says why."""


@dataclass
class Reply:
    head: bytes  # the status line and header lines, each with its line end; no empty line
    body: bytes
    rest: Generator[bytes, None, None] | None = None  # a stream: the pieces after `body`


class Replies:
    def __init__(self, server_version: str, cors_origins: Iterable[str] = ()):
        self._version = f"x-ms-server-version: {server_version}\r\n"
        self._origins = frozenset(origin.lower() for origin in cors_origins)
        self._json_200 = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{FAILED}: False\r\n"
        self._date = (0, "")

    def health(self, headers: Mapping[str, str], ids: str) -> Reply:
        return self._text(headers, ids, b"Healthy", "")

    def page(self, headers: Mapping[str, str], ids: str, kind: str, body: bytes) -> Reply:
        """A 200 that no user code had a part in."""
        head = f"{_status_line(200)}Content-Type: {kind}\r\n{FAILED}: False\r\n"
        return Reply(self._head(head, headers, ids, len(body)), body)

    def options(self, headers: Mapping[str, str], ids: str) -> Reply:
        return self._text(headers, ids, b"", f"{FAILED}: False\r\n")

    def error(
        self,
        headers: Mapping[str, str],
        ids: str,
        status: int,
        text: str,
        *,
        failed: bool = False,
        allow: tuple[str, ...] = (),
        document: Mapping[str, Any] | None = None,
    ) -> Reply:
        """`{"message": text}`, or the document. `failed`: the fault is the script's."""
        body = json.dumps({"message": text} if document is None else document).encode()
        allowed = f"Allow: {', '.join(allow)}\r\n" if allow else ""
        head = f"{_status_line(status)}Content-Type: application/json\r\n{FAILED}: {failed}\r\n{allowed}"
        return Reply(self._head(head, headers, ids, len(body)), body)

    def output(self, headers: Mapping[str, str], ids: str, output: Any, elapsed_ms: float) -> Reply:
        """What `run()` returned: an AMLResponse (or a Flask response) as it is, an iterator as a stream, anything
        else as JSON. `ids` are the lines that `correlate` made of `headers`.

        Raises UnsendableOutput, and whatever a stream raises before its first piece.
        """
        took = f"x-ms-run-fn-exec-ms: {elapsed_ms:.3f}\r\n"
        if type(output) in _PLAIN:  # the common case, before dearer questions
            return self._json(headers, ids + took, output)
        if hasattr(output, "status_code") and hasattr(output, "get_data"):
            return self._response(headers, ids + took, output)
        if isinstance(output, Iterator):
            head = f"{_status_line(200)}Content-Type: {STREAM_TYPE}\r\n{FAILED}: False\r\n"
            return self._stream(self._head(head, headers, ids + took, None), output)
        return self._json(headers, ids + took, output)

    def _json(self, headers: Mapping[str, str], extra: str, output: Any) -> Reply:
        try:
            body = b"{}" if output is None else _to_json(output).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise UnsendableOutput(
                f"run() returned a value that cannot be sent as JSON: {error}. "
                "Return plain lists, dicts, strings, numbers and booleans, or an AMLResponse."
            ) from error
        return Reply(self._head(self._json_200, headers, extra, len(body)), body)

    def _response(self, headers: Mapping[str, str], extra: str, response: Any) -> Reply:
        status = response.status_code
        if not isinstance(status, int) or not 200 <= status <= 599:
            raise UnsendableOutput(f"run() returned a response with the status {status!r}, not one of 200-599.")
        fields = {FAILED: "True"} if status >= 500 else {}
        lines = [_status_line(status)]
        for name, value in (*response.headers.items(), *fields.items()):
            if name.lower() in _OURS or (name.lower() == FAILED and fields and value != "True"):
                continue
            lines.append(f"{name}: {value}\r\n")
        if any(set("\r\n\0") & set(line[:-2]) for line in lines):
            raise UnsendableOutput("run() returned a response with a line end or NUL in a header.")
        try:
            if status in _NO_BODY:
                return Reply(self._head("".join(lines), headers, extra, None), b"")
            if response.is_streamed:
                return self._stream(self._head("".join(lines), headers, extra, None), iter(response.response))
            body: bytes = response.get_data()
            return Reply(self._head("".join(lines), headers, extra, len(body)), body)
        except UnicodeEncodeError as error:
            raise UnsendableOutput(f"run() returned a response with a header outside Latin-1: {error}") from error

    def _stream(self, head: bytes, source: Iterator[Any]) -> Reply:
        pieces = _pieces(source)
        return Reply(head, next(pieces, b""), pieces)

    def _text(self, headers: Mapping[str, str], ids: str, body: bytes, fields: str) -> Reply:
        head = f"{_status_line(200)}Content-Type: {TEXT}\r\n{fields}"
        return Reply(self._head(head, headers, ids, len(body)), body)

    def _head(self, start: str, headers: Mapping[str, str], extra: str, length: int | None) -> bytes:
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, f"Date: {formatdate(now, usegmt=True)}\r\n")
        cors = self._cors(headers) if self._origins else ""
        size = "" if length is None else f"Content-Length: {length}\r\n"
        return f"{start}{self._version}{extra}{cors}{self._date[1]}{size}".encode("latin-1")

    def _cors(self, headers: Mapping[str, str]) -> str:
        """GET and POST from the allowed origins, as flask-cors answers for Azure's server."""
        origin = headers.get("origin", "")
        if not origin or not ({origin.lower(), "*"} & self._origins):
            return "Vary: Origin\r\n"
        lines = f"Vary: Origin\r\nAccess-Control-Allow-Origin: {origin}\r\n"
        if "access-control-request-method" in headers:
            lines += "Access-Control-Allow-Methods: GET, POST\r\n"
            if asked := headers.get("access-control-request-headers"):
                lines += f"Access-Control-Allow-Headers: {asked}\r\n"
        return lines


def correlate(headers: Mapping[str, str]) -> tuple[str, str | None]:
    """The header lines that tell which request this answers, and what is wrong with the ids (status 431) if anything.

    `x-ms-request-id` was once both the server's and the client's id: without it, it echoes the client's id or else
    the server's; alone, it also stands for the client's.
    """
    request_id = headers.get("x-request-id") or _new_id()
    if len(request_id) > MAX_ID_LENGTH:
        return "", f"x-request-id must not exceed {MAX_ID_LENGTH} characters"
    if _OTHER_IDS.isdisjoint(headers):
        return f"x-request-id: {request_id}\r\nx-ms-request-id: {request_id}\r\n", None
    lines = f"x-request-id: {request_id}\r\n"
    if trace := headers.get("traceid"):
        lines += f"TraceId: {trace}\r\n"
    legacy = headers.get("x-ms-request-id", "")
    client = headers.get("x-ms-client-request-id", "") or legacy
    legacy = legacy or client or request_id
    if len(legacy) > MAX_ID_LENGTH or len(client) > MAX_ID_LENGTH:
        return (
            lines,
            f"x-ms-request-id and x-ms-client-request-id must not exceed {MAX_ID_LENGTH} characters",
        )
    lines += f"x-ms-request-id: {legacy}\r\n"
    if client:
        lines += f"x-ms-client-request-id: {client}\r\n"
    return lines, None


def _new_id() -> str:
    """A UUID. A count, not uuid4(), which asks the kernel for each."""
    return f"{_ids_of_process}{next(_ids) & 0xFFFFFFFFFFFF:012x}"


def _status_line(status: int) -> str:
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\n"


def _pieces(source: Iterator[Any]) -> Generator[bytes, None, None]:
    """The non-empty pieces of a stream. Closing it closes the script's generator."""
    try:
        for value in source:
            if data := piece(value):
                yield data
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()
