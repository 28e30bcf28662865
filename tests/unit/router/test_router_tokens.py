"""Tokens: our own and another issuer's, with real signatures; rotation refuses nobody."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from contracts.scoring_tokens import AUDIENCE, TOKEN_SECONDS, claims
from contracts.shell.identity import jwks_path
from contracts.shell.signing import Signer
from router import issuers
from router.issuers import Issuers
from router.tokens import LEEWAY_SECONDS, Issuer, Tokens, UnknownKey

Bench = Any
NOW = 1_800_000_000


def public(key: RSAKey | ECKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig"}


def signed(key: RSAKey | ECKey, said: dict[str, Any], alg: str = "ES256") -> bytes:
    return b"Bearer " + jwt.encode({"alg": alg, "kid": key.thumbprint()}, said, key, [alg]).encode()


class World:
    """An endpoint of each kind, and who signs for them."""

    def __init__(self, bench: Bench):
        self.bench, self.key, self.other = bench, ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
        self.issuer = Issuer("https://login.example")
        self.tokens = Tokens(self.issuer)
        self.tokens.trust(own=[public(self.key)], outer=[public(self.other)])

    def route(self, mode: str = "aml_token", name: str = "diabetes") -> Any:
        documents = self.bench.documents
        desired = documents.desired({"blue": documents.deployment()}, {"blue": 100}, name=name, auth_mode=mode)
        return (
            self.bench.gateway.table.apply(name, desired, {}, 0.0)
            and self.bench.gateway.table.entries[name.encode()].route
        )

    def own(self, name: str = "diabetes", **changes: Any) -> dict[str, Any]:
        return claims(name, self.route(name=name).created_at, "https://house.example", NOW, "1") | changes

    def outer(self, **changes: Any) -> dict[str, Any]:
        said = {"iss": "https://login.example", "aud": AUDIENCE, "exp": NOW + 600, "roles": ["endpunkt.score"]}
        return said | changes

    def code(self, authorization: bytes | None, route: Any, now: float = NOW) -> tuple[int, str] | None:
        refusal = self.tokens.check(authorization, route, now)
        return None if refusal is None else (refusal.status, refusal.message)


@pytest.fixture
def world(bench: Bench) -> World:
    return World(bench)


def test_our_own(world: World) -> None:
    route = world.route()
    good = signed(world.key, world.own())
    assert world.code(good, route) is None
    assert world.code(good, route) is None  # remembered
    assert world.code(good, route, NOW - LEEWAY_SECONDS) is None
    assert world.code(good, route, NOW + TOKEN_SECONDS + LEEWAY_SECONDS - 1) is None
    for now, reason in ((NOW + TOKEN_SECONDS + LEEWAY_SECONDS, "expired"), (NOW - LEEWAY_SECONDS - 1, "not hold yet")):
        refused = world.code(good, route, now)
        assert refused is not None
        assert (refused[0], reason in refused[1]) == (401, True)
    for other in (
        world.own("another"),
        world.own(endpoint_created_at="2020-01-01T00:00:00+00:00"),  # its name's earlier owner
        world.own(scp=None),  # such as an instance's token, which the same key signs
        world.own(aud="https://storage.azure.com"),
    ):
        refused = world.code(signed(world.key, other), route)
        assert refused is not None
        assert refused[0] == 403


@pytest.mark.parametrize(
    "authorization",
    [None, b"", b"Basic eDp5", b"Bearer ", b"Bearer x", b"Bearer a.b.c", b"Bearer \xff\xfe", b"Bearer {0}.{1}.{2}"],
)
def test_what_is_no_token(world: World, authorization: bytes | None) -> None:
    refused = world.code(authorization, world.route())
    assert refused is not None
    assert refused[0] == 401


def test_signatures(world: World) -> None:
    route, said = world.route(), world.own()
    good = signed(world.key, said)
    forged = jwt.encode({"alg": "ES256", "kid": world.key.thumbprint()}, said, world.other).encode()
    secret = OctKey.import_key(json.dumps(public(world.key)).encode())  # the public key taken for a shared secret
    confused = jwt.encode({"alg": "HS256", "kid": world.key.thumbprint()}, said, secret, ["HS256"]).encode()
    head, body, _ = good.removeprefix(b"Bearer ").split(b".")
    unsigned = jwt.encode({"alg": "none", "kid": world.key.thumbprint()}, said, world.key, ["none"]).encode()
    for token in (forged, confused, unsigned, b"%b.%b." % (head, body), good.removeprefix(b"Bearer ")[:-2] + b"AA"):
        refused = world.code(b"Bearer " + token, route)
        assert refused is not None, token
        assert refused[0] == 401
    with pytest.raises(UnknownKey):
        world.code(signed(world.other, said), route)
    world.tokens.trust(own=[public(world.other)])
    with pytest.raises(UnknownKey):  # remembered, but its key is trusted no more
        world.code(good, route)


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, None),
        ({"roles": ["other", "endpunkt.score/diabetes"]}, None),
        ({"aud": ["x", AUDIENCE]}, None),
        ({"roles": "a endpunkt.score"}, None),
        ({"roles": ["endpunkt.score/another"]}, 403),
        ({"roles": []}, 403),
        ({"roles": {"endpunkt.score": 1}}, 403),
        ({"aud": "https://graph.example"}, 401),
        ({"aud": None}, 401),
        ({"iss": "https://evil.example"}, 401),
        ({"exp": None}, 401),
        ({"exp": "soon"}, 401),
        ({"exp": NOW - 600}, 401),
        ({"nbf": NOW + 600}, 401),
    ],
)
def test_another_issuers(world: World, changes: dict[str, Any], status: int | None) -> None:
    refused = world.code(signed(world.other, world.outer(**changes)), world.route("aad_token"))
    assert (refused and refused[0]) == status


def test_each_kind_of_endpoint_takes_its_own_kind_of_token(world: World) -> None:
    own, outer = signed(world.key, world.own()), signed(world.other, world.outer())
    assert world.code(own, world.route()) is None
    assert world.code(outer, world.route("aad_token")) is None
    with pytest.raises(UnknownKey):
        world.code(outer, world.route())
    with pytest.raises(UnknownKey):
        world.code(own, world.route("aad_token"))
    world.tokens.issuer = None
    refused = world.code(outer, world.route("aad_token"))
    assert refused is not None
    assert "ENDPUNKT_OIDC_ISSUER" in refused[1]


def test_keys_that_are_none_are_left_out(world: World) -> None:
    bad: list[Any] = [{}, {"kty": "RSA"}, {"kty": "new"}, {"kty": "EC", "crv": "P-256", "x": 7, "y": []}]
    world.tokens.trust(own=[*bad, public(world.key)])
    assert world.code(signed(world.key, world.own()), world.route()) is None
    world.tokens.trust(own=[])
    with pytest.raises(UnknownKey):
        world.code(signed(world.key, world.own()), world.route())


class Checks:
    """Counts how often a signature is looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.count, self._real = 0, jwt.decode
        monkeypatch.setattr(jwt, "decode", self._decode)

    def _decode(self, *arguments: Any) -> Any:
        self.count += 1
        return self._real(*arguments)


