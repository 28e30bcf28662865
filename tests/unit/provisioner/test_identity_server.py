"""The token service over its socket, with the unmodified azure-identity as its client."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import jwt as pyjwt
import pytest
from azure.identity import CredentialUnavailableError, ManagedIdentityCredential
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

from contracts.identities import system_assigned, user_assigned
from contracts.messages import EndpointDesired, ManagedIdentity, OnlineEndpointSpec
from contracts.shell.identity import discovery_path, jwks_path, tenant_id
from provisioner.identity import server
from provisioner.identity.server import Identity

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ISSUER = "https://localhost:8444/identity"
STORAGE = "https://storage.azure.com"
RED, BLUE = "/subscriptions/s/red", "/subscriptions/s/blue"
Query = dict[str, str]


def endpoint(*assigned: str) -> EndpointDesired:
    identity = ManagedIdentity.model_validate(
        {"type": "user_assigned", "user_assigned_identities": [{"resource_id": each} for each in assigned]}
        if assigned
        else {}
    )
    spec = OnlineEndpointSpec(identity=identity)
    return EndpointDesired(endpoint="diabetes", generation=1, created_at=NOON, updated_at=NOON, spec=spec)


@asynccontextmanager
async def running(home: Path) -> AsyncIterator[Identity]:
    identity = Identity(home, ISSUER)
    task = asyncio.create_task(identity.run())
    await asyncio.sleep(0)  # it has begun, so it ends in order
    try:
        yield identity
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def asked(variables: Mapping[str, str], **query: str) -> tuple[int, dict[str, Any]]:
    query = {"api-version": "2019-08-01", "resource": STORAGE, **query}
    headers = {"X-IDENTITY-HEADER": variables["IDENTITY_HEADER"]}
    async with (
        aiohttp.ClientSession() as http,
        http.get(variables["IDENTITY_ENDPOINT"], params=query, headers=headers) as answer,
    ):
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status, await answer.json()


@pytest.fixture
def as_instance(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Runs azure-identity as an instance with these variables would."""

    async def token(variables: Mapping[str, str], scope: str = f"{STORAGE}/.default", **selection: Any) -> Any:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        credential = ManagedIdentityCredential(**selection)
        return await asyncio.to_thread(credential.get_token, scope)

    return token


