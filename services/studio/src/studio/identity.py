"""What whoever verifies a token of an instance is told: the issuer's discovery document and its public keys.

They are public, so these routes ask for no token. The provisioner signs and writes them; studio hands them out over
TLS, under the address that the tokens name as their issuer.
"""

import asyncio
from pathlib import Path

from aiohttp import web

from contracts.shell.identity import discovery_path, jwks_path
from studio.replies import missing

DISCOVERY = "/identity/.well-known/openid-configuration"
JWKS = "/identity/jwks"


class IdentityDocuments:
    """Handlers over the files in <home>/identity, read each time: a new key is in them at once."""

    def __init__(self, home: Path):
        self._home = home

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [web.get(DISCOVERY, self.discovery), web.get(JWKS, self.jwks)]

    async def discovery(self, _: web.Request) -> web.Response:
        return await _file(discovery_path(self._home))

    async def jwks(self, _: web.Request) -> web.Response:
        return await _file(jwks_path(self._home))


async def _file(path: Path) -> web.Response:
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except FileNotFoundError:
        raise missing("issuer of tokens yet: the provisioner publishes its keys when it starts") from None
    return web.Response(body=content, content_type="application/json", headers={"Cache-Control": "public, max-age=300"})
