"""Secrets of one installation, in <home>/secrets, readable by their owner only.

An endpoint's keys travel sealed: AES-256-GCM under the installation's sealing key, bound to what they belong to.
"""

import base64
import hashlib
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from contracts.shell.files import read_or_make

_NONCE_BYTES = 12


class SealError(ValueError):
    """A sealed text was not sealed here, or not for this purpose."""


class Sealer:
    """Seals short texts with the key in <home>/secrets/seal.key, which the first user makes."""

    def __init__(self, home: Path):
        self._path = home / "secrets" / "seal.key"
        self._cipher = AESGCM(read_or_make(self._path, lambda: AESGCM.generate_key(bit_length=256)))

    def seal(self, text: str, purpose: str) -> str:
        """`text` encrypted for `purpose`, such as `endpoint/primary`, as base64."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), purpose.encode())).decode()

    def open(self, sealed: str, purpose: str) -> str:
        """The text again. Raises SealError for another installation's, another purpose's or a damaged one."""
        raw = base64.b64decode(sealed)
        try:
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode()).decode()
        except InvalidTag:
            raise SealError(f"what was sealed for {purpose} does not open with {self._path}") from None


def admin_token(home: Path) -> str:
    """The bearer token of the management API, made by the first user of <home>/secrets/admin-token."""
    return read_or_make(home / "secrets" / "admin-token", lambda: secrets.token_urlsafe(32).encode()).decode()


def digest_of(key: str) -> str:
    """The SHA-256 of a key, in hexadecimal. Keys are 256 random bits, so an unsalted digest tells nothing of them."""
    return hashlib.sha256(key.encode()).hexdigest()
