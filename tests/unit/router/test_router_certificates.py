"""Which certificate a client sees, and that a new one is shown without a break. Real TLS on a real socket."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from contracts.shell.tls import ca_path, server_context
from router.certificates import Certificates, matching
from router.listener import Listener

Bench = Any


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("a.example", "exact"),
        ("A.Example.", "exact"),
        ("b.example", "wild"),
        ("c.b.example", None),
        ("example", None),
        ("", None),
        (None, None),
    ],
)
def test_the_name_that_is_asked_for(host: str | None, found: str | None) -> None:
    assert matching({"a.example": "exact", "*.example": "wild"}, host) == found


class House:
    def __init__(self, home: Path, bench: Bench):
        self.home, self.folder, self.bench = home, home / "certificates", bench
        self.folder.mkdir()
        self.broken = False
        self.certificates = Certificates(self.own, self.folder)

    def own(self) -> ssl.SSLContext:
        if self.broken:
            raise PermissionError("no")
        return server_context(self.home, "router", ["localhost"])

    def put(self, name: str, *hosts: str) -> bytes:
        """A certificate of the house's authority, in the folder; returns its PEM."""
        server_context(self.home, name, hosts)
        made = self.home / "tls" / f"{name}.pem"
        content = made.read_bytes()
        made.unlink()
        (self.folder / f"{name}.pem").write_bytes(content)
        return content

    async def shown(self, host: str) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """The certificate (DER) that a client sees which asks for `host` and trusts the house."""
        trust = ssl.create_default_context(cafile=str(ca_path(self.home)))
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=trust, server_hostname=host)
        return writer.get_extra_info("ssl_object").getpeercert(binary_form=True), reader, writer

    async def start(self) -> None:
        self.port = await Listener(self.bench.gateway).start("127.0.0.1", 0, self.certificates.context)


@pytest.fixture
async def house(tmp_path: Path, bench: Bench) -> House:
    made = House(tmp_path, bench)
    await made.start()
    return made


