"""The artifact store over an S3 server: moto's, in an environment of its own (peers/moto.lock, made by `uv pip compile
--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o moto.lock moto.in`)."""

import http.client
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import uv
from tests.unit.contracts.artifact_store_rules import NewStore, StoreRules, digest_of, make_model

from contracts.artifacts.store import ArtifactError, ArtifactStore
from contracts.shell.files import locked
from endpunkt_infra.kafka.jars import cache_directory

LOCK = Path(__file__).parent / "peers" / "moto.lock"
START_SECONDS = 60


def moto_server() -> Path:
    """The server's program, installed where it is missing."""
    folder = cache_directory() / "peers" / "moto"
    with locked(folder.with_name("moto.lock")):
        if not (folder / "lock").exists() or (folder / "lock").read_bytes() != LOCK.read_bytes():
            tool = uv.find_uv_bin()
            python = folder / "bin" / "python"
            subprocess.run([tool, "venv", "--quiet", "--clear", "--python", sys.executable, folder], check=True)
            subprocess.run([tool, "pip", "sync", "--quiet", "--python", python, "--require-hashes", LOCK], check=True)
            shutil.copy(LOCK, folder / "lock")
    return folder / "bin" / "moto_server"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server's URL."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [moto_server(), "--host", "127.0.0.1", "--port", str(port)], stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + START_SECONDS
        while True:
            assert process.poll() is None, log.read_text()
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()


def send(s3: str, method: str, path: str, body: bytes = b"") -> None:
    """What people do to a bucket without our code."""
    connection = http.client.HTTPConnection(s3.removeprefix("http://"), timeout=START_SECONDS)
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=key/20261101/us-east-1/s3/aws4_request"}
    connection.request(method, path, body, signed)
    assert connection.getresponse().status == 200
    connection.close()


@pytest.fixture
def bucket(s3: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket; the environment has what reaches it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in {
        "AWS_ENDPOINT_URL": s3,
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-central-1",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }.items():
        monkeypatch.setenv(name, value)
    send(s3, "PUT", "/kept")
    yield "s3://kept/below"
    send(s3, "POST", "/moto-api/reset")


class TestS3(StoreRules):
    """The same as a folder does."""

    @pytest.fixture
    def new(self, bucket: str, tmp_path: Path) -> NewStore:
        return lambda cache: ArtifactStore(bucket, tmp_path / cache, 10_000)

    def test_a_blob_that_is_damaged_there_is_told(self, new: NewStore, s3: str, tmp_path: Path) -> None:
        store = new("one")
        artifact = store.add(make_model(tmp_path / "model"))
        digest = digest_of(b"\x00\x01")
        name = f"below/blobs/sha256/{digest[:2]}/{digest}"
        send(s3, "PUT", f"/kept/{name}", b"\x00\x02")
        with pytest.raises(ArtifactError, match=f"s3://kept/{name} does not hold what its name says"):
            store.fetch(artifact)

    def test_a_bucket_that_is_not_there_is_told(self, new: NewStore, tmp_path: Path) -> None:
        new("one")
        store = ArtifactStore("s3://ghost/x", tmp_path / "cache", 10_000)
        with pytest.raises(ArtifactError, match="the artifact store s3://ghost/x failed"):
            store.put_blob(digest_of(b"x"), b"x")
