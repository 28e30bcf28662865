"""Tokens for scoring: POST …/onlineEndpoints/{endpoint}/token, in Azure's form."""

import secrets
import time

from aiohttp import web

from contracts.messages import OnlineEndpointSpec
from contracts.scoring_tokens import REFRESH_SECONDS, TOKEN_SECONDS, claims
from contracts.shell.signing import Signer
from studio.replies import Refused, missing
from studio.tables import Tables


class ScoringTokens:
    """Signs for whoever may use the management API, which asks for its own token."""

    def __init__(self, tables: Tables, signer: Signer):
        self._tables, self._signer = tables, signer

    def routes(self) -> list[web.RouteDef]:
        """Every route of this module."""
        return [web.post("/v1/onlineEndpoints/{endpoint}/token", self.token)]

    async def token(self, request: web.Request) -> web.Response:
        """{"accessToken", "expiryTimeUtc", "refreshAfterTimeUtc" (seconds since 1970), "tokenType"}."""
        name = request.match_info["endpoint"]
        endpoint = self._tables.desired.entries.get(name)
        if endpoint is None or not isinstance(endpoint.spec, OnlineEndpointSpec):
            raise missing(f"online endpoint '{name}'")
        if endpoint.spec.auth_mode != "aml_token":
            hint = {
                "key": f"endpoint '{name}' takes keys: list them (listKeys)",
                "aad_token": f"endpoint '{name}' takes the tokens of an issuer: ask that for one",
            }[endpoint.spec.auth_mode]
            raise Refused(400, "BadArgument", hint)
        now = int(time.time())
        said = claims(name, endpoint.created_at, self._signer.issuer, now, secrets.token_urlsafe(16))
        document = {
            "accessToken": self._signer.sign(said),
            "tokenType": "Bearer",
            "expiryTimeUtc": now + TOKEN_SECONDS,
            "refreshAfterTimeUtc": now + REFRESH_SECONDS,
        }
        return web.json_response(document, headers={"Cache-Control": "no-store"})