def contents_below(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def said(token: str, home: Path, audience: str = STORAGE) -> dict[str, Any]:
    """The claims of a token, verified as an outside service would: by what the issuer publishes."""
    discovery = json.loads(discovery_path(home).read_bytes())
    jwks = json.loads(jwks_path(home).read_bytes())
    assert discovery["jwks_uri"] == f"{discovery['issuer']}/jwks"
    decoded = jwt.decode(token, KeySet.import_key_set(jwks), algorithms=["RS256"])
    rules = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": discovery["issuer"]}, aud={"essential": True, "value": audience}
    )
    rules.validate(decoded.claims)
    key = pyjwt.PyJWKSet.from_dict(jwks)[pyjwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = pyjwt.decode(
        token, key, algorithms=["RS256"], audience=audience, issuer=discovery["issuer"]
    )
    assert claims == decoded.claims
    return claims


async def test_azure_identity_gets_a_system_assigned_token(tmp_path: Path, as_instance: Callable[..., Any]) -> None:
    async with running(tmp_path) as identity:
        token = await as_instance(identity.variables(endpoint(), "blue", "diabetes-blue-1"))
    own = system_assigned(tenant_id(tmp_path), "diabetes", NOON)
    claims = said(token.token, tmp_path)
    assert (claims["sub"], claims["oid"], claims["appid"]) == (own.principal_id, own.principal_id, own.client_id)
    assert (claims["tid"], claims["xms_mirid"]) == (str(tenant_id(tmp_path)), own.resource_id)
    assert (claims["endpoint"], claims["deployment"]) == ("diabetes", "blue")
    assert claims["exp"] - claims["iat"] == 3600
    assert abs(token.expires_on - claims["exp"]) <= 1


@pytest.mark.parametrize("by", ["client_id", "resource_id", "object_id"])
async def test_azure_identity_chooses_a_user_assigned_one(
    tmp_path: Path, as_instance: Callable[..., Any], by: str
) -> None:
    blue = user_assigned(tenant_id(tmp_path), BLUE)
    config = {"client_id": blue.client_id, "resource_id": BLUE, "object_id": blue.principal_id}
    selection = {"client_id": blue.client_id} if by == "client_id" else {"identity_config": {by: config[by]}}
    async with running(tmp_path) as identity:
        variables = identity.variables(endpoint(RED, BLUE), "blue", "diabetes-blue-1")
        token = await as_instance(variables, "https://vault.azure.net/.default", **selection)
    claims = said(token.token, tmp_path, "https://vault.azure.net")
    assert (claims["sub"], claims["xms_mirid"]) == (blue.principal_id, BLUE)


async def test_azure_identity_tells_why_there_is_none(tmp_path: Path, as_instance: Callable[..., Any]) -> None:
    async with running(tmp_path) as identity:
        variables = identity.variables(endpoint(RED, BLUE), "blue", "diabetes-blue-1")
        with pytest.raises(CredentialUnavailableError, match="Multiple user assigned identities exist"):
            await as_instance(variables)
        with pytest.raises(CredentialUnavailableError, match="400, Unable to load the proper Managed Identity"):
            await as_instance(variables, client_id="00000000-0000-0000-0000-000000000000")
        with pytest.raises(CredentialUnavailableError, match="401"):
            await as_instance({**variables, "IDENTITY_HEADER": "guessed"}, client_id="any")


async def test_the_document_is_that_of_app_service(tmp_path: Path) -> None:
    async with running(tmp_path) as identity:
        status, document = await asked(identity.variables(endpoint(), "blue", "i-1"))
    own = system_assigned(tenant_id(tmp_path), "diabetes", NOON)
    claims = said(document.pop("access_token"), tmp_path)
    assert status == 200
    assert document == {
        "client_id": own.client_id,
        "expires_on": str(claims["exp"]),
        "resource": STORAGE,
        "token_type": "Bearer",
    }


@pytest.mark.parametrize(
    ("query", "header", "status"),
    [
        ({}, "guessed", 401),
        ({}, "", 401),
        ({}, "g\udcfcessed", 401),
        ({"client_id": "unknown"}, None, 400),
        ({"resource": ""}, None, 400),
        ({"api-version": "2017-09-01"}, None, 400),
    ],
)
async def test_refusals_have_one_shape(tmp_path: Path, query: Query, header: str | None, status: int) -> None:
    async with running(tmp_path) as identity:
        variables = dict(identity.variables(endpoint(), "blue", "i-1"))
        if header is not None:
            variables["IDENTITY_HEADER"] = header
        got, document = await asked(variables, **query)
    assert got == status == document["statusCode"]
    assert document.keys() == {"statusCode", "message", "correlationId"}
    assert re.fullmatch("[0-9a-f]{32}", document["correlationId"])


async def test_headers_outlive_the_process_and_end_with_the_instance(tmp_path: Path) -> None:
    async with running(tmp_path) as identity:
        adopted = identity.variables(endpoint(), "blue", "i-1")
        ended = identity.variables(endpoint(), "blue", "i-2")
        stays = identity.variables(endpoint(), "blue", "i-3")
        identity.forget("i-2")
        assert (await asked(ended))[0] == 401
    async with running(tmp_path) as identity:
        assert (await asked(adopted))[0] == (await asked(stays))[0] == 200
        identity.keep({"i-1"})
        assert (await asked(stays))[0] == 401
        assert (await asked(adopted))[0] == 200
    async with running(tmp_path):
        assert (await asked(adopted))[0] == 200
        assert (await asked(stays))[0] == 401
    headers = [variables["IDENTITY_HEADER"].encode() for variables in (adopted, ended, stays)]
    contents = contents_below(tmp_path)
    assert not any(header in content for header in headers for content in contents)


async def test_a_port_that_somebody_took_gets_no_header_that_opens_anything(tmp_path: Path) -> None:
    async with running(tmp_path) as identity:
        before, port = identity.variables(endpoint(), "blue", "i-1"), identity.port
    with socket.create_server(("127.0.0.1", port)):
        async with running(tmp_path) as identity:
            assert identity.port != port
            moved = {**before, "IDENTITY_ENDPOINT": f"http://127.0.0.1:{identity.port}/msi/token"}
            assert (await asked(moved))[0] == 401
            assert (await asked(identity.variables(endpoint(), "blue", "i-2")))[0] == 200


async def test_an_instance_cannot_keep_the_service_busy(tmp_path: Path) -> None:
    async with running(tmp_path) as identity:
        greedy = identity.variables(endpoint(), "blue", "i-1")
        modest = identity.variables(endpoint(), "blue", "i-2")
        answers = [await asked(greedy, client_id="unknown") for _ in range(120)]
        assert {status for status, _ in answers} == {400, 429}
        assert (await asked(modest))[0] == 200


async def test_connections_are_few_and_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_CONNECTIONS", 3)
    monkeypatch.setattr(server, "_CONNECTION_SECONDS", 0.5)
    async with running(tmp_path) as identity, asyncio.timeout(20):
        variables = identity.variables(endpoint(), "blue", "i-1")
        held = [await asyncio.open_connection("127.0.0.1", identity.port) for _ in range(6)]
        # Three are hung up on at once, the others when their time is over, though they never asked for anything.
        for reader, writer in held:
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert (await asked(variables))[0] == 200


async def test_a_key_is_published_before_it_signs(tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    async with running(tmp_path) as identity:
        old = (await asked(identity.variables(endpoint(), "blue", "i-1")))[1]["access_token"]
    next_key = secrets / "identity-key-next.pem"
    next_key.write_bytes(RSAKey.generate_key(2048).as_pem(private=True))
    async with running(tmp_path) as identity:
        variables = identity.variables(endpoint(), "blue", "i-2")
        between = (await asked(variables))[1]["access_token"]
    kids = {key["kid"] for key in json.loads(jwks_path(tmp_path).read_bytes())["keys"]}
    assert len(kids) == 2
    (secrets / "identity-key.pem").rename(secrets / "identity-key-old.pem")
    next_key.rename(secrets / "identity-key.pem")
    async with running(tmp_path):
        new = (await asked(variables))[1]["access_token"]
    assert [pyjwt.get_unverified_header(token)["kid"] for token in (old, between, new)].count(
        pyjwt.get_unverified_header(new)["kid"]
    ) == 1
    for token in (old, between, new):
        said(token, tmp_path)


async def test_the_issuer_publishes_no_private_part(tmp_path: Path) -> None:
    async with running(tmp_path) as identity, aiohttp.ClientSession() as http:
        origin = f"http://127.0.0.1:{identity.port}"
        async with http.get(f"{origin}/jwks") as answer:
            jwks = await answer.json()
        async with http.get(f"{origin}/.well-known/openid-configuration") as answer:
            discovery = await answer.json()
    assert jwks == json.loads(jwks_path(tmp_path).read_bytes())
    assert discovery == json.loads(discovery_path(tmp_path).read_bytes())
    assert all(key.keys() == {"kty", "n", "e", "kid", "use", "alg"} for key in jwks["keys"])
