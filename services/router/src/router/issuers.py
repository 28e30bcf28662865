"""Where the keys that verify tokens come from: the provisioner's file, and another issuer's address (OIDC).

Keys are read again every few minutes, and at once, though not more often than every few seconds, when a token names one
that is not known: a rotation refuses nobody. While an issuer cannot be reached, what it published before is trusted.
"""

import asyncio
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from contracts.shell.identity import jwks_path
from router.tokens import Tokens

log = logging.getLogger(__name__)

READ_SECONDS = 300.0
AGAIN_SECONDS = 5.0
_FETCH_SECONDS = 5.0
_MOST_BYTES = 1 << 20
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Issuers:
    """Keeps the keys of `tokens` current. `authority`: a file of CAs to trust besides the system's."""

    def __init__(self, tokens: Tokens, home: Path, authority: Path | None):
        self._tokens, self._file = tokens, jwks_path(home)
        self._authority = str(authority) if authority is not None else None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def keep(self) -> None:
        """Read the keys now and then, until canceled."""
        while True:
            await self._again()
            await asyncio.sleep(READ_SECONDS)

    def ask(self, asker: Callable[[], None]) -> None:
        """Read the keys, unless that was just done, and call `asker` in either case."""
        loop = asyncio.get_running_loop()
        if self._reading is None and loop.time() - self._read_at < AGAIN_SECONDS:
            loop.call_soon(asker)
        else:
            self._again().add_done_callback(lambda _: asker())

    def _again(self) -> asyncio.Task[None]:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read())
        return self._reading

    async def _read(self) -> None:
        try:
            own = await asyncio.to_thread(self._own)
            outer = await self._outer()
            self._tokens.trust(own, outer)
        finally:
            self._read_at = asyncio.get_running_loop().time()
            self._reading = None

    def _own(self) -> list[Any] | None:
        try:
            return _keys(json.loads(self._file.read_bytes()))
        except FileNotFoundError:
            return None  # the provisioner has not started yet
        except (OSError, ValueError) as error:
            log.error("the keys in %s cannot be read: %s; those of before are trusted", self._file, error)
            return None

    async def _outer(self) -> list[Any] | None:
        issuer = self._tokens.issuer
        if issuer is None:
            return None
        address = f"{issuer.name.rstrip('/')}/.well-known/openid-configuration"
        try:
            timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
            tls = ssl.create_default_context(cafile=self._authority)
            async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(ssl=tls)) as session:
                document = await _document(session, address)
                if document.get("issuer") != issuer.name:
                    raise ValueError(f"it is of '{document.get('issuer')}', not of '{issuer.name}'")
                address = str(document.get("jwks_uri"))
                return _keys(await _document(session, address))
        except (aiohttp.ClientError, OSError, ValueError, RecursionError) as error:  # TimeoutError is an OSError
            log.error(
                "the keys of issuer %s cannot be read at %s: %r; those of before are trusted",
                issuer.name,
                address,
                error,
            )
            return None


async def _document(session: aiohttp.ClientSession, address: str) -> dict[str, Any]:
    parts = urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
        raise ValueError("keys are taken over https alone")
    async with session.get(address) as response:
        response.raise_for_status()
        raw = await response.content.read(_MOST_BYTES)
    document = json.loads(raw)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return document


def _keys(document: Any) -> list[Any]:
    """The keys of a JWKS that are for signatures."""
    keys = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(keys, list):
        raise ValueError("it has no list 'keys'")
    return [key for key in keys if isinstance(key, dict) and key.get("use", "sig") == "sig"]
