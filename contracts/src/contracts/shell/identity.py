"""What the processes of one installation share about identities, in <home>/identity: the tenant's id, and the public
documents that tell whoever verifies a token how to."""

import uuid
from pathlib import Path

from contracts.shell.files import read_or_make


def tenant_id(home: Path) -> uuid.UUID:
    """The id of this installation as a tenant (`tid`), made by its first user."""
    return uuid.UUID(read_or_make(home / "identity" / "tenant-id", lambda: str(uuid.uuid4()).encode()).decode())


def discovery_path(home: Path) -> Path:
    """OpenID Connect's discovery document of the issuer; the provisioner writes it."""
    return home / "identity" / "openid-configuration.json"


def jwks_path(home: Path) -> Path:
    """The issuer's public keys (RFC 7517); the provisioner writes them."""
    return home / "identity" / "jwks.json"
