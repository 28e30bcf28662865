"""The life of a service: settings, logs, traces, side door, signals. What it does is its own `app.py`."""

import asyncio
import gc
import json
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol, runtime_checkable

from contracts.log.settings import KafkaSettings, KafkaSettingsError
from contracts.shell.files import write_atomically
from contracts.shell.health import Health
from contracts.shell.logs import configure_logs
from contracts.shell.settings import S, SettingsError, load_settings
from contracts.shell.telemetry import configure_telemetry

log = logging.getLogger(__name__)


class App(Protocol):
    """What a service gives: `run` works until `stop` is set and then finishes what it began; an error ends it."""

    def not_ready(self) -> list[str]:
        """What it still waits for; empty when it is ready."""

    def addresses(self) -> dict[str, str]:
        """Where it listens for its own work, by purpose, such as {"scoring": "https://127.0.0.1:8443"}."""

    def run(self, stop: asyncio.Event) -> Coroutine[None, None, None]:
        """Work until `stop` is set."""


@runtime_checkable
class Warns(Protocol):
    """A service that may work and yet have something that a person should see to."""

    def warnings(self) -> list[str]:
        """What, and what to do."""


def serve(service: str, settings_type: type[S], build: Callable[[S, KafkaSettings], App]) -> None:
    """Run a service until SIGTERM or SIGINT; exits the process, with 0 after a graceful stop, 1 after an error,
    2 when the settings are wrong."""
    try:
        settings = load_settings(settings_type)
        kafka = KafkaSettings.from_environment(os.environ)
    except (SettingsError, KafkaSettingsError) as error:
        sys.stderr.write(f"{service}: {error}\n")
        sys.exit(2)
    configure_logs(service, settings.log_level)
    shutdown_telemetry = configure_telemetry(service)
    app = build(settings, kafka)
    # What is imported stays: the garbage collector need not go through all of it again and again, 20 ms each time.
    gc.freeze()
    try:
        asyncio.run(_serve(service, settings, app))
    except Exception:
        log.exception("%s stops on an error", service)
        sys.exit(1)
    finally:
        shutdown_telemetry()


async def _serve(service: str, settings: S, app: App) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = Health(app.not_ready, app.addresses, app.warnings if isinstance(app, Warns) else list)
    await health.start(settings.host, settings.health_port)
    run_file = settings.home / "run" / f"{service}.json"
    write_atomically(run_file, json.dumps({"pid": os.getpid(), "health_port": health.port}).encode())
    log.info("%s started, health on %s:%d", service, settings.host, health.port)
    try:
        await app.run(stop)
    finally:
        await health.stop()
    log.info("%s stopped", service)


async def until_first(*tasks: Awaitable[object]) -> None:
    """Wait for the first to end, cancel the others, and raise its error if it has one. Cancelled itself, it takes all
    of them along."""
    pending = [asyncio.ensure_future(task) for task in tasks]
    done: set[asyncio.Future[object]] = set()
    try:
        done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
    finally:
        others = [task for task in pending if task not in done]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
    for ended in done:
        ended.result()
