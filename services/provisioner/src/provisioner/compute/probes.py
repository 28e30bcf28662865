"""Asks an instance GET / for all its life, and says when it is ready, is not, is given up, or lives no more."""

import asyncio
import contextlib
from typing import Protocol

from contracts.messages import DeploymentError, OnlineDeploymentSpec
from provisioner.compute.records import InstanceFolder
from provisioner.core.failures import NOTHING_LISTENS, never_ready, no_longer_alive
from provisioner.core.health import Readiness, Streak, first_liveness_wait, readiness_deadline, readiness_wait

_STATUS_LINE = 64


async def ask(address: str, timeout: float) -> str | None:
    """One question; None when it was answered with 200, else what came instead."""
    host, _, port = address.rpartition(":")
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                line = await reader.readline()
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except ConnectionRefusedError:
        return NOTHING_LISTENS
    except (OSError, ValueError) as error:
        return f"no answer: {error}"
    parts = line[:_STATUS_LINE].split(maxsplit=2)
    if len(parts) >= 2 and parts[1] == b"200":
        return None
    return f"the answer was {line[:_STATUS_LINE].decode(errors='replace').strip() or 'nothing'}"


class Watched(Protocol):
    """Whose health is watched, and who hears of it."""

    def spec(self) -> OnlineDeploymentSpec:
        """The newest specification: probes may change while an instance runs."""

    def ready(self) -> None:
        """It is ready now and was not before."""

    def unready(self, failures: int, last: str) -> None:
        """It was ready and is not any more, after so many failures in a row."""

    def condemned(self, error: DeploymentError) -> None:
        """It must go."""


async def probe(address: str, folder: InstanceFolder, watched: Watched, ready: bool) -> None:
    """Watch over one instance until it is condemned or this is cancelled. `ready`: it was found at work."""
    began = asyncio.get_running_loop().time()
    if not ready:
        if (error := await _first_ready(address, folder, watched, began)) is not None:
            watched.condemned(error)
            return
        watched.ready()
    # Two probes, two rhythms: neither may wait for the other's answer.
    async with asyncio.TaskGroup() as group:
        readiness = group.create_task(_watch_readiness(address, watched))
        error = await _dead(address, folder, watched, began)
        readiness.cancel()
        watched.condemned(error)


async def _first_ready(address: str, folder: InstanceFolder, watched: Watched, began: float) -> DeploymentError | None:
    """None when it is ready; the error when it did not get there in time."""
    loop = asyncio.get_running_loop()
    readiness = Readiness()
    while True:
        settings = watched.spec().readiness_probe
        failure = await ask(address, settings.timeout)
        readiness = readiness.after(failure is None, settings)
        if readiness.ready:
            return None
        age = loop.time() - began
        if age >= readiness_deadline(settings):
            return never_ready(readiness_deadline(settings), folder.log_tail(), failure)
        await asyncio.sleep(readiness_wait(age))


async def _watch_readiness(address: str, watched: Watched) -> None:
    """Tell each change of it until cancelled."""
    readiness = Readiness(ready=True)
    while True:
        settings = watched.spec().readiness_probe
        await asyncio.sleep(settings.period)
        failure = await ask(address, settings.timeout)
        before, readiness = readiness, readiness.after(failure is None, settings)
        if readiness.ready and not before.ready:
            watched.ready()
        elif before.ready and not readiness.ready:
            watched.unready(-readiness.streak.length, failure or "")


async def _dead(address: str, folder: InstanceFolder, watched: Watched, began: float) -> DeploymentError:
    """Why it lives no more, once that is so."""
    age = asyncio.get_running_loop().time() - began
    await asyncio.sleep(first_liveness_wait(watched.spec().liveness_probe, age))
    streak = Streak()
    while True:
        settings = watched.spec().liveness_probe
        failure = await ask(address, settings.timeout)
        streak = streak.after(failure is None)
        if failure is not None and streak.fails(settings):
            return no_longer_alive(-streak.length, failure, folder.log_tail())
        await asyncio.sleep(settings.period)
