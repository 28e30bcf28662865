"""The certificates that the router shows: its own, and those that people put into a folder; by the name that a client
asks for (SNI), and renewed without dropping a connection.

The folder (ENDPUNKT_CERTIFICATES) holds PEM files with a key and its chain, or folders with `tls.crt` and `tls.key`, as
Kubernetes mounts them. It is looked at every few seconds. What cannot be used is told in the log, and what was used
before stays: for each certificate, and for all of them when the folder cannot be read.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from cryptography import x509

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0
_OWN_SECONDS = 3600.0
_OWN_AGAIN_SECONDS = 60.0
_CHAIN, _KEY = "tls.crt", "tls.key"

C = TypeVar("C")


def matching(certificates: Mapping[str, C], host: str | None) -> C | None:
    """The certificate whose name is `host`, or else the wildcard above it (RFC 6125: one label, the first)."""
    if host is None:
        return None
    name = host.lower().rstrip(".")
    return certificates.get(name) or certificates.get(f"*.{name.partition('.')[2]}")


class Certificates:
    """`own` makes the context that is shown to whoever asks for no other name. `context` is for the listener."""

    def __init__(self, own: Callable[[], ssl.SSLContext], folder: Path | None):
        self._own, self._folder = own, folder
        self._default = _prepared(own())
        self._by_name: dict[str, ssl.SSLContext] = {}
        self._seen: dict[Path, tuple[object, ...]] = {}
        self._used: dict[Path, tuple[frozenset[str], ssl.SSLContext]] = {}
        self._trouble = ""  # with the folder, as it was last told
        self._renewed = asyncio.get_running_loop().time()
        self.context = _prepared(own())
        # Whatever the listener was made with: each handshake takes what is current.
        self.context.sni_callback = self._choose
        self.look()

    async def keep(self) -> None:
        """Look at the folder now and then, until canceled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = asyncio.get_running_loop().time()
            if now - self._renewed >= _OWN_SECONDS:  # it is made anew before it ends
                await self._renew(now)
            await asyncio.to_thread(self.look)

    async def _renew(self, now: float) -> None:
        try:
            self._default = _prepared(await asyncio.to_thread(self._own))
        except Exception as error:
            self._renewed = now - _OWN_SECONDS + _OWN_AGAIN_SECONDS
            log.error("the router's own certificate cannot be renewed: %r; the one before it stays", error)
        else:
            self._renewed = now

    def look(self) -> None:
        """Take what has changed in the folder. Blocks, shortly."""
        if self._folder is None:
            return
        try:
            found = dict(_pairs(self._folder))
        except OSError as error:
            if self._trouble != str(error):
                self._trouble = str(error)
                log.error("no certificate can be read (ENDPUNKT_CERTIFICATES): %s; those of before stay", error)
            return
        self._trouble = ""
        seen = {place: _stamp((place, key)) for place, key in found.items()}
        for place in self._used.keys() - found.keys():
            log.info("the certificate %s is gone", place)
            del self._used[place]
        for place, key in found.items():
            if self._seen.get(place) == seen[place]:
                continue
            try:
                self._used[place] = _loaded(place, key)
            except Exception as error:  # people's files: what is wrong with one can be anything, and ends nothing
                kept = "; the one before it stays" if place in self._used else ""
                log.error("the certificate %s cannot be used: %s%s", place, str(error) or repr(error), kept)
            else:
                log.info("the certificate %s is for %s", place, ", ".join(sorted(self._used[place][0])))
        self._seen = seen
        self._by_name = {name: context for names, context in self._used.values() for name in names}

    def _choose(self, tls: ssl.SSLObject | ssl.SSLSocket, host: str | None, _: ssl.SSLContext) -> None:
        tls.context = matching(self._by_name, host) or self._default


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Each certificate file with the file of its key. Raises OSError."""
    for place in sorted(folder.iterdir()):
        if place.suffix == ".pem":
            yield place, place
        elif _is_there(place / _CHAIN):
            yield place / _CHAIN, place / _KEY
    if (folder / _CHAIN).exists():
        yield folder / _CHAIN, folder / _KEY


def _is_there(file: Path) -> bool:
    """What cannot be looked at is tried, so that it is told of and what was read from it before stays."""
    try:
        return file.exists()
    except OSError:
        return True


def _stamp(files: Iterable[Path]) -> tuple[object, ...]:
    """Differs when a file has changed."""
    stamps: list[object] = []
    for file in files:
        try:
            status = file.stat()
        except OSError:
            stamps.append(None)
        else:
            # With st_ctime, which changes with the permissions.
            stamps.append((status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size))
    return tuple(stamps)


def _loaded(chain: Path, key: Path) -> tuple[frozenset[str], ssl.SSLContext]:
    """The names of a certificate, and a context that shows it. Raises whatever the libraries do."""
    certificate = x509.load_pem_x509_certificate(chain.read_bytes())
    if certificate.not_valid_after_utc < datetime.now(UTC):
        raise ValueError(f"it ended on {certificate.not_valid_after_utc:%Y-%m-%d}: renew it")
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(chain, key, _no_password)  # OpenSSL would ask for one at the terminal
    return frozenset(name.lower() for name in names.get_values_for_type(x509.DNSName)), _prepared(context)


def _no_password() -> str:
    raise ValueError("its key is encrypted: give it without a password")


def _prepared(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["http/1.1"])
    return context
