"""An inference server as the provisioner starts it: a process on an inherited listening socket."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DEADLINE = 60.0


class ServerProcess:
    """`folder` becomes the app root; `script`, if given, its `score.py`."""

    def __init__(self, folder: Path, script: str | None = None, python: str = sys.executable, **environ: str):
        self.status_file = folder / "status.json"
        variables = {"AML_APP_ROOT": str(folder), "ENDPUNKT_STATUS_FILE": str(self.status_file)}
        if script is not None:
            (folder / "score.py").write_text(script)
            variables["AZUREML_ENTRY_SCRIPT"] = "score.py"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [python, "-m", "inference_server", "--fd", str(listener.fileno())],
                env=os.environ | variables | environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                text=True,
            )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_for_log(self, text: str, times: int = 1) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.log.count(text) >= times, DEADLINE), self.log

    def wait(self) -> int:
        """The exit code."""
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def stop(self) -> int:
        """Drains; the exit code."""
        self.process.terminate()
        return self.wait()

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.status_file.read_text())
        return status

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request; header names with `_` for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response, response.read()

    def post(self, path: str, document: object, **headers: str) -> tuple[int, Any]:
        """Status and parsed answer of a JSON document."""
        response, body = self.ask("POST", path, json.dumps(document), Content_Type="application/json", **headers)
        return response.status, json.loads(body)

    def get(self, path: str) -> tuple[int, Any]:
        response, body = self.ask("GET", path)
        return response.status, json.loads(body)


Serve = Callable[..., ServerProcess]


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[Serve]:
    """`start(script, **environ)` starts servers in the folder; all are killed at the end."""
    running: list[ServerProcess] = []

    def start(script: str | None = None, **environ: str) -> ServerProcess:
        running.append(ServerProcess(folder, script, **environ))
        return running[-1]

    yield start
    for server in running:
        server.process.kill()
        server.wait()
