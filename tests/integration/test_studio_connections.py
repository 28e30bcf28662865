"""Connections over the management API and by the `endpunkt` command: secrets go in and stay in."""

import asyncio
import json
import os
import ssl
import stat
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from contracts.log import KafkaSettings
from contracts.shell.connections import Connections
from contracts.shell.identity import discovery_path, jwks_path
from contracts.shell.secrets import admin_token
from contracts.shell.tls import ca_path
from endpunkt_infra.services import ServiceProcess

StartService = Callable[..., ServiceProcess]
SECRET = "s3cret-" + "7" * 20
CUSTOM = {"type": "custom", "target": "https://there", "credentials": {"key": SECRET}, "metadata": {"ApiVersion": "1"}}


@dataclass
class Api:
    """A client of a studio, and of the files that it keeps."""

    http: aiohttp.ClientSession
    service: ServiceProcess
    url: str
    home: Path

    async def __call__(self, method: str, path: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {admin_token(self.home) if token is None else token}"}
        async with self.http.request(method, self.url + path, json=body, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None

    async def endpunkt(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        """Run the command; its exit code and what it printed."""
        environment = {**os.environ, "ENDPUNKT_STUDIO_URL": self.url, "ENDPUNKT_HOME": str(self.home)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "endpunkt_cli", *arguments, env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, errors = await asyncio.wait_for(process.communicate(stdin.encode()), 60)
        assert process.returncode is not None
        return process.returncode, output.decode(), errors.decode()


@pytest.fixture
async def api(kafka: KafkaSettings, start_service: StartService, tmp_path: Path) -> AsyncIterator[Api]:
    service = start_service("studio", studio_port="0", idle_seconds="15")
    url = service.readiness()["addresses"]["management"].replace("127.0.0.1", "localhost")
    context = ssl.create_default_context(cafile=ca_path(tmp_path))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        yield Api(http, service, url, tmp_path)


async def test_a_connection_from_its_making_to_its_end(api: Api) -> None:
    status, made = await api("PUT", "/v1/connections/aoai", CUSTOM)
    assert status == 201
    assert made["name"] == "aoai"
    assert made["properties"] == {**CUSTOM, "description": "", "tags": {}, "credentials": {"key": None}}
    assert await api("GET", "/v1/connections/aoai") == (200, made)
    assert await api("GET", "/v1/connections") == (200, {"value": [made]})

    status, secrets = await api("POST", "/v1/connections/aoai/listSecrets")
    assert (status, secrets["properties"]["credentials"]) == (200, {"key": SECRET})

    status, replaced = await api("PUT", "/v1/connections/aoai", {**CUSTOM, "credentials": {"other": "x"}})
    assert status == 200
    assert replaced["properties"]["credentials"] == {"other": None}
    assert replaced["created_at"] == made["created_at"] < replaced["updated_at"]

    assert await api("DELETE", "/v1/connections/aoai") == (204, None)
    assert (await api("DELETE", "/v1/connections/aoai"))[0] == 404
    assert (await api("GET", "/v1/connections/aoai"))[0] == 404


async def test_secrets_lie_sealed_and_are_told_nowhere(api: Api) -> None:
    await api("PUT", "/v1/connections/aoai", CUSTOM)
    for bad in ({"type": "custom", "credentials": {"key": [SECRET]}}, {"type": "custom", SECRET: SECRET, "target": 1}):
        status, document = await api("PUT", "/v1/connections/aoai", bad)
        assert status == 400
        assert SECRET not in json.dumps([detail["message"] for detail in document["error"]["details"]])
    path = api.home / "secrets" / "connections" / "aoai.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert holders(api.home, SECRET) == []


def holders(folder: Path, text: str) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


async def test_connections_are_behind_the_token_and_issuers_are_not(api: Api) -> None:
    for method, path in (("GET", ""), ("GET", "/aoai"), ("PUT", "/aoai"), ("POST", "/aoai/listSecrets")):
        assert (await api(method, f"/v1/connections{path}", token="guessed"))[0] == 401
    status, jwks = await api("GET", "/identity/jwks", token="")
    assert (status, jwks) == (200, json.loads(jwks_path(api.home).read_text()))
    assert [set(key) for key in jwks["keys"]] == [{"kty", "n", "e", "kid", "use", "alg"}]
    status, found = await api("GET", "/identity/.well-known/openid-configuration", token="")
    assert (status, found) == (200, json.loads(discovery_path(api.home).read_text()))
    assert found["jwks_uri"] == found["issuer"] + "/jwks"
    jwks_path(api.home).unlink()
    status, document = await api("GET", "/identity/jwks", token="")
    assert (status, document["error"]["code"]) == (404, "ResourceNotFound")
    # No other path is open because it begins alike.
    assert (await api("GET", "/identity/jwks/", token=""))[0] == 401


@pytest.mark.parametrize("name", ["ab", "x" * 34, "a.b", "..%2F..%2Fseal"])
async def test_names(api: Api, name: str) -> None:
    assert (await api("PUT", f"/v1/connections/{name}", CUSTOM))[0] == 404
    assert Connections(api.home).names() == []


async def test_the_command(api: Api, tmp_path: Path) -> None:
    text = "name: aoai\ntype: azure_open_ai\nendpoint: https://there\napi_key: placeholder\napi_version: 2024-02-01\n"
    file, key = tmp_path / "connection.yml", tmp_path / "key.txt"
    write(file, text)
    code, output, errors = await api.endpunkt(
        "connection", "create", "-f", str(file), "--set", "credentials.key=@-", stdin=f"{SECRET}\n"
    )
    assert code == 0, errors
    assert json.loads(output)["credentials"] == {"key": None}
    assert json.loads(output)["metadata"] == {"ApiType": "Azure", "ApiVersion": "2024-02-01"}
    code, output, _ = await api.endpunkt("connection", "show", "-n", "aoai", "--populate-secrets")
    assert (code, json.loads(output)["credentials"]) == (0, {"key": SECRET})

    write(key, "from a file")
    code, output, errors = await api.endpunkt(
        "connection", "create", "-f", "-", "-n", "second", "--set", f"api_key=@{key}", stdin=text
    )
    assert code == 0, errors
    stored = Connections(api.home).get("second")
    assert stored is not None
    assert stored.spec.credentials == {"key": "from a file"}

    code, output, _ = await api.endpunkt("connection", "list", "--query", "[].name", "-o", "tsv")
    assert (code, output.split()) == (0, ["aoai", "second"])
    code, _, errors = await api.endpunkt("connection", "create", "-f", str(file), "--set", f"api_key={SECRET}")
    assert code == 1
    assert "every user of this machine can see" in errors
    assert SECRET not in errors
    code, _, errors = await api.endpunkt("connection", "delete", "-n", "aoai")
    assert (code, "give --yes" in errors) == (1, True)
    assert (await api.endpunkt("connection", "delete", "-n", "aoai", "--yes"))[0] == 0
    assert Connections(api.home).names() == ["second"]
    assert SECRET not in api.service.log.read_text()


def write(path: Path, text: str) -> None:
    path.write_text(text)
