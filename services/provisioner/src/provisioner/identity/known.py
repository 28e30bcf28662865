"""The instances that may ask for tokens: in memory, and one file each in <home>/identity/instances, so that those which
a restarted provisioner adopts go on asking."""

import contextlib
import hmac
import shutil
from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from contracts.shell.files import write_atomically
from contracts.shell.secrets import digest_of
from provisioner.identity.principals import InstanceIdentity


class KnownInstances:
    """What is kept of each instance, by its id."""

    def __init__(self, home: Path):
        self._folder = home / "identity" / "instances"
        self._known: dict[str, InstanceIdentity] = {}
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(OSError, ValidationError):
                identity = InstanceIdentity.model_validate_json(path.read_bytes())
                self._known[identity.instance] = identity

    def add(self, identity: InstanceIdentity) -> None:
        """Know an instance from now on."""
        write_atomically(self._path(identity.instance), identity.model_dump_json().encode())
        self._known[identity.instance] = identity

    def forget(self, instance: str) -> None:
        """Its header opens nothing any more."""
        self._known.pop(instance, None)
        self._path(instance).unlink(missing_ok=True)

    def keep(self, instances: Collection[str]) -> None:
        """Forget all but these."""
        for path in self._folder.glob("*.json"):
            if path.stem not in instances:
                self.forget(path.stem)

    def forget_all(self) -> None:
        """Forget every one."""
        self._known.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def of_header(self, header: str) -> InstanceIdentity | None:
        """Whose secret header this is. Takes as long for every wrong one."""
        if not header.isascii():
            return None
        digest = digest_of(header)
        found = None
        for identity in self._known.values():
            if hmac.compare_digest(identity.header_digest, digest):
                found = identity
        return found

    def _path(self, instance: str) -> Path:
        return self._folder / f"{instance}.json"
