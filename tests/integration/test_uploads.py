"""Uploads from the command's client to studio's server, over HTTPS: what arrives is whole, what broke off goes on."""

import asyncio
import hashlib
import json
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, TCPConnector, web
from aiohttp.typedefs import Handler

from contracts.artifacts.store import ArtifactStore
from contracts.artifacts.tree import CHUNK, File, Folder, Tree, parse_artifact_uri
from contracts.shell.secrets import admin_token
from contracts.shell.tls import ca_path, server_context
from endpunkt_cli import upload
from endpunkt_cli.client import ApiError, Unreachable
from endpunkt_cli.session import Session
from studio.server import Server, application
from studio.uploads import Uploads

LARGEST = 200 << 20


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class House:
    """A server with the routes of uploads. `meddle` is called with the path of each request, and may raise; `log` has
    what was asked."""

    def __init__(self, home: Path):
        self.home = home
        self.store = ArtifactStore(str(home / "store"), home / "cache", LARGEST)
        self.log: list[tuple[str, str]] = []
        self.meddle: Callable[[str], None] = lambda path: None
        self.server: Server | None = None
        self.port = 0

    async def start(self) -> None:
        @web.middleware
        async def meddling(request: web.Request, handler: Handler) -> web.StreamResponse:
            self.log.append((request.method, request.path))
            try:
                self.meddle(request.path)
            except ConnectionError:
                assert request.transport is not None
                request.transport.abort()
                raise web.HTTPServiceUnavailable from None
            return await handler(request)

        app = application(admin_token(self.home), 5)
        app.middlewares.append(meddling)
        app.add_routes(Uploads(self.store, LARGEST, 1).routes())
        self.server = Server(app, server_context(self.home, "studio", ["localhost", "127.0.0.1"]))
        await self.server.start("127.0.0.1", self.port)
        self.port = self.server.port

    async def stop(self) -> None:
        assert self.server is not None
        await self.server.stop()

    async def __call__(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {token or admin_token(self.home)}"}
        connector = TCPConnector(ssl=ssl.create_default_context(cafile=ca_path(self.home)))
        async with (
            ClientSession(connector=connector) as http,
            http.request(method, f"https://localhost:{self.port}{path}", data=data, headers=headers) as answer,
        ):
            return answer.status, await answer.json()


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    made = House(tmp_path / "home")
    await made.start()
    session = Session(url=f"https://localhost:{made.port}", home=made.home)
    monkeypatch.setattr(upload, "session", session)
    monkeypatch.setattr(upload, "_PAUSES", (0.01,) * 5)
    yield made
    await made.stop()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for index in range(6):
        (folder / "sub" / f"part-{index}").write_bytes(bytes([index]) * 1000)
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    return folder


def blobs(house: House) -> int:
    return sum("/blobs/" in path for _, path in house.log)


# The command


async def test_a_folder_arrives_and_is_not_sent_again(house: House, model: Path) -> None:
    uri = await asyncio.to_thread(upload.path_uploaded, model)
    path = house.store.fetch(parse_artifact_uri(uri))
    assert [(path / "sub" / f"part-{index}").read_bytes()[:1] for index in range(6)] == [bytes([i]) for i in range(6)]
    assert blobs(house) == 7
    assert uri == await asyncio.to_thread(upload.path_uploaded, model)
    assert blobs(house) == 7
    assert uri == f"artifact:{house.store.add(model).digest}/model", "the provisioner would give it the same name"


async def test_what_the_ignore_file_says_stays_here(house: House, model: Path) -> None:
    (model / ".amlignore").write_text("part-*\n!part-5\n")
    uri = await asyncio.to_thread(upload.path_uploaded, model)
    entries = [entry.path for entry in house.store.tree(parse_artifact_uri(uri)).entries]
    assert entries == ["", ".amlignore", "run.sh", "sub", "sub/part-5"]


async def test_a_large_file_arrives_in_chunks_with_its_progress(
    house: House, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "big").write_bytes(b"\x01" * (CHUNK + 5))
    uri = await asyncio.to_thread(upload.path_uploaded, tmp_path / "big")
    tree = house.store.tree(parse_artifact_uri(uri))
    assert list(tree.chunks().values()) == [CHUNK, 5]
    assert "uploading 'big': 64 of 64 MiB" in capsys.readouterr().err


async def test_a_text_arrives_as_a_file(house: House) -> None:
    uri = await asyncio.to_thread(upload.text_uploaded, "conda.yml", "name: ä\n")
    assert house.store.read(parse_artifact_uri(uri), "", 100) == "name: ä\n".encode()


async def test_broken_connections_are_tried_again(
    house: House, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failures = iter([False, True, True, False, True])

    def breaking(path: str) -> None:
        if "/blobs/" in path and next(failures, False):
            raise ConnectionError

    house.meddle = breaking
    uri = await asyncio.to_thread(upload.path_uploaded, model)
    assert house.store.fetch(parse_artifact_uri(uri)).is_dir()
    assert "Trying again" in capsys.readouterr().err


async def test_an_upload_that_broke_off_goes_on_where_it_was(house: House, model: Path) -> None:
    def down(path: str) -> None:
        if "/blobs/" in path and blobs(house) > 3:
            raise ConnectionError

    house.meddle = down
    with pytest.raises(Unreachable):
        await asyncio.to_thread(upload.path_uploaded, model)
    assert not list((house.home / "store").glob("trees/*"))
    await house.stop()
    house.log.clear()
    house.meddle = lambda path: None
    await house.start()
    uri = await asyncio.to_thread(upload.path_uploaded, model)
    assert blobs(house) == 7 - 3
    assert house.store.fetch(parse_artifact_uri(uri)).is_dir()


async def test_a_folder_that_is_too_large_is_refused_before_anything_is_sent(house: House, tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(LARGEST + 1)
    with pytest.raises(ApiError, match="ENDPUNKT_ARTIFACT_GIB"):
        await asyncio.to_thread(upload.path_uploaded, tmp_path / "huge")
    assert blobs(house) == 0


async def test_what_cannot_be_sent_is_told(house: House, model: Path) -> None:
    (model / "out").symlink_to("/etc")
    with pytest.raises(ValueError, match="leaves the folder"):
        await asyncio.to_thread(upload.path_uploaded, model)
    with pytest.raises(ValueError, match="does not exist: check the path"):
        await asyncio.to_thread(upload.path_uploaded, model / "ghost")


# The routes


async def test_nothing_is_taken_without_the_token(house: House) -> None:
    for method, path in (("POST", "missing"), ("PUT", f"blobs/{digest_of(b'x')}"), ("PUT", "trees")):
        assert (await house(method, f"/v1/artifacts/{path}", b"x", token="wrong"))[0] == 401
    assert house.store.missing([digest_of(b"x")])


async def test_a_blob_is_new_once(house: House) -> None:
    path = f"/v1/artifacts/blobs/{digest_of(b'data')}"
    assert await house("PUT", path, b"data") == (201, {"digest": digest_of(b"data"), "size": 4})
    assert (await house("PUT", path, b"data"))[0] == 200
    asked = {"digests": [digest_of(b"data"), digest_of(b"x")]}
    assert await house("POST", "/v1/artifacts/missing", asked) == (200, {"missing": [digest_of(b"x")]})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("PUT", f"blobs/{digest_of(b'data')}", b"date", 400, "was changed or cut on its way"),
        ("PUT", f"blobs/{digest_of(b'data')}", b"", 400, "0 bytes"),
        ("PUT", "blobs/..%2F..%2Fetc", b"x", 400, "must be the SHA-256"),
        ("PUT", f"blobs/{'A' * 64}", b"x", 400, "must be the SHA-256"),
        ("PUT", f"blobs/{digest_of(b'x')}", b"x" * (CHUNK + 1), 413, "a body may have 67108864 bytes"),
        ("POST", "missing", {"digests": ["x"]}, 400, "SHA-256"),
        ("POST", "missing", {"digests": digest_of(b"x")}, 400, "must be a list"),
        ("POST", "missing", {"digests": [], "size": LARGEST + 1}, 400, "ENDPUNKT_ARTIFACT_GIB"),
        ("POST", "missing", {"digests": [], "size": True, "more": 1}, 400, "unknown field"),
        ("PUT", "trees", b"{", 400, "Invalid JSON"),
        ("PUT", "trees", {"name": "..", "entries": []}, 400, "is no name"),
    ],
)
async def test_what_is_wrong_is_told(house: House, method: str, path: str, body: Any, status: int, says: str) -> None:
    actual, document = await house(method, f"/v1/artifacts/{path}", body)
    assert actual == status
    assert says in document["error"]["message"]


async def test_every_trouble_of_a_tree_is_told(house: House) -> None:
    x = digest_of(b"x")
    entries = [Folder(path=""), *(File(path=name, size=1, sha256=x, chunks=(x,)) for name in ("../a", "/b"))]
    tree = {"name": "m", "entries": [entry.model_dump() for entry in entries]}
    status, document = await house("PUT", "/v1/artifacts/trees", tree)
    assert (status, len(document["error"]["details"])) == (400, 2)


async def test_a_tree_needs_its_blobs(house: House) -> None:
    x = digest_of(b"x")
    tree = Tree(name="m", entries=(File(path="", size=1, sha256=x, chunks=(x,)),))
    status, document = await house("PUT", "/v1/artifacts/trees", tree.manifest())
    assert status == 400
    assert "is not there: put it first" in document["error"]["message"]
    await house("PUT", f"/v1/artifacts/blobs/{x}", b"x")
    status, document = await house("PUT", "/v1/artifacts/trees", tree.manifest())
    assert (status, document["uri"]) == (201, f"artifact:{tree.artifact().digest}/m")


async def test_a_client_that_stops_sending_gets_the_room_of_no_other(house: House) -> None:
    context = ssl.create_default_context(cafile=ca_path(house.home))
    stuck = []
    for _ in range(2):
        reader, writer = await asyncio.open_connection("localhost", house.port, ssl=context)
        head = f"PUT /v1/artifacts/blobs/{digest_of(b'stuck')} HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n"
        writer.write(f"{head}Authorization: Bearer {admin_token(house.home)}\r\n\r\nst".encode())
        stuck.append((reader, writer))
    async with asyncio.timeout(30):
        assert (await house("PUT", f"/v1/artifacts/blobs/{digest_of(b'data')}", b"data"))[0] == 201
        for reader, writer in stuck:
            assert b"408" in await reader.readline()
            writer.close()
