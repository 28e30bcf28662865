"""The process of one local deployment: started detached, waited for, stopped."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from contracts.shell.processes import ProcessIdentity
from endpunkt_cli.errors import CliError
from endpunkt_cli.local.record import Folder, Record, State

HOST = "127.0.0.1"
DRAIN_SECONDS = 5
_GRACE_SECONDS = 2
_LOOK_SECONDS = 0.02
_LISTEN_STATE = "0A"


def start(python: Path, variables: Mapping[str, str], folder: Folder, record: Record) -> Record:
    """Start the inference server; returns the record, which is written, with its process and port. Raises CliError."""
    # A debugger sees no breakpoints in modules that are frozen into the interpreter.
    options = ["-Xfrozen_modules=off"] if record.debug_port is not None else []
    folder.path.mkdir(parents=True, exist_ok=True, mode=0o700)
    folder.status_file.unlink(missing_ok=True)
    with socket.socket() as listener, folder.console.open("wb") as console:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, record.port))
        except OSError as error:
            raise CliError(f"cannot listen on port {record.port}: {error.strerror}. Choose another --port.") from None
        child = subprocess.Popen(
            [python, *options, "-m", "inference_server", "--fd", str(listener.fileno())],
            pass_fds=[listener.fileno()],
            env=dict(variables),
            cwd=folder.path,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        # One that ended at once has no identity any more: then one that nobody has.
        identity = ProcessIdentity.of(child.pid) or ProcessIdentity(child.pid, 0, "")
        started = replace(record, process=identity, port=listener.getsockname()[1])
    folder.write(started)
    return started


def settled(folder: Folder, record: Record, seconds: float | None) -> State:
    """Wait until it is ready or failed, at most `seconds`; its state."""
    return _awaited(lambda: folder.state(record), lambda state: state.name != "Creating", seconds)


def debuggable(folder: Folder, record: Record, seconds: float) -> State:
    """Wait until a debugger can attach, or it has failed; its state."""
    assert record.debug_port is not None
    port = record.debug_port
    return _awaited(
        lambda: folder.state(record), lambda state: state.name != "Creating" or port in listening_ports(), seconds
    )


def _awaited(look: Callable[[], State], enough: Callable[[State], bool], seconds: float | None) -> State:
    deadline = None if seconds is None else time.monotonic() + seconds
    while not enough(state := look()):
        if deadline is not None and time.monotonic() > deadline:
            break
        time.sleep(_LOOK_SECONDS)
    return state


def stop(record: Record) -> None:
    """End it: what it has in hand first, if that does not take long."""
    process = record.process
    if process is None:
        return
    process.send(signal.SIGTERM)
    if not process.wait(DRAIN_SECONDS + _GRACE_SECONDS):
        # It leads a session of its own, and while it lives that number is no other's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(None)


def free_port(preferred: int) -> int:
    """`preferred`, or another one when that is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            return int(probe.getsockname()[1])
    raise CliError("this machine has no free port")


def listening_ports() -> set[int]:
    """The TCP ports (IPv4) on which something listens here. To look does not disturb a debugger, to connect would."""
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        local, _, state = line.split()[1:4]
        if state == _LISTEN_STATE:
            ports.add(int(local.rpartition(":")[2], 16))
    return ports
