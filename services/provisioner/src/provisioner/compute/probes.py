"""Asks an instance GET / and says when it became ready, was given up, or stopped answering."""

import asyncio
import contextlib
from collections.abc import Callable

from contracts.messages import DeploymentError, OnlineDeploymentSpec
from provisioner.compute.records import InstanceFolder
from provisioner.core.failures import NOTHING_LISTENS, never_ready, no_longer_alive
from provisioner.core.health import Streak, readiness_deadline, readiness_wait

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


async def probe(
    address: str,
    folder: InstanceFolder,
    spec: Callable[[], OnlineDeploymentSpec],
    ready: bool,
    on_ready: Callable[[], None],
    on_condemned: Callable[[DeploymentError], None],
) -> None:
    """Watch over one instance until it is condemned or this is cancelled. `spec()` is the newest specification, whose
    probes may change while it runs; `ready`: it was found at work."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    if not ready:
        streak = Streak()
        while True:
            settings = spec().readiness_probe
            failure = await ask(address, settings.timeout)
            streak = streak.after(failure is None)
            if streak.ready(settings):
                break
            age = loop.time() - began
            if age >= readiness_deadline(settings):
                on_condemned(never_ready(readiness_deadline(settings), folder.log_tail(), failure))
                return
            await asyncio.sleep(readiness_wait(age))
        on_ready()
    streak = Streak()
    await asyncio.sleep(max(0.0, began + spec().liveness_probe.initial_delay - loop.time()))
    while True:
        settings = spec().liveness_probe
        await asyncio.sleep(settings.period)
        failure = await ask(address, settings.timeout)
        streak = streak.after(failure is None)
        if failure is not None and streak.dead(settings):
            on_condemned(no_longer_alive(-streak.length, failure, folder.log_tail()))
            return