def test_a_signature_is_checked_once_as_long_as_its_key_is_trusted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, outer = signed(world.key, world.own()), signed(world.other, world.outer())
    routes = {own: world.route(), outer: world.route("aad_token", name="theirs")}
    checks = Checks(monkeypatch)

    def all_pass() -> None:
        assert [world.code(token, route) for token, route in routes.items()] == [None, None]

    for _ in range(100):
        all_pass()
    assert checks.count == 2
    more = public(ECKey.generate_key("P-256"))
    world.tokens.trust(own=[public(world.key), more])
    all_pass()
    assert checks.count == 4
    for _ in range(5):  # as anybody can have them read again, who names a key that there is none of
        with pytest.raises(UnknownKey):
            world.code(signed(ECKey.generate_key("P-256"), world.own()), world.route())
        before = checks.count
        world.tokens.trust(own=[more, dict(reversed(public(world.key).items()))], outer=[public(world.other)])
        all_pass()
        assert checks.count == before
    world.tokens.trust(outer=[])
    with pytest.raises(UnknownKey):
        world.code(outer, routes[outer])


def test_of_too_many_tokens_those_are_forgotten_that_were_not_used_for_longest(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.tokens._REMEMBERED", 3)
    route = world.route()
    busy, *others = [signed(world.key, world.own(jti=str(number))) for number in range(6)]
    checks = Checks(monkeypatch)
    for other in others:
        assert world.code(other, route) is None
        assert world.code(busy, route) is None
    assert checks.count == 6
    assert [world.code(token, route) for token in (*others[-2:], busy)] == [None] * 3
    assert checks.count == 6
    assert world.code(others[0], route) is None
    assert checks.count == 7


# -- where keys come from


class Login:
    """An issuer that people run beside us, over HTTP on the loopback address."""

    def __init__(self) -> None:
        self.keys: list[Any] = []
        self.asked = 0
        self.name = ""

    async def discovery(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.name, "jwks_uri": f"{self.name}/keys"})

    async def jwks(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": self.keys})


@pytest.fixture
async def login() -> AsyncIterator[Login]:
    served = Login()
    app = web.Application()
    app.add_routes([web.get("/.well-known/openid-configuration", served.discovery), web.get("/keys", served.jwks)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    served.name = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def test_an_issuer_rotates_its_key_and_no_request_fails(
    bench: Bench, login: Login, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "AGAIN_SECONDS", 0.0)
    bench.gateway.tokens.issuer = Issuer(login.name)
    keys = Issuers(bench.gateway.tokens, tmp_path, None)
    bench.gateway.ask_issuers = keys.ask
    model = await bench.model()
    documents = bench.documents
    roomy = documents.deployment(max_concurrent_requests_per_instance=10)
    desired = documents.desired({"blue": roomy}, {"blue": 100}, auth_mode="aad_token")
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))
    first, second = RSAKey.generate_key(2048), ECKey.generate_key("P-256")
    login.keys = [public(first), {**public(first), "use": "enc"}]
    said = {"iss": login.name, "aud": AUDIENCE, "exp": 1 << 40, "roles": ["endpunkt.score"]}
    one = signed(first, said, "RS256").removeprefix(b"Bearer ").decode()
    two = signed(second, said).removeprefix(b"Bearer ").decode()

    client = await bench.client()  # nobody has read a key yet
    assert [(await client.score(key=one)).status for _ in range(3)] == [200] * 3
    assert login.asked == 1
    login.keys.append(public(second))
    clients = [await bench.client() for _ in range(5)]
    answers = await asyncio.gather(*[each.score(bytes(2 << 20), key=two) for each in clients])
    assert [answer.status for answer in answers] == [200] * 5  # long bodies wait for the verdict
    assert login.asked == 2  # together
    login.keys = login.keys[2:]
    assert (await client.score(key=one)).status == 200  # until the keys are read again
    read = asyncio.Event()
    keys.ask(read.set)
    await read.wait()
    refused = await client.score(b"{}", "x-ms-client-request-id: mine", key=one)
    assert (refused.status, refused.headers["x-ms-client-request-id"]) == (401, "mine")
    assert "does not publish" in json.loads(refused.body)["error"]["message"]
    assert len(model.requests) == 9


async def test_a_request_counts_for_a_limit_once_its_token_is_known_to_be_good(
    bench: Bench, login: Login, tmp_path: Path
) -> None:
    tokens = bench.gateway.tokens
    tokens.issuer = Issuer(login.name)
    bench.gateway.ask_issuers = Issuers(tokens, tmp_path, None).ask
    model = await bench.model()
    documents = bench.documents
    desired = documents.desired(
        {"blue": documents.deployment()},
        {"blue": 100},
        auth_mode="aad_token",
        properties={"endpunkt.connections": "2", "endpunkt.requests_per_second": "100"},
    )
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))
    guard = bench.gateway.table.entries[b"diabetes"].guard
    key, stranger = ECKey.generate_key("P-256"), ECKey.generate_key("P-256")
    login.keys = [public(key)]
    said = {"iss": login.name, "aud": AUDIENCE, "exp": 1 << 40, "roles": ["endpunkt.score"]}
    good, unknown = (signed(each, said).removeprefix(b"Bearer ").decode() for each in (key, stranger))

    strangers = [await bench.client() for _ in range(5)]
    assert [(await each.score(key=unknown)).status for each in strangers] == [401] * 5
    assert (guard._peers, guard._due) == (set(), 0.0)
    tokens.trust(outer=[])  # so that a good one's key is not known at first either
    bench.gateway.ask_issuers = lambda asker: (tokens.trust(outer=login.keys), asker())
    first, second, third = [await bench.client() for _ in range(3)]
    assert (await first.score(key=good)).status == 200
    assert len(guard._peers) == 1
    assert guard._due > 0
    assert (await second.score(key=good)).status == 200
    tokens.trust(outer=[])
    refused = await third.score(key=good)
    assert (refused.status, refused.code) == (429, "TooManyConnections")
    assert len(model.requests) == 2


