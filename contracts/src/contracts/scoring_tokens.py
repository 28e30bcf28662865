"""Tokens that let a person or program score (`auth_mode: aml_token`): what is in them, and what that is worth.

PURE: claims, an endpoint and `now` in, claims or a reason out. No clock, no randomness, no I/O, no cryptography.

They are signed with the same key as the tokens of instances, and are told from those by their scope. A token belongs to
one endpoint: one that is made again under its old name takes none of before.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

AUDIENCE = "https://ml.azure.com"
"""Azure's: what a token is for, both of our own and of another issuer's."""

TOKEN_SECONDS = 3600
REFRESH_SECONDS = 1800
"""After this time a client had better ask for another one."""

_SCOPE = "endpunkt.score"


def claims(endpoint: str, created_at: datetime, issuer: str, now: int, id: str) -> dict[str, Any]:
    """The claims of a token for `endpoint`, from `now` on (seconds since 1970); `id` is the token's own."""
    return {
        "aud": AUDIENCE,
        "iss": issuer,
        "iat": now,
        "nbf": now,
        "exp": now + TOKEN_SECONDS,
        "sub": f"onlineEndpoints/{endpoint}",
        "scp": _SCOPE,
        "endpoint": endpoint,
        "endpoint_created_at": created_at.isoformat(),
        "uti": id,
    }


def is_for(claims: Mapping[str, Any], endpoint: str, created_at: datetime) -> bool:
    """Whether claims whose signature is good are those of a token for this endpoint."""
    wanted = (_SCOPE, AUDIENCE, endpoint, created_at.isoformat())
    return tuple(claims.get(name) for name in ("scp", "aud", "endpoint", "endpoint_created_at")) == wanted
