"""Which certificate a client sees, and that a new one is shown without a break. Real TLS on a real socket."""

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
        self.certificates = Certificates(self.own, self.folder)

    def own(self) -> ssl.SSLContext:
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
    before, _, other = await house.shown("diabetes.scoring.example")
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
    writer.write(bench.score())  # a connection that was open all the time
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
    other.close()


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


async def test_the_own_certificate_is_renewed_as_well(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
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
    keeping.cancel()
