"""An endpoint's rules: from where it may be asked and how often, which pages may, and what keeps its deployment."""

import asyncio
from collections import Counter
from ipaddress import ip_network
from typing import Any

import pytest

from contracts.endpoint_rules import NEVER_STICKY, EndpointRules, Sticky, rules_of
from router.guard import Guard, Network, Peer
from router.headers import _OF_A_REQUEST, RequestHead, read_request, value_of
from router.listener import Listener
from router.sticky import choice, cookie

Bench = Any
ORIGIN = "https://shop.example"


def guard(*networks: str, private: bool = False, rate: int | None = None, room: int | None = None) -> Guard:
    allowed: tuple[Network, ...] = tuple(ip_network(network) for network in networks)
    return Guard(private=private, networks=allowed, rate=rate, room=room)


# -- the properties


def test_properties_are_read_and_every_trouble_is_told() -> None:
    rules, problems = rules_of(
        {
            "endpunkt.sticky": "header:X-Session",
            "endpunkt.cors_origins": "https://Shop.example, http://localhost:3000",
            "endpunkt.allowed_networks": "10.0.0.0/8, ::1",
            "endpunkt.requests_per_second": "50",
            "endpunkt.connections": "7",
            "team": "health",
        }
    )
    assert problems == {}
    assert rules == EndpointRules(
        sticky=Sticky(by="header", name="x-session"),
        cors_origins=("https://shop.example", "http://localhost:3000"),
        allowed_networks=(ip_network("10.0.0.0/8"), ip_network("::1/128")),
        requests_per_second=50,
        connections=7,
    )
    bad = {
        "endpunkt.sticky": "session",
        "endpunkt.cors_origins": "shop.example",
        "endpunkt.allowed_networks": "10.0.0.1/8,",
        "endpunkt.requests_per_second": "0",
        "endpunkt.connections": "many",
        "endpunkt.conections": "7",
    }
    rules, problems = rules_of(bad)
    assert (rules, problems.keys()) == (EndpointRules(), bad.keys())
    assert rules_of({"endpunkt.allowed_networks": "10.0.0.1/8"})[1] == {
        "endpunkt.allowed_networks": "10.0.0.1/8 has host bits set: write 10.1.0.0/16, or one address"
    }


@pytest.mark.parametrize("origin", ["https://a.example/", "https://a.example/x", "a.example", "ftp://a.example", ""])
def test_what_is_no_origin(origin: str) -> None:
    assert list(rules_of({"endpunkt.cors_origins": origin})[1]) == ["endpunkt.cors_origins"]


# -- from where


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("::ffff:10.1.2.3", True),
        ("fe80::1%eth0", True),
        ("2001:db8::1", False),
        ("", False),
    ],
)
def test_networks(address: str, inside: bool) -> None:
    refusal = guard("10.0.0.0/8", "fe80::/10").place("diabetes", Peer(address))
    assert (refusal is None) == inside
    assert inside or (refusal is not None and (refusal.status, refusal.code) == (403, "NetworkNotAllowed"))


def test_an_endpoint_that_is_not_public() -> None:
    closed = guard(private=True)
    refusal = closed.place("diabetes", Peer("127.0.0.1"))
    assert refusal is not None
    assert (refusal.status, refusal.code) == (403, "PublicNetworkAccessDisabled")
    assert "ENDPUNKT_PRIVATE_PORT" in refusal.message
    assert closed.place("diabetes", Peer("127.0.0.1", private=True)) is None
    assert guard("10.0.0.0/8", private=True).place("diabetes", Peer("127.0.0.1", private=True)) is not None


async def test_the_private_port(bench: Bench) -> None:
    model = await bench.model()
    documents = bench.documents
    blue = {"blue": documents.deployment()}
    ready = documents.observed({"blue": {"i": model.address}})
    bench.publish(documents.desired(blue, {"blue": 100}, public_network_access="disabled"), ready)
    listener = Listener(bench.gateway)
    port = await listener.start("127.0.0.1", 0, None, private=True)
    public, private = await bench.client(), await bench.client(port)
    assert (await public.score(key="wrong")).code == "PublicNetworkAccessDisabled"
    assert (await private.score(key="wrong")).status == 401
    assert (await private.score()).status == 200
    bench.publish(
        documents.desired(blue, {"blue": 100}, properties={"endpunkt.allowed_networks": "192.0.2.0/24"}), ready
    )
    assert (await public.score()).code == "NetworkNotAllowed"
    bench.publish(documents.desired(blue, {"blue": 100}), ready)
    assert (await public.score()).status == 200
    assert len(model.requests) == 2


