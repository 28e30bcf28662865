"""Who is let in, in which order the reasons count, and who gets the turn."""

from typing import Any

import pytest

from router.admission import Limits, check, choose
from router.guard import Peer
from router.headers import RequestHead
from router.outcomes import Refusal
from router.table import RoutingTable
from router.tokens import Tokens

SUFFIX = b".local.inference.localhost"
LIMITS = Limits(body_bytes=10, headers=8)
REST: dict[str, Any] = {
    "peer": Peer(),
    "now": 0.0,
    "tokens": Tokens(),
    "clock": lambda: 0.0,
    "suffix": SUFFIX,
    "limits": LIMITS,
}
KEY = (b"Authorization", b"Bearer the-primary-key")
HOST = (b"Host", b"localhost")


@pytest.fixture
def entries(documents: Any) -> Any:
    table: RoutingTable[Any, Any] = RoutingTable()
    for name, traffic in (("diabetes", {"blue": 90, "green": 10}), ("silent", {})):
        deployments = {each: documents.deployment() for each in ("blue", "green", "dark")}
        table.apply(name, documents.desired(deployments, traffic, name=name), {}, now=0.0)
    return table.entries


def refused(
    entries: Any,
    *headers: tuple[bytes, bytes],
    url: bytes = b"/diabetes/score",
    method: bytes = b"POST",
    version: str = "1.1",
    upgrade: bool = False,
) -> str | None:
    head = RequestHead(method, version)
    refusal = check(head, url, headers, upgrade=upgrade, find=entries.get, **REST)
    return refusal.code if refusal is not None else None


@pytest.mark.parametrize("method", [b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT"])
def test_let_in(entries: Any, method: bytes) -> None:
    assert refused(entries, HOST, KEY, (b"Content-Length", b"10"), method=method) is None
    assert refused(entries, KEY, method=method, version="1.0") is None


def test_each_reason_in_the_order_in_which_they_count(entries: Any) -> None:
    """Each step mends the reason that the step before was refused for."""
    bad: list[tuple[bytes, bytes]] = [(b"Transfer-Encoding", b"gzip"), (b"Content-Length", b"11")]
    more = [(b"a", b"b")] * 8
    url, unknown = b"*", b"/unknown/score"
    steps = [
        (refused(entries, *more, *bad, url=url, method=b"TRACE", version="2.0", upgrade=True), "HeadersTooLarge"),
        (refused(entries, *bad, url=url, method=b"TRACE", version="2.0", upgrade=True), "BadRequest"),
        (refused(entries, *bad, url=url, method=b"TRACE", upgrade=True), "MethodNotAllowed"),
        (refused(entries, *bad, url=url, upgrade=True), "NotImplemented"),
        (refused(entries, *bad[1:], url=url, upgrade=True), "NotImplemented"),
        (refused(entries, *bad[1:], url=url), "BadRequest"),
        (refused(entries, *bad[1:], HOST, url=url), "BadRequest"),
        (refused(entries, *bad[1:], HOST, url=unknown), "EndpointNotFound"),
        (refused(entries, *bad[1:], HOST), "Unauthorized"),
        (refused(entries, *bad[1:], HOST, KEY), "RequestTooLarge"),
        (refused(entries, HOST, KEY), None),
    ]
    assert [got for got, _ in steps] == [expected for _, expected in steps]


def test_http_1_0_has_no_codings_and_expects_nothing(entries: Any) -> None:
    assert refused(entries, KEY, (b"Transfer-Encoding", b"chunked"), version="1.0") == "BadRequest"
    head = RequestHead(b"POST", "1.0")
    headers = [KEY, (b"Expect", b"100-continue")]
    check(
        head,
        b"/diabetes/score",
        headers,
        upgrade=False,
        find=entries.get,
        **REST,
    )
    assert (head.expects, head.host) == (False, b"localhost")


def chosen(entries: Any, name: bytes, pin: bytes | None = None) -> str:
    head = RequestHead(b"POST", "1.1")
    head.name, head.pin = name, pin
    found = choose(head, entries.get(head.name), SUFFIX, b"an-id")
    return found.code if isinstance(found, Refusal) else found.name


def test_who_gets_it(entries: Any) -> None:
    assert [chosen(entries, b"diabetes") for _ in range(10)].count("green") == 1
    assert chosen(entries, b"diabetes", b"green") == "green"
    assert chosen(entries, b"diabetes", b"dark") == "dark"
    assert chosen(entries, b"diabetes", b"Green") == "DeploymentNotFound"
    assert chosen(entries, b"diabetes", b"{0}\xff") == "DeploymentNotFound"
    assert chosen(entries, b"silent") == "NoTraffic"
    assert chosen(entries, b"silent", b"blue") == "blue"
    assert chosen(entries, b"deleted-while-its-body-arrived") == "EndpointNotFound"
    turns = {name: entries[b"diabetes"].deployments[name].tally.turns for name in (b"blue", b"green", b"dark")}
    assert turns == {b"blue": 9, b"green": 1, b"dark": 0}
