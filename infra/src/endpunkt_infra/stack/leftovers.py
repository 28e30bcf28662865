"""Processes of an Endpunkt whose supervisor is gone, or that outlived the service which started them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.services import MODULES

_STOP_SECONDS = 45.0
_OURS = {module.encode() for module in (*MODULES.values(), "inference_server", "inference_server.batch")}


def leftovers(home: Path) -> list[ProcessIdentity]:
    """Services, instances and batch workers of `home` that run now: services first.

    A process is one of them when it runs one of our modules and its environment names `home`: as ENDPUNKT_HOME
    (services), as its own home below it (instances), or as its job's folder (batch workers).
    """
    services, others = [], []
    for command, environment, identity in _python_modules():
        if command & set(MODULES.values()) and f"ENDPUNKT_HOME={home}" in environment:
            services.append(identity)
        elif any(variable.startswith((f"HOME={home}/", f"ENDPUNKT_BATCH_JOB={home}/")) for variable in environment):
            others.append(identity)
    return services + others


def end(processes: list[ProcessIdentity]) -> None:
    """SIGTERM to all, SIGKILL to those that are still there much later."""
    for process in processes:
        process.send(signal.SIGTERM)
    for process in processes:
        if not process.wait(_STOP_SECONDS):
            process.send(signal.SIGKILL)
            process.wait(None)


def _python_modules() -> Iterator[tuple[set[str], set[str], ProcessIdentity]]:
    """Each process that runs one of our modules: its arguments, its environment, and which it is."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(folder.name) == os.getpid():
                continue
            command = set((folder / "cmdline").read_bytes().split(b"\0"))
            if b"-m" not in command or not command & _OURS:
                continue
            environment = (folder / "environ").read_bytes().split(b"\0")
            identity = ProcessIdentity.of(int(folder.name))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
            continue
        if identity is not None:
            yield set(map(os.fsdecode, command)), set(map(os.fsdecode, environment)), identity