# -- how often


def test_a_rate_allows_one_second_at_once_and_then_as_many_as_pass() -> None:
    limited, peer = guard(rate=4), Peer()
    taken = [limited.take("diabetes", peer, now) is None for now in (10.0,) * 6]
    assert taken == [True] * 4 + [False] * 2
    assert [limited.take("diabetes", peer, 10.25) is None for _ in range(2)] == [True, False]
    assert sum(limited.take("diabetes", peer, 11 + at / 100) is None for at in range(200)) == 3 + 7
    refusal = limited.take("diabetes", peer, 12.99)
    assert refusal is not None
    assert (refusal.status, refusal.code, refusal.headers) == (429, "RateLimitExceeded", b"retry-after: 1\r\n")


async def test_connections_are_counted_until_they_end_and_updates_forget_none(bench: Bench) -> None:
    model = await bench.model()
    documents = bench.documents

    def publish(**more: Any) -> None:
        desired = documents.desired(
            {"blue": documents.deployment()}, {"blue": 100}, properties={"endpunkt.connections": "2"}, **more
        )
        bench.publish(desired, documents.observed({"blue": {"i": model.address}}))

    publish()
    first, second, third = [await bench.client() for _ in range(3)]
    assert [(await client.score()).status for client in (first, second, first, second)] == [200] * 4
    publish(primary="another")
    refused = await third.score(key="another")
    assert (refused.code, refused.headers["connection"]) == ("TooManyConnections", "close")
    assert (await (await bench.client()).score(key="wrong")).status == 401  # counts for nothing
    first.writer.close()
    entry = bench.gateway.table.entries[b"diabetes"]
    await bench.until(lambda: len(entry.guard._peers) == 1)
    assert (await (await bench.client()).score(key="another")).status == 200


# -- pages of other origins


async def test_pages_of_other_origins(bench: Bench) -> None:
    own = b"HTTP/1.1 200 OK\r\naccess-control-allow-origin: *\r\nx-mine: 1\r\ncontent-length: 2\r\n\r\n[]"
    model = await bench.model(own)
    documents = bench.documents
    desired = documents.desired(
        {"blue": documents.deployment()}, {"blue": 100}, properties={"endpunkt.cors_origins": ORIGIN}
    )
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))
    client = await bench.client()

    def ask(origin: str) -> bytes:
        lines = ("OPTIONS /diabetes/score HTTP/1.1", "Host: localhost", f"Origin: {origin}")
        more = ("Access-Control-Request-Method: POST", "Access-Control-Request-Headers: authorization,x-a")
        return "\r\n".join([*lines, *more, "", ""]).encode()

    client.send(ask(ORIGIN))
    answer = await client.answer()
    assert (answer.status, answer.body, len(model.requests)) == (200, b"", 0)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "authorization,x-a"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["vary"] == "origin"
    client.send(ask("https://evil.example"))
    refused = await client.answer()
    assert (refused.status, "access-control-allow-origin" in refused.headers) == (401, False)

    answer = await client.score(b"{}", f"Origin: {ORIGIN}")
    assert (answer.status, answer.headers["access-control-allow-origin"], answer.headers["x-mine"]) == (
        200,
        ORIGIN,
        "1",
    )
    assert "x-request-id" in answer.headers["access-control-expose-headers"]
    answer = await client.score(b"{}", f"Origin: {ORIGIN}", key="wrong")  # a page can read why it is refused
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (401, ORIGIN)
    answer = await client.score(b"{}", "Origin: https://evil.example")
    assert (answer.status, "access-control-allow-origin" in answer.headers) == (200, False)
    answer = await client.score()
    assert answer.headers["access-control-allow-origin"] == "*"  # no page asks: it is the model's word
    assert model.requests[0].header("origin") == ORIGIN


async def test_every_origin(bench: Bench) -> None:
    model = await bench.model()
    documents = bench.documents
    desired = documents.desired(
        {"blue": documents.deployment()}, {"blue": 100}, properties={"endpunkt.cors_origins": "*"}
    )
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))
    answer = await (await bench.client()).score(b"{}", "Origin: https://any.example")
    assert (answer.headers["access-control-allow-origin"], "vary" in answer.headers) == ("*", False)


# -- what keeps its deployment


