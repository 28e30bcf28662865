"""What services share besides the bus: certificates, secrets, files, processes, settings."""

import socket
import ssl
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from contracts.shell.files import read_or_make
from contracts.shell.secrets import Sealer, SealError, admin_token, digest_of
from contracts.shell.settings import Settings, SettingsError, load_settings
from contracts.shell.tls import ca_path, server_context


def connect(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> dict[str, object]:
    """One handshake between the two contexts; the server's certificate, as the client saw it."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs, server.wrap_socket(theirs, server_side=True) as connection:
            connection.recv(1)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with ours, client.wrap_socket(ours, server_hostname=name) as connection:
            return dict(connection.getpeercert() or {})
    finally:
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "diabetes.local.inference.localhost"])
def test_a_client_that_trusts_the_authority_reaches_each_host(tmp_path: Path, name: str) -> None:
    server = server_context(tmp_path, "router", ["localhost", "127.0.0.1", "*.local.inference.localhost"])
    assert connect(server, ssl.create_default_context(cafile=ca_path(tmp_path)), name)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_client_that_does_not_trust_it_is_told_so(tmp_path: Path) -> None:
    server = server_context(tmp_path, "router", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server, ssl.create_default_context(), "localhost")


def test_certificates_are_kept_until_they_end_or_the_hosts_change(tmp_path: Path) -> None:
    chain, now = tmp_path / "tls" / "router.pem", datetime.now(UTC)
    server_context(tmp_path, "router", ["localhost"], now)
    first, authority = chain.read_bytes(), ca_path(tmp_path).read_bytes()
    server_context(tmp_path, "router", ["localhost"], now + timedelta(days=366))
    assert chain.read_bytes() == first
    server_context(tmp_path, "router", ["localhost"], now + timedelta(days=368))
    second = chain.read_bytes()
    assert second != first
    server_context(tmp_path, "router", ["localhost", "127.0.0.1"], now)
    assert chain.read_bytes() != second
    assert ca_path(tmp_path).read_bytes() == authority


def test_private_files_are_their_owners_alone(tmp_path: Path) -> None:
    server_context(tmp_path, "router", ["localhost"])
    admin_token(tmp_path)
    Sealer(tmp_path)
    for name in ("tls/ca.key", "tls/router.pem", "secrets/admin-token", "secrets/seal.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, name


def test_what_is_sealed_opens_here_for_its_purpose_only(tmp_path: Path) -> None:
    sealer = Sealer(tmp_path / "one")
    sealed = sealer.seal("the key", "diabetes/primary")
    assert "the key" not in sealed
    assert Sealer(tmp_path / "one").open(sealed, "diabetes/primary") == "the key"
    assert sealer.seal("the key", "diabetes/primary") != sealed
    with pytest.raises(SealError):
        sealer.open(sealed, "diabetes/secondary")
    with pytest.raises(SealError):
        Sealer(tmp_path / "two").open(sealed, "diabetes/primary")


def test_a_digest_is_sha256() -> None:
    assert digest_of("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_shared_file_is_made_once_by_whoever_comes_first(tmp_path: Path) -> None:
    made = []

    def make() -> bytes:
        made.append(1)
        return b"content"

    with ThreadPoolExecutor(8) as pool:
        contents = set(pool.map(lambda _: read_or_make(tmp_path / "file", make), range(8)))
    assert contents == {b"content"}
    assert len(made) == 1


def test_settings_tell_every_wrong_variable() -> None:
    assert load_settings(Settings, {"ENDPUNKT_HOME": "/srv"}).artifacts == Path("/srv/artifacts")
    with pytest.raises(SettingsError, match=r"ENDPUNKT_HEALTH_PORT.*ENDPUNKT_LOG_LEVEL"):
        load_settings(Settings, {"ENDPUNKT_HEALTH_PORT": "x", "ENDPUNKT_LOG_LEVEL": "LOUD"})
