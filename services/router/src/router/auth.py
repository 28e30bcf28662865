"""Whether a request may use an endpoint.

PURE: bytes in, a truth value out. No clock and no I/O may enter this module. A key's text is never kept: it is
hashed and forgotten, and digests are compared in constant time, both of them always.
"""

from hashlib import sha256
from hmac import compare_digest

_SCHEME = b"bearer "


def bearer(authorization: bytes | None) -> bytes | None:
    """What the header `Authorization: Bearer …` carries; None where it is another or none."""
    if authorization is None or authorization[:7].lower() != _SCHEME:
        return None
    return authorization[7:].strip()


def authorized(authorization: bytes | None, digests: tuple[bytes, ...]) -> bool:
    """Whether the header `Authorization: Bearer KEY` carries a key whose SHA-256 (32 bytes) is one of `digests`."""
    key = bearer(authorization)
    if key is None:
        return False
    digest = sha256(key).digest()
    matches = False
    for known in digests:
        matches |= compare_digest(digest, known)
    return matches