async def test_an_issuer_that_is_away_is_told_and_its_keys_stay(
    bench: Bench, login: Login, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = ECKey.generate_key("P-256")
    login.keys = [public(key)]
    tokens = Tokens(Issuer(login.name))
    keys = Issuers(tokens, tmp_path, None)
    documents = bench.documents
    bench.gateway.table.apply(
        "diabetes", documents.desired({"blue": documents.deployment()}, {}, auth_mode="aad_token"), {}, 0.0
    )
    route = bench.gateway.table.entries[b"diabetes"].route
    token = signed(key, {"iss": login.name, "aud": AUDIENCE, "exp": NOW + 9, "roles": ["endpunkt.score"]})

    async def read() -> None:
        done = asyncio.Event()
        keys._read_at = float("-inf")
        keys.ask(done.set)
        await done.wait()

    await read()
    assert tokens.check(token, route, NOW) is None
    real, login.name = login.name, "https://another.example"
    await read()
    assert f"it is of 'https://another.example', not of '{real}'" in caplog.text
    assert tokens.check(token, route, NOW) is None
    tokens.issuer = Issuer("http://login.example")
    await read()
    assert "over https alone" in caplog.text
    (jwks_path(tmp_path)).parent.mkdir()
    jwks_path(tmp_path).write_text("[")
    await read()
    assert "jwks.json cannot be read" in caplog.text


async def test_our_own_from_the_signer_to_the_answer(bench: Bench, tmp_path: Path) -> None:
    signer = Signer(tmp_path, "https://house.example")
    bench.gateway.ask_issuers = Issuers(bench.gateway.tokens, tmp_path, None).ask
    model = await bench.model()
    documents = bench.documents
    desired = documents.desired({"blue": documents.deployment()}, {"blue": 100}, auth_mode="aml_token")
    bench.publish(desired, documents.observed({"blue": {"i": model.address}}))

    def made(name: str) -> str:
        return signer.sign(claims(name, desired.created_at, signer.issuer, NOW, "1") | {"exp": 1 << 40, "nbf": 0})

    client = await bench.client()
    assert (await client.score(key=made("diabetes"))).status == 200
    refused = await client.score(key=made("another"))
    assert (refused.status, refused.code) == (403, "Forbidden")
    assert (await client.score()).status == 401  # its key does not open an endpoint that takes tokens
    assert model.requests[0].header("authorization") is None
