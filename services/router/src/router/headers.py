"""What of a request's head goes to the model, and what of the model's head goes to the client.

PURE: bytes in, bytes out. No clock, no randomness and no I/O may enter this module.

Neither side sees the other's hop-by-hop headers (RFC 9110, 7.6.1), nor a header that is the router's own to set. The
client's key never reaches a model: what runs there is somebody's code.
"""

import re
from collections.abc import Sequence

from router.outcomes import BAD_EXPECTATION, MALFORMED, NOT_UNDERSTOOD, Refusal, status_line

Headers = Sequence[tuple[bytes, bytes]]

METHODS = frozenset({b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"})

_COLON, _CRLF = b": ", b"\r\n"
_CLIENT_ID_TEXT = re.compile(rb"[A-Za-z0-9_-]+")
_CLIENT_ID_LENGTH = 40
_LARGEST_LENGTH = 18  # digits


# What a header is to the router. Plain numbers: an Enum's members cost more to look up than a comparison.
(
    _DROPPED,
    _HOST,
    _AUTHORIZATION,
    _PIN,
    _CLIENT_REQUEST_ID,
    _LENGTH,
    _CODING,
    _EXPECTATION,
    _CONNECTION,
    _UPGRADE,
    _ORIGIN,
    _TRACE,
) = range(12)

_HOP_BY_HOP = dict.fromkeys(
    (b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer"), _DROPPED
)
_OF_A_REQUEST = _HOP_BY_HOP | {
    b"x-request-id": _DROPPED,
    b"host": _HOST,
    b"authorization": _AUTHORIZATION,
    b"azureml-model-deployment": _PIN,
    b"x-ms-client-request-id": _CLIENT_REQUEST_ID,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"expect": _EXPECTATION,
    b"connection": _CONNECTION,
    b"upgrade": _UPGRADE,
    b"origin": _ORIGIN,
    b"traceparent": _TRACE,
}
_OF_A_REPLY = _HOP_BY_HOP | {
    b"x-request-id": _DROPPED,
    b"x-ms-client-request-id": _DROPPED,
    b"azureml-model-deployment": _DROPPED,
    b"ms-azureml-model-error-statuscode": _DROPPED,
    b"ms-azureml-model-error-reason": _DROPPED,
    b"upgrade": _DROPPED,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
}


class Refused(Exception):
    """A head that is answered with `refusal` instead of being passed on."""

    def __init__(self, refusal: Refusal):
        super().__init__(refusal.code)
        self.refusal = refusal


class RequestHead:
    """What a request's head says. `name` is the endpoint's key in the table and `path` what the model gets; `lines` are
    the pieces of headers to pass on, in order, to be joined, and `trace` is where among them the value of traceparent
    is; `length` is None where there is no Content-Length. `told` are header lines for the answer; `cors` says that a
    page of another origin is told these and not the model's. `unsure`: its token names a key that is not known."""

    __slots__ = (
        "authorization",
        "chunked",
        "client_id",
        "cors",
        "expects",
        "host",
        "length",
        "lines",
        "method",
        "name",
        "origin",
        "path",
        "pin",
        "told",
        "trace",
        "unsure",
        "upgrade",
        "version",
    )

    def __init__(self, method: bytes, version: str) -> None:
        self.method, self.version = method, version
        self.name = self.path = b""
        self.lines: list[bytes] = []
        self.host: bytes | None = None
        self.authorization: bytes | None = None
        self.pin: bytes | None = None
        self.origin = self.told = b""
        self.trace: int | None = None
        self.client_id = b""
        self.upgrade = b""
        self.length: int | None = None
        self.chunked = self.expects = self.cors = self.unsure = False


def read_request(head: RequestHead, headers: Headers) -> None:
    """Fill `head` from its headers, without those that the client's Connection header names. Raises Refused. That
    lengths are numbers, given once and not together with a coding, the parser has seen to.
    """
    lines = head.lines
    hidden: frozenset[bytes] = frozenset()
    for name, value in headers:
        lower = name.lower()
        kind = _OF_A_REQUEST.get(lower)
        if kind is None:
            lines += (name, _COLON, value, _CRLF)
        elif kind == _HOST:
            if head.host is not None:
                raise Refused(MALFORMED.about(reason="it has more than one Host header"))
            head.host = value.strip()
            lines += (name, _COLON, value, _CRLF)
        elif kind == _AUTHORIZATION:
            head.authorization = value
        elif kind == _LENGTH:
            digits = value.strip()
            head.length = int(digits) if len(digits) <= _LARGEST_LENGTH else 10**_LARGEST_LENGTH
            lines += (name, _COLON, digits, _CRLF)
        elif kind == _PIN:
            head.pin = value.strip()
            lines += (name, _COLON, value, _CRLF)
        elif kind == _CLIENT_REQUEST_ID:
            value = value.strip()
            if _CLIENT_ID_TEXT.fullmatch(value):
                head.client_id = b"x-ms-client-request-id: %b\r\n" % value[:_CLIENT_ID_LENGTH]
        elif kind == _CODING:
            if value.strip().lower() != b"chunked":
                raise Refused(NOT_UNDERSTOOD.about(what="A Transfer-Encoding other than a single 'chunked'"))
            head.chunked = True
        elif kind == _EXPECTATION:
            if value.strip().lower() != b"100-continue":
                raise Refused(BAD_EXPECTATION)
            head.expects = True
        elif kind == _CONNECTION:
            hidden |= _named(value)
        elif kind == _UPGRADE:
            head.upgrade = value.strip().lower()
        elif kind == _ORIGIN:
            head.origin = value.strip()
            lines += (name, _COLON, value, _CRLF)
        elif kind == _TRACE:
            head.trace = len(lines) + 2
            lines += (name, _COLON, value, _CRLF)
    if hidden:
        head.lines = _without(hidden, lines)


SWITCH = (b"upgrade", _COLON, b"websocket", _CRLF, b"connection", _COLON, b"Upgrade", _CRLF)
"""The pieces of the two headers that ask for another protocol, and agree to it."""


def request_head(head: RequestHead, request_id: bytes, body_length: int | None) -> bytes:
    """The head that an instance gets. `body_length` None: the body goes on as it comes."""
    pieces = [head.method, b" ", head.path, b" HTTP/1.1\r\nx-request-id: ", request_id, _CRLF, *head.lines]
    if head.client_id:
        pieces.append(head.client_id)
    if not head.chunked:
        pieces.append(_CRLF)
    elif body_length is None:
        pieces.append(b"transfer-encoding: chunked\r\n\r\n")
    else:
        pieces.append(b"content-length: %d\r\n\r\n" % body_length)
    return b"".join(pieces)


# A Connection header may not take away what decides where a message ends or who sent it.
_NEVER_HIDDEN = frozenset({b"close", b"keep-alive", b"", *_OF_A_REQUEST, *_OF_A_REPLY})


def _named(connection: bytes) -> frozenset[bytes]:
    if connection.lower() in (b"keep-alive", b"close"):
        return frozenset()
    return frozenset(token.strip().lower() for token in connection.split(b",")) - _NEVER_HIDDEN


def value_of(lines: list[bytes], name: bytes) -> bytes:
    """The value of the first header that is called `name` (lower case) among `lines`; empty when there is none."""
    for at in range(0, len(lines), 4):
        if lines[at].lower() == name:
            return lines[at + 2].strip()
    return b""


def without_cors(lines: list[bytes]) -> list[bytes]:
    """`lines` without what a model says of other origins."""
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):
        if not lines[at].lower().startswith(b"access-control-"):
            kept += lines[at : at + 4]
    return kept


def _without(hidden: frozenset[bytes], lines: list[bytes]) -> list[bytes]:
    kept: list[bytes] = []
    for at in range(0, len(lines), 4):  # a name, a colon, a value, an end of line
        if lines[at].lower() not in hidden:
            kept += lines[at : at + 4]
    return kept


class BadReply(ValueError):
    """An instance's answer cannot be passed on."""


class ReplyHead:
    """What a reply's headers say. `lines` are the pieces to pass on; they hold no framing but for Content-Length."""

    __slots__ = ("chunked", "has_length", "lines")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.chunked = False
        self.has_length = False


def read_reply(headers: Headers, *, with_length: bool) -> ReplyHead:
    """The head of an instance's reply. Without `with_length` its Content-Length is dropped: there is no body, and the
    status that the client sees may be one that has. Raises BadReply for a coding that nobody asked for."""
    head = ReplyHead()
    lines = head.lines
    hidden: frozenset[bytes] = frozenset()
    for name, value in headers:
        lower = name.lower()
        kind = _OF_A_REPLY.get(lower)
        if kind is None:
            lines += (name, _COLON, value, _CRLF)
        elif kind == _LENGTH:
            if with_length:
                head.has_length = True
                lines += (name, _COLON, value, _CRLF)
        elif kind == _CODING:
            if value.strip().lower() != b"chunked":
                raise BadReply("a Transfer-Encoding other than a single 'chunked'")
            head.chunked = True
        elif kind == _CONNECTION:
            hidden |= _named(value)
    if hidden:
        head.lines = _without(hidden, lines)
    return head


def client_status(status: int, reason: bytes) -> bytes:
    """The first lines of the answer: the model's own 2xx, or 424 with the model's status and reason in headers."""
    if 200 <= status < 300:
        return status_line(status, reason)
    printable = bytes(byte for byte in reason if 0x20 <= byte < 0x7F)
    return (
        status_line(424)
        + b"ms-azureml-model-error-statuscode: %d\r\n" % status
        + b"ms-azureml-model-error-reason: %b\r\n" % printable
    )
