"""Up and down: start a supervisor in the background and wait until all is ready; stop exactly what it started."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.kafka.jars import cache_directory
from endpunkt_infra.services import MODULES
from endpunkt_infra.stack.leftovers import end, leftovers

_POLL_SECONDS = 0.1
_UP_SECONDS = 180.0
_DOWN_SECONDS = 180.0


class StackError(RuntimeError):
    """Endpunkt could not be started or stopped; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class StackState:
    """What <home>/run/stack.json tells: state (starting, ready, failed, stopped) and the addresses by purpose."""

    state: str
    addresses: dict[str, str]
    error: str | None
    supervisor: ProcessIdentity

    @classmethod
    def read(cls, home: Path) -> "StackState | None":
        """What was told last; None when nothing ever ran here."""
        try:
            told = json.loads((home / "run" / "stack.json").read_text())
        except FileNotFoundError:
            return None
        return cls(told["state"], told["addresses"], told["error"], ProcessIdentity(**told["supervisor"]))


def up(home: Path, environment: dict[str, str], tell: Callable[[str], None], *, alone: bool = False) -> dict[str, str]:
    """Start everything under `home` and return the addresses when all is ready. Running already: only returns them.

    `environment` has settings on top of this process's own. `alone` starts from none of ours but the cache: a Kafka
    that the caller's shell names, or an Endpunkt that it uses, is not meant.
    """
    state = StackState.read(home)
    if state is not None and state.supervisor.alive and state.state == "ready":
        tell("Endpunkt is running already")
        return state.addresses
    if state is not None and state.supervisor.alive:
        raise StackError(f"Endpunkt is {state.state} under {home}: wait, or stop it with `make down`")
    if leftovers(home):
        down(home, tell)
    log_path = home / "logs" / "supervisor.log"
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "endpunkt_infra.stack", "--home", str(home), "supervise"],
            env={**_inherited(alone), **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    tell(f"starting Kafka and {', '.join(MODULES)} (logs in {log_path.parent})")
    deadline = time.monotonic() + _UP_SECONDS
    while time.monotonic() < deadline:
        state = StackState.read(home)
        if state is not None and state.supervisor.pid == process.pid and state.state == "ready":
            return state.addresses
        if process.poll() is not None:
            reason = state.error if state is not None and state.error else f"see {log_path}"
            raise StackError(f"Endpunkt did not start: {reason}")
        time.sleep(_POLL_SECONDS)
    process.terminate()
    raise StackError(f"Endpunkt was not ready after {_UP_SECONDS:.0f} s: see {log_path.parent}")


def _inherited(alone: bool) -> dict[str, str]:
    if not alone:
        return dict(os.environ)
    ours = {name for name in os.environ if name.startswith(("ENDPUNKT_", "KAFKA_"))}
    return {name: value for name, value in os.environ.items() if name not in ours} | {
        "ENDPUNKT_CACHE": str(cache_directory())
    }


def down(home: Path, tell: Callable[[str], None]) -> None:
    """Stop what `up` started under `home`. State survives. A supervisor that was killed is stood in for."""
    state = StackState.read(home)
    if state is not None and state.supervisor.alive:
        tell("stopping Endpunkt")
        state.supervisor.send(signal.SIGTERM)
        if not state.supervisor.wait(_DOWN_SECONDS):
            raise StackError(f"the supervisor {state.supervisor.pid} is still stopping: see {home}/logs/supervisor.log")
        return
    left = leftovers(home)
    broker = Broker(home / "kafka")
    if not left and not broker.is_running:
        tell("Endpunkt is not running")
        return
    tell("the supervisor is gone; stopping what it left")
    end(left)
    broker.stop()


def clean(home: Path, tell: Callable[[str], None]) -> None:
    """Forget all state under `home`: the embedded Kafka's topics, artifacts, keys, certificates, job outputs.

    Refused while it runs, and for a folder that is no Endpunkt's. Topics of a cluster of your own stay there.
    """
    state = StackState.read(home)
    if state is None:
        if home.exists():
            raise StackError(f"{home} is not the home of an Endpunkt: nothing is deleted")
        tell(f"{home} does not exist")
        return
    if state.supervisor.alive or leftovers(home) or Broker(home / "kafka").is_running:
        raise StackError("Endpunkt is running: stop it first with `make down`")
    shutil.rmtree(home)
    tell(f"{home} is gone")
