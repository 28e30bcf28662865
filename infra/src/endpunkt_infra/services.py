"""One service as one operating-system process: start it, see it ready, stop it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MODULES = {
    "provisioner": "provisioner",
    "router": "router",
    "autoscaler": "autoscaler",
    "batch-runner": "batch_runner",
    "metering": "metering",
    "studio": "studio",
}
"""Each service's module, in the order in which they are started."""

_POLL_SECONDS = 0.05


class ServiceFailed(RuntimeError):
    """A service ended, or was not ready in time; the text has the end of its log."""


class ServiceProcess:
    """A service under `home`, told about Kafka and its settings by `environment`. Its log is <home>/logs/<name>.log."""

    def __init__(self, name: str, home: Path, environment: Mapping[str, str]):
        self.name = name
        self.home = home
        self.log = home / "logs" / f"{name}.log"
        self._environment = environment
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process, in a session of its own."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ENDPUNKT_")}
        environment |= {**self._environment, "ENDPUNKT_HOME": str(self.home)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", MODULES[self.name]],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_ready(self, seconds: float = 30) -> dict[str, str]:
        """Block until the service is ready and return its addresses. Raises ServiceFailed."""
        deadline = time.monotonic() + seconds
        state: dict[str, Any] = {}
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                raise ServiceFailed(f"{self.name} ended before it was ready\n{self.log_tail()}")
            state = self.readiness()
            if state.get("ready"):
                return dict(state["addresses"])
            time.sleep(_POLL_SECONDS)
        waiting = ", ".join(state.get("waiting_for", ["its health port"]))
        raise ServiceFailed(f"{self.name} is not ready after {seconds} s; it waits for {waiting}\n{self.log_tail()}")

    def readiness(self) -> dict[str, Any]:
        """What /readyz says; empty while the process does not answer."""
        try:
            run = json.loads((self.home / "run" / f"{self.name}.json").read_text())
            if self.process is None or run["pid"] != self.process.pid:
                return {}
            with urllib.request.urlopen(f"http://127.0.0.1:{run['health_port']}/readyz", timeout=2) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except (OSError, ValueError):
            return {}

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    def stop(self, seconds: float = 45) -> int:
        """SIGTERM, then SIGKILL after `seconds` (longer than any service drains); returns the exit code."""
        assert self.process is not None
        self.ask_to_stop()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
        return self.process.wait()

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return "(no log)"
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
