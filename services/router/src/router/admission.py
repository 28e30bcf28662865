"""Whether a request may enter, checked before its body is kept; and which deployment gets it once it is whole.

PURE: the head and the table in, a refusal or a deployment out. No clock and no I/O may enter this module.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from router import cors
from router.auth import authorized
from router.guard import Peer
from router.headers import METHODS, SWITCH, Headers, Refused, RequestHead, read_request, value_of
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
from router.sticky import cookie, values_of
from router.table import Endpoint
from router.target import BadTarget, target
from router.tokens import Tokens, UnknownKey

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
    peer: Peer,
    now: float,
    tokens: Tokens,
    clock: Callable[[], float],
    find: Callable[[bytes], Endpoint[Any, Any] | None],
    suffix: bytes,
    limits: Limits,
) -> Refusal | None:
    """Fill `head`, whose method and version are known, from the target and the headers; why it is refused, or None.
    `now` is any monotonic clock in seconds; `clock` gives the seconds since 1970, which only tokens need.

    A request that is malformed is refused before anybody looks for its endpoint, one from the wrong place before its
    key is looked at, one without the key before it counts or its length matters.
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
    endpoint = find(head.name)
    if endpoint is None:
        return _no_endpoint(head, suffix)
    route, guard = endpoint.route, endpoint.guard
    if guard is not None and (refusal := guard.place(route.name, peer)) is not None:
        return refusal
    if endpoint.origins and head.origin:
        head.cors = True
        head.told = cors.allowed(head.origin, endpoint.origins)
        if head.told and head.method == b"OPTIONS" and value_of(head.lines, b"access-control-request-method"):
            return cors.preflight(value_of(head.lines, b"access-control-request-headers"))
    if route.auth == "key":
        if not authorized(head.authorization, route.digests):
            return UNAUTHORIZED.about(endpoint=route.name)
    else:
        try:
            if (refusal := tokens.check(head.authorization, route, clock())) is not None:
                return refusal
        except UnknownKey:
            head.unsure = True  # its issuer is asked before it goes on, and only then does it count: see `verified`
    if guard is not None and not head.unsure and (refusal := guard.take(route.name, peer, now)) is not None:
        return refusal
    if head.length is not None and head.length > limits.body_bytes:
        return TOO_LARGE.about(limit=limits.body_bytes)
    return None


def verified(endpoint: Endpoint[Any, Any], peer: Peer, now: float) -> Refusal | None:
    """Count a request that `check` was `unsure` of, now that its token is known to be good; why it is refused."""
    guard = endpoint.guard
    return guard.take(endpoint.route.name, peer, now) if guard is not None else None


def choose(
    head: RequestHead, endpoint: Endpoint[T, C] | None, suffix: bytes, request_id: bytes
) -> Deployment[T, C] | Refusal:
    """The deployment for a request that passed `check` and is complete: the one that it names, whatever its share, or
    the one that it keeps, or the one whose turn it is. The table may have changed while the body arrived."""
    if endpoint is None:
        return _no_endpoint(head, suffix)
    name = endpoint.route.name
    if head.pin is not None:
        pinned = endpoint.deployments.get(head.pin)
        return pinned or NO_DEPLOYMENT.about(endpoint=name, deployment=head.pin.decode("latin-1"))
    value = _kept_by(head, endpoint, request_id) if endpoint.route.rules.sticky is not None else b""
    return (endpoint.sticky(value) if value else endpoint.turn()) or NO_TRAFFIC.about(endpoint=name)


def _kept_by(head: RequestHead, endpoint: Endpoint[Any, Any], request_id: bytes) -> bytes:
    """The value by which a request keeps its deployment. A client without the cookie is given one."""
    sticky = endpoint.route.rules.sticky
    assert sticky is not None
    name = sticky.name.encode()
    if sticky.by == "header":
        return value_of(head.lines, name)
    value = cookie(values_of(head.lines, b"cookie"), name)
    if not value:
        value = request_id
        head.told += b"set-cookie: %b=%b; Path=/; HttpOnly; Secure; SameSite=None\r\n" % (name, value)
    return value


def _no_endpoint(head: RequestHead, suffix: bytes) -> Refusal:
    return NO_ENDPOINT.about(endpoint=head.name.decode("latin-1"), suffix=suffix.decode())
