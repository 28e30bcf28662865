"""The keys that sign tokens, in <home>/secrets, and what whoever verifies is told of them, in <home>/identity.

identity-key.pem signs. Every identity-key*.pem is published. So a key is replaced without a token that is refused: put
the new one beside it (identity-key-next.pem), start anew; when verifiers have had time to read the keys again, swap the
two names, start anew; take the old one away when its last token has ended.
"""

import json
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import RSAKey

from contracts.shell.files import read_or_make, write_atomically
from contracts.shell.identity import discovery_path, jwks_path

_ALGORITHM = "RS256"
_BITS = 2048
_PUBLIC = 0o644


class Signer:
    """Signs with the installation's key, which the first user makes."""

    def __init__(self, home: Path, issuer: str):
        self.issuer = issuer = issuer.rstrip("/")
        current = home / "secrets" / "identity-key.pem"
        self._key = RSAKey.import_key(read_or_make(current, lambda: RSAKey.generate_key(_BITS).as_pem(private=True)))
        published = [RSAKey.import_key(path.read_bytes()) for path in sorted(current.parent.glob("identity-key*.pem"))]
        self.jwks: dict[str, Any] = {"keys": [_public(key) for key in published]}
        self.discovery: dict[str, Any] = {
            "issuer": issuer,
            "jwks_uri": f"{issuer}/jwks",
            "id_token_signing_alg_values_supported": [_ALGORITHM],
            "response_types_supported": ["token"],
            "subject_types_supported": ["public"],
        }
        write_atomically(jwks_path(home), json.dumps(self.jwks).encode(), _PUBLIC)
        write_atomically(discovery_path(home), json.dumps(self.discovery).encode(), _PUBLIC)

    def sign(self, claims: dict[str, Any]) -> str:
        """A JSON Web Token of `claims`."""
        header = {"alg": _ALGORITHM, "typ": "JWT", "kid": self._key.thumbprint()}
        return jwt.encode(header, claims, self._key, algorithms=[_ALGORITHM])


def _public(key: RSAKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "kid": key.thumbprint(), "use": "sig", "alg": _ALGORITHM}
