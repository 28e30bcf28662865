"""Whether a request may enter, checked before its body is kept; and which deployment gets it once it is whole.

PURE: the head and the table in, a refusal or a deployment out. No clock and no I/O may enter this module.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from router.auth import authorized
from router.headers import METHODS, SWITCH, Headers, Refused, RequestHead, read_request
from router.outcomes import (
    BAD_METHOD,
    BAD_TARGET,
    HEAD_TOO_LARGE,
    MALFORMED,
    NO_DEPLOYMENT,
    NO_ENDPOINT,
    NO_TRAFFIC,
    NOT_UNDERSTOOD,
    TOO_LARGE,
    UNAUTHORIZED,
    Refusal,
)
from router.picking import Deployment
from router.table import Endpoint
from router.target import BadTarget, target

T = TypeVar("T")
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one client may cost (bytes, counts, seconds)."""

    body_bytes: int = 100 << 20
    head_bytes: int = 64 << 10
    headers: int = 128
    receive_seconds: float = 30.0
    keep_alive_seconds: float = 75.0
    pipelined: int = 16


def check(
    head: RequestHead,
    url: bytes,
    headers: Headers,
    *,
    upgrade: bool,
    entries: Mapping[bytes, Endpoint[Any, Any]],
    suffix: bytes,
    limits: Limits,
) -> Refusal | None:
    """Fill `head`, whose method and version are known, from the target and the headers; why it is refused, or None.

    A request that is malformed is refused before anybody looks for its endpoint, one without the key before its
    length matters.
    """
    if len(headers) > limits.headers:
        return HEAD_TOO_LARGE.about(limit=limits.head_bytes, count=limits.headers)
    if head.version not in ("1.1", "1.0"):
        return MALFORMED.about(reason=f"HTTP/{head.version} is not HTTP/1.1")
    if head.method not in METHODS:
        return BAD_METHOD.about(method=head.method.decode("latin-1"))
    try:
        read_request(head, headers)
    except Refused as refused:
        return refused.refusal
    if upgrade:
        if head.upgrade != b"websocket" or head.method != b"GET" or head.length or head.chunked:
            return NOT_UNDERSTOOD.about(what="An Upgrade of anything but a GET, or to anything but websocket,")
        head.lines += SWITCH
    else:
        head.upgrade = b""
    if head.version == "1.0":
        if head.chunked:
            return MALFORMED.about(reason="HTTP/1.0 has no Transfer-Encoding")
        head.expects = False
        if head.host is None:
            head.host = b"localhost"
            head.lines += (b"host", b": ", b"localhost", b"\r\n")
    if head.host is None:
        return MALFORMED.about(reason="it has no Host header")
    try:
        head.name, head.path = target(url, head.host, suffix)
    except BadTarget:
        return BAD_TARGET
    endpoint = entries.get(head.name)
    if endpoint is None:
        return _no_endpoint(head, suffix)
    if not authorized(head.authorization, endpoint.route.digests):
        return UNAUTHORIZED.about(endpoint=endpoint.route.name)
    if head.length is not None and head.length > limits.body_bytes:
        return TOO_LARGE.about(limit=limits.body_bytes)
    return None


def choose(head: RequestHead, entries: Mapping[bytes, Endpoint[T, C]], suffix: bytes) -> Deployment[T, C] | Refusal:
    """The deployment for a request that passed `check` and is complete: the one that it names, whatever its share, or
    the one whose turn it is. The table may have changed while the body arrived."""
    endpoint = entries.get(head.name)
    if endpoint is None:
        return _no_endpoint(head, suffix)
    name = endpoint.route.name
    if head.pin is None:
        return endpoint.turn() or NO_TRAFFIC.about(endpoint=name)
    pinned = endpoint.deployments.get(head.pin)
    return pinned or NO_DEPLOYMENT.about(endpoint=name, deployment=head.pin.decode("latin-1"))


def _no_endpoint(head: RequestHead, suffix: bytes) -> Refusal:
    return NO_ENDPOINT.about(endpoint=head.name.decode("latin-1"), suffix=suffix.decode())
