"""What is known of local endpoints and deployments, under ~/.endpunkt/local or $ENDPUNKT_LOCAL.

<endpoint>/endpoint.json            what `online-endpoint create --local` was given
<endpoint>/<deployment>/record.json how the deployment was asked for, and which process it is
                       /status.json  the inference server's own word: starting, ready, failed
                       /console.log  what the script and the server print
                       /model/       AZUREML_MODEL_DIR: a link to the model
"""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from contracts.shell.files import locked
from contracts.shell.processes import ProcessIdentity
from endpunkt_cli.errors import CliError

_MOST_LINES = 5000
_NAME = re.compile(r"[a-zA-Z][-a-zA-Z0-9]{0,31}")


@dataclass(frozen=True)
class Record:
    """A deployment: as it was asked for (`file` is absolute, `settings` are those of --set), what that came to, and its
    process. `port` 0 takes a free one at the next start."""

    endpoint: str
    deployment: str
    file: str
    settings: tuple[str, ...]
    local_environment: bool
    port: int
    debug_port: int | None
    spec: dict[str, Any]
    build_log: str | None = None
    process: ProcessIdentity | None = None


@dataclass(frozen=True)
class State:
    """How a deployment is, in Azure's words; `error` has {"code", "message"}."""

    name: str
    error: dict[str, str] | None = None


class Folder:
    """Where one deployment is kept."""

    def __init__(self, path: Path):
        self.path = path
        self.console = path / "console.log"
        self.status_file = path / "status.json"
        self.collected = path / "collected"
        self._record = path / "record.json"

    def read(self) -> Record | None:
        """None when there is no deployment here."""
        try:
            document = json.loads(self._record.read_text(encoding="utf-8"))
            process = document.pop("process")
            known = Record(**{**document, "settings": tuple(document["settings"])})
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            raise CliError(f"{self._record} was not written by this version: remove {self.path}") from None
        return replace(known, process=ProcessIdentity(**process) if process else None)

    def write(self, record: Record) -> None:
        """Replace the record; environment variables may be secret, so that it is the owner's alone."""
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self._record.with_suffix(f".{os.getpid()}.tmp")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            json.dump(asdict(record), file, indent=2)
        temporary.replace(self._record)

    def state(self, record: Record) -> State:
        """What the server says, if it still runs."""
        alive = record.process is not None and record.process.alive
        try:
            status = json.loads(self.status_file.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            status = {"state": "starting"}
        if status["state"] == "failed":
            return State("Failed", {"code": status["code"], "message": status["message"]})
        if alive:
            return State("Succeeded" if status["state"] == "ready" else "Creating")
        return State("Failed", {"code": "InternalServerError", "message": "its process has ended"})

    def model_folder(self, model: Path) -> Path:
        """A folder that holds the model alone, as AZUREML_MODEL_DIR does wherever it is deployed: by a link to it."""
        folder = self.path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / model.name).symlink_to(model)
        return folder

    def tail(self, lines: int) -> list[str]:
        """The last lines of what it printed."""
        try:
            return self.console.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
        except FileNotFoundError:
            return []

    def last_words(self, lines: int) -> list[str]:
        """Its last traceback and what followed, from the top, or the last lines where there is none."""
        told = self.tail(_MOST_LINES)
        starts = [number for number, line in enumerate(told) if line.startswith("Traceback ")]
        return told[starts[-1] :][:lines] if starts else told[-lines:]

    def remove(self) -> None:
        """Forget it."""
        shutil.rmtree(self.path, ignore_errors=True)


class Local:
    """Every local endpoint."""

    def __init__(self) -> None:
        self._root = Path(os.environ.get("ENDPUNKT_LOCAL") or Path.home() / ".endpunkt" / "local")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Whoever starts or ends a deployment does it within this, so that two commands do not do it at once."""
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with locked(self._root / ".lock"):
            yield

    def folder(self, endpoint: str, deployment: str) -> Folder:
        """Where a deployment is kept, or would be."""
        return Folder(self._endpoint(endpoint) / _checked(deployment))

    def deployments(self, endpoint: str) -> Iterator[tuple[Folder, Record]]:
        """The deployments of an endpoint, by name."""
        for path in sorted(self._endpoint(endpoint).glob("*/record.json")):
            folder = Folder(path.parent)
            if (record := folder.read()) is not None:
                yield folder, record

    def found(self, endpoint: str, deployment: str) -> tuple[Folder, Record]:
        """A deployment. Raises CliError when there is none."""
        folder = self.folder(endpoint, deployment)
        if (record := folder.read()) is None:
            raise CliError(
                f"there is no local deployment '{deployment}' of endpoint '{endpoint}'{self._known(endpoint)}"
            )
        return folder, record

    def endpoints(self) -> list[str]:
        """Every endpoint that was made here, or has a deployment."""
        return sorted(path.name for path in self._root.glob("*") if self._has(path))

    def endpoint(self, name: str) -> dict[str, Any]:
        """What an endpoint was made with. Raises CliError when there is none."""
        path = self._endpoint(name)
        if not self._has(path):
            known = f": there are {', '.join(self.endpoints())}" if self.endpoints() else ""
            raise CliError(f"there is no local endpoint '{name}'{known}")
        try:
            document: dict[str, Any] = json.loads((path / "endpoint.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        return document

    def make_endpoint(self, name: str, spec: dict[str, Any]) -> None:
        """Note an endpoint. Raises CliError when it exists."""
        path = self._endpoint(name) / "endpoint.json"
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with path.open("x", encoding="utf-8") as file:
                json.dump(spec, file)
        except FileExistsError:
            raise CliError(f"the local endpoint '{name}' exists: delete it, or choose another name") from None

    def remove_endpoint(self, name: str) -> None:
        """Forget it, with its deployments, which must have ended."""
        shutil.rmtree(self._endpoint(name), ignore_errors=True)

    def _endpoint(self, name: str) -> Path:
        return self._root / _checked(name)

    def _known(self, endpoint: str) -> str:
        names = [record.deployment for _, record in self.deployments(endpoint)]
        return f": there {'is' if len(names) == 1 else 'are'} {', '.join(names)}" if names else ""

    @staticmethod
    def _has(path: Path) -> bool:
        return (path / "endpoint.json").exists() or any(path.glob("*/record.json"))


def _checked(name: str) -> str:
    """A name that is a folder's. Raises CliError."""
    if _NAME.fullmatch(name) is None:
        raise CliError(f"'{name}' is no name: 3 to 32 letters, digits and dashes, the first one a letter")
    return name
