"""The connections of one installation, in <home>/secrets/connections, a file each.

Credentials are sealed one by one, each for its connection and its name, so that no file or value can be swapped for
another. They are on no topic: who needs one reads it here, when it is needed.
"""

import contextlib
from pathlib import Path

from pydantic import Field, ValidationError

from contracts.connections import Connection, ConnectionSpec, FieldName
from contracts.shell.files import write_atomically
from contracts.shell.secrets import Sealer, SealError


class BadConnection(ValueError):
    """A connection's file cannot be used; the text says why and what to do, and holds no value."""


class Connections:
    """The connections of one installation. Blocks for as long as a small file takes."""

    def __init__(self, home: Path):
        self._folder = home / "secrets" / "connections"
        self._sealer = Sealer(home)

    def put(self, connection: Connection) -> None:
        """Keep it, in place of the one of its name."""
        sealed = {
            name: self._sealer.seal(value, _purpose(connection.name, name))
            for name, value in connection.spec.credentials.items()
        }
        document = connection.model_dump(mode="json", exclude={"spec": {"credentials"}})
        document["spec"]["credentials"] = sealed
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self._path(connection.name), _Sealed.model_validate(document).model_dump_json().encode())

    def get(self, name: str) -> Connection | None:
        """The connection with its credentials; None when there is none. Raises BadConnection."""
        kept = self._read(name)
        if kept is None:
            return None
        try:
            credentials = {
                key: self._sealer.open(sealed, _purpose(name, key)) for key, sealed in kept.spec.credentials.items()
            }
        except (SealError, ValueError):
            raise BadConnection(
                f"the credentials of connection '{name}' were not sealed by this installation: create it again"
            ) from None
        return Connection(
            name=name,
            created_at=kept.created_at,
            updated_at=kept.updated_at,
            spec=ConnectionSpec.model_validate({**dict(iter(kept.spec)), "credentials": credentials}),
        )

    def delete(self, name: str) -> bool:
        """Forget it; whether there was one."""
        with contextlib.suppress(FileNotFoundError):
            self._path(name).unlink()
            return True
        return False

    def names(self) -> list[str]:
        """The names of all."""
        return sorted(path.stem for path in self._folder.glob("*.json"))

    def _read(self, name: str) -> "_Sealed | None":
        try:
            return _Sealed.model_validate_json(self._path(name).read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError:
            raise BadConnection(f"{self._path(name)} is damaged: create connection '{name}' again") from None

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


class _SealedSpec(ConnectionSpec):
    credentials: dict[FieldName, str] = Field(default={})


class _Sealed(Connection):
    spec: _SealedSpec


def _purpose(connection: str, credential: str) -> str:
    return f"connection/{connection}/{credential}"