async def test_each_name_its_certificate_and_a_new_one_without_a_break(
    house: House, bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.serve(await bench.model())
    own, reader, writer = await house.shown("localhost")
    first = house.put("mine", "scoring.example", "*.scoring.example")
    house.certificates.look()
    before, others, other = await house.shown("diabetes.scoring.example")
    assert before == (await house.shown("scoring.example"))[0] != own
    assert house.put("mine", "scoring.example", "*.scoring.example") != first
    house.certificates.look()
    assert (await house.shown("scoring.example"))[0] not in (before, own)
    assert (await house.shown("localhost"))[0] == own

    (house.folder / "mine.pem").write_text("nonsense")
    renewed = (await house.shown("scoring.example"))[0]
    house.certificates.look()
    assert (await house.shown("scoring.example"))[0] == renewed
    assert "mine.pem cannot be used" in caplog.text
    assert "the one before it stays" in caplog.text

    (house.folder / "mine.pem").unlink()
    house.certificates.look()
    with pytest.raises(ssl.SSLCertVerificationError):
        await house.shown("scoring.example")
    # Connections that were open all the time, one of them on a certificate that was replaced and is gone.
    for answers, open_one in ((reader, writer), (others, other)):
        open_one.write(bench.score())
        assert (await answers.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        open_one.close()


async def test_a_folder_that_cannot_be_read_is_told_once_and_takes_nothing_away(
    house: House, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.put("mine", "mine.example")
    secret = house.folder / "secret"
    secret.mkdir()
    content = house.put("k", "k.example")
    (house.folder / "k.pem").unlink()
    for name in ("tls.crt", "tls.key"):
        (secret / name).write_bytes(content)
    house.certificates.look()
    shown = [(await house.shown(host))[0] for host in ("mine.example", "k.example")]
    for place, told in (
        (house.folder, "no certificate can be read (ENDPUNKT_CERTIFICATES)"),
        (secret, "secret/tls.crt cannot be used: [Errno 13] Permission denied"),
    ):
        with monkeypatch.context() as patch:
            _closed(place, patch)
            for _ in range(3):
                house.certificates.look()
        assert caplog.text.count(told) == 1
        assert [(await house.shown(host))[0] for host in ("mine.example", "k.example")] == shown
        house.certificates.look()
    moved = house.folder.rename(house.home / "elsewhere")
    house.certificates.look()
    assert "No such file" in caplog.text
    moved.rename(house.folder)
    house.put("third", "third.example")  # it is looked at again
    house.certificates.look()
    await house.shown("third.example")
    assert [(await house.shown(host))[0] for host in ("mine.example", "k.example")] == shown


def _closed(place: Path, patch: pytest.MonkeyPatch) -> None:
    """As for a user who may not look into `place`; who runs the tests may be root."""

    def refusing(real: Any, refuses: Callable[[Path], bool]) -> Any:
        def call(path: Path, *arguments: Any, **more: Any) -> Any:
            if refuses(path):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path, *arguments, **more)

        return call

    for name in ("stat", "open"):
        patch.setattr(Path, name, refusing(getattr(Path, name), lambda path: place in path.parents))
    patch.setattr(Path, "iterdir", refusing(Path.iterdir, lambda path: path == place))


async def test_keys_and_certificates_of_any_kind_end_nothing(house: House, caplog: pytest.LogCaptureFixture) -> None:
    good = house.put("good", "good.example")
    bad = {
        "encrypted": _encrypted(good),
        "nameless": _nameless(),
        "without": good[good.index(b"-----BEGIN CERT") :],
        "mixed": good[: good.index(b"-----BEGIN CERT")] + house.put("z", "z.example")[-900:],
        "binary": bytes(range(256)) * 9,
        "empty": b"",
        "truncated": good[: len(good) // 2],
    }
    for name, content in bad.items():
        (house.folder / f"{name}.pem").write_bytes(content)
    (house.folder / "folder.pem").mkdir()
    (house.folder / "dangling.pem").symlink_to("nowhere")
    house.certificates.look()
    await house.shown("good.example")
    for name in (*bad, "folder", "dangling"):
        assert f"{name}.pem cannot be used" in caplog.text
    assert "its key is encrypted: give it without a password" in caplog.text


def _nameless() -> bytes:
    """A certificate that is for no host: it has no SubjectAlternativeName."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "nameless.example")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return secret + made.public_bytes(pem)


def _encrypted(pem: bytes) -> bytes:
    """The same with a key that takes a password."""
    key = serialization.load_pem_private_key(pem, None)
    secret = serialization.BestAvailableEncryption(b"secret")
    locked = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, secret)
    return locked + pem[pem.index(b"-----BEGIN CERT") :]


async def test_as_kubernetes_mounts_them(house: House) -> None:
    content = house.put("k", "k.example")
    (house.folder / "k.pem").unlink()
    mounted = house.folder / "secret"
    mounted.mkdir()
    key, _, chain = content.partition(b"-----END PRIVATE KEY-----\n")
    (mounted / "tls.key").write_bytes(key + b"-----END PRIVATE KEY-----\n")
    (mounted / "tls.crt").write_bytes(chain)
    house.certificates.look()
    await house.shown("k.example")


async def test_the_own_certificate_is_renewed_as_well(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("router.certificates.LOOK_SECONDS", 0.001)
    monkeypatch.setattr("router.certificates._OWN_SECONDS", 0.0)
    before = (await house.shown("localhost"))[0]
    (house.home / "tls" / "router.pem").unlink()
    keeping = asyncio.create_task(house.certificates.keep())

    async def until(condition: Callable[[bytes], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition((await house.shown("localhost"))[0]):
                pass

    await until(lambda shown: shown != before)
    house.broken = True
    await house.bench.until(lambda: "own certificate cannot be renewed" in caplog.text)
    assert not keeping.done()
    last = (await house.shown("localhost"))[0]
    assert last != before
    keeping.cancel()