def test_choices_follow_the_split_and_few_move_when_it_changes() -> None:
    values = [b"session-%d" % number for number in range(10_000)]
    before = {value: choice(value, {"blue": 90, "green": 10, "dark": 0}) for value in values}
    after = {value: choice(value, {"blue": 80, "green": 20, "dark": 0}) for value in values}
    assert Counter(before.values())["green"] == pytest.approx(1000, rel=0.1)
    assert Counter(after.values())["green"] == pytest.approx(2000, rel=0.1)
    moved = {(before[value], after[value]) for value in values if before[value] != after[value]}
    assert moved == {("blue", "green")}  # nobody moves the other way
    assert {choice(value, {"blue": 100, "green": 0}) for value in values} == {"blue"}
    assert choice(b"any", {"blue": 0}) is None


@pytest.mark.parametrize(
    ("headers", "value"),
    [
        (["a=1; s=2"], "2"),
        (["s=2"], "2"),
        (["xs=1; s = 3 ;s=4"], "3"),
        (["a=1", "s=2; b=3", "s=4"], "2"),
        (["a=1;", "s=2"], "2"),
        (["s"], ""),
        ([""], ""),
        ([], ""),
        (["S=1"], ""),
    ],
)
def test_a_cookies_value(headers: list[str], value: str) -> None:
    assert cookie([header.encode() for header in headers], b"s") == value.encode()


def test_headers_that_the_router_keeps_for_itself_keep_no_deployment_and_are_refused() -> None:
    values = {b"transfer-encoding": b"chunked", b"expect": b"100-continue", b"content-length": b"2"}
    for name in (*_OF_A_REQUEST, b"x-session", b"cookie"):
        head = RequestHead(b"POST", "1.1")
        read_request(head, [(name.title(), values.get(name, b"a-value"))])
        sticks = value_of(head.lines, name) != b"" and head.pin is None
        problems = rules_of({"endpunkt.sticky": f"header:{name.title().decode()}"})[1]
        assert list(problems) == ([] if sticks else ["endpunkt.sticky"]), name
        assert sticks == (name.decode() not in NEVER_STICKY)
    assert "x-session-id" in rules_of({"endpunkt.sticky": "header:Authorization"})[1]["endpunkt.sticky"]


@pytest.mark.parametrize("by", ["header:x-session", "cookie:session"])
async def test_requests_with_the_same_value_keep_their_deployment(bench: Bench, by: str) -> None:
    models = {name: await bench.model() for name in ("blue", "green")}
    documents = bench.documents
    desired = documents.desired(
        {name: documents.deployment() for name in models}, {"blue": 50, "green": 50}, properties={"endpunkt.sticky": by}
    )
    bench.publish(desired, documents.observed({name: {name: model.address} for name, model in models.items()}))
    client = await bench.client()
    seen: dict[str, set[str]] = {}
    for session in [f"s{number}" for number in range(20)] * 3:
        lines = [f"X-Session: {session}"] if by.startswith("header") else ["Cookie: a=b", f"Cookie: session={session}"]
        answer = await client.score(b"{}", *lines)
        assert "set-cookie" not in answer.headers
        seen.setdefault(session, set()).add(answer.headers["azureml-model-deployment"])
    assert {len(deployments) for deployments in seen.values()} == {1}
    assert set.union(*seen.values()) == {"blue", "green"}
    answer = await client.score(b"{}", "X-Session: s0", "Cookie: session=s0", "azureml-model-deployment: green")
    assert answer.headers["azureml-model-deployment"] == "green"  # a pin goes before
    answer = await client.score()
    if by.startswith("header"):
        assert "set-cookie" not in answer.headers
        told = [(await client.score()).headers["azureml-model-deployment"] for _ in range(10)]
        assert sorted(told) == ["blue"] * 5 + ["green"] * 5  # without a value it follows the split
    else:
        given, _, flags = answer.headers["set-cookie"].partition(";")
        assert "HttpOnly" in flags
        again = await client.score(b"{}", f"Cookie: {given}")
        assert again.headers["azureml-model-deployment"] == answer.headers["azureml-model-deployment"]


async def test_a_rate_over_the_wire(bench: Bench) -> None:
    model = await bench.model()
    documents = bench.documents
    desired = documents.desired(
        {"blue": documents.deployment()}, {"blue": 100}, properties={"endpunkt.requests_per_second": "1"}
    )
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))
    clients = [await bench.client() for _ in range(8)]
    answers = await asyncio.gather(*[client.score() for client in clients])
    refused = [answer for answer in answers if answer.status != 200]
    assert {answer.code for answer in refused} == {"RateLimitExceeded"}
    assert len(model.requests) + len(refused) == 8
