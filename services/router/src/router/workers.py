"""Several router processes on one port: started, watched, replaced when they die, and stopped together.

Each is a router of its own, with its own table, connections and counters, and a source of usage of its own; the kernel
spreads new connections over those that listen. When one dies, its connections break and the others go on. This process
listens for nothing but its health port, and answers there for all of them.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from prometheus_client import GC_COLLECTOR, PLATFORM_COLLECTOR, PROCESS_COLLECTOR, REGISTRY

from contracts.log.settings import KafkaSettings
from contracts.shell.service import until_first
from router.ports import reachable, reserve
from router.settings import WORKER, RouterSettings
from router.worker_metrics import WorkerMetrics

log = logging.getLogger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_HEALTHY_SECONDS = 30.0
_LOOK_SECONDS, _SOON_SECONDS = 2.0, 0.1
_ANSWER_SECONDS = 2.0
_LONGEST_REQUEST_SECONDS = 180.0  # the largest request_timeout_ms
_FLUSH_SECONDS = 12.0
"""What a process needs at a stop besides its drain: it tells its usage and leaves Kafka."""
_PORT_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class Worker:
    """One of the processes. `state` is what its /readyz says; empty while it does not answer."""

    number: int
    run_file: Path
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    deaths: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether it answers requests."""
        return bool(self.state.get("ready"))

    async def start(self) -> None:
        """Start it anew. It sees the end of its input when this process ends, however that ends, and stops then."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "router"), env=self.environment, stdin=asyncio.subprocess.PIPE
        )

    def health_port(self) -> int | None:
        """Where it answers for itself; None before it has said so."""
        try:
            run = json.loads(self.run_file.read_text())
        except (OSError, ValueError):
            return None
        return int(run["health_port"]) if self.process is not None and run["pid"] == self.process.pid else None

    async def look(self, session: aiohttp.ClientSession, host: str) -> None:
        """Ask it how it is."""
        port = self.health_port()
        state: dict[str, Any] = {}
        if port is not None:
            with contextlib.suppress(aiohttp.ClientError, OSError, ValueError):
                async with session.get(f"http://{host}:{port}/readyz") as answer:
                    state = await answer.json()
        self.state = state

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGTERM)


class Workers:
    """The service, see `contracts.shell.service.App`. It is ready when every process is; once it was, it stays so as
    long as one of them answers, and warns of those that do not."""

    def __init__(self, settings: RouterSettings, _: KafkaSettings):
        self._settings = settings
        self._host = reachable(settings.host)
        self._workers: list[Worker] = []
        self._complete = False

    def not_ready(self) -> list[str]:
        """The processes that do not answer yet."""
        if self._complete and any(worker.ready for worker in self._workers):
            return []
        return [
            f"process {worker.number}: {', '.join(worker.state.get('waiting_for', ['its health port']))}"
            for worker in self._workers
            if not worker.ready
        ] or ["its processes"]

    def warnings(self) -> list[str]:
        """What each warns of, and who does not answer."""
        warnings = [
            f"process {each.number}: {text}" for each in self._workers for text in each.state.get("warnings", ())
        ]
        if self._complete:
            warnings += [
                f"process {each.number} of {len(self._workers)} does not answer: it is being replaced (for the "
                f"{each.deaths}. time), or hangs; the lines of router-{each.number} in the log say why"
                for each in self._workers
                if not each.ready
            ]
        return warnings

    def addresses(self) -> dict[str, str]:
        """Where requests go: the same for all."""
        return next((dict(worker.state["addresses"]) for worker in self._workers if worker.ready), {})

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the processes running until `stop` is set; then have each finish its requests and end."""
        settings = self._settings
        metrics = WorkerMetrics(self._workers, self._host)
        own = (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, GC_COLLECTOR)
        with contextlib.ExitStack() as held:
            scoring = await self._reserved(held, settings.host, settings.router_port)
            private = settings.private_port
            if private is not None:
                private = await self._reserved(held, settings.private_host, private)
            self._workers += [self._worker(number, scoring, private) for number in range(1, settings.processes + 1)]
            for collector in own:  # they would come twice: each process has them too
                REGISTRY.unregister(collector)
            REGISTRY.register(metrics)
            try:
                await until_first(stop.wait(), self._watch(), *(self._keep(worker) for worker in self._workers))
            finally:
                await self._end()
                REGISTRY.unregister(metrics)
                for collector in own:
                    REGISTRY.register(collector)

    async def _reserved(self, held: contextlib.ExitStack, host: str, port: int) -> int:
        """Those that a killed predecessor had started close the port when they notice, which is soon."""
        give_up = asyncio.get_running_loop().time() + _PORT_SECONDS
        while True:
            try:
                sockets: list[socket.socket] = reserve(host, port)
            except OSError:
                if asyncio.get_running_loop().time() > give_up:
                    raise
                await asyncio.sleep(_SOON_SECONDS)
            else:
                for each in sockets:
                    held.enter_context(each)
                return int(sockets[0].getsockname()[1])

    def _worker(self, number: int, scoring: int, private: int | None) -> Worker:
        settings = self._settings
        told = {
            WORKER: str(number),
            "ENDPUNKT_ROUTER_PROCESSES": str(settings.processes),
            "ENDPUNKT_SOURCE": f"{settings.source}-{number}",
            "ENDPUNKT_ROUTER_PORT": str(scoring),
            "ENDPUNKT_HEALTH_PORT": "0",
        }
        if private is not None:
            told["ENDPUNKT_PRIVATE_PORT"] = str(private)
        return Worker(number, settings.home / "run" / f"router-{number}.json", os.environ | told)

    async def _keep(self, worker: Worker) -> None:
        """Run it, again and again."""
        loop = asyncio.get_running_loop()
        wait = 0.0
        while True:
            began = loop.time()
            try:
                await worker.start()
            except OSError as error:
                how = f"could not be started: {error}"
            else:
                assert worker.process is not None
                how = f"ended with {await worker.process.wait()}"
            worker.deaths += 1
            worker.state = {}
            healthy = loop.time() - began >= _HEALTHY_SECONDS
            wait = _FIRST_WAIT if healthy or not wait else min(wait * 2, _LONGEST_WAIT)
            log.error("process %d of the router %s; another one replaces it in %g s", worker.number, how, wait)
            await asyncio.sleep(wait)

    async def _watch(self) -> None:
        """Know how each of them is."""
        timeout = aiohttp.ClientTimeout(total=_ANSWER_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await asyncio.gather(*(worker.look(session, self._host) for worker in self._workers))
                all_ready = all(worker.ready for worker in self._workers)
                self._complete |= all_ready
                await asyncio.sleep(_LOOK_SECONDS if all_ready else _SOON_SECONDS)

    async def _end(self) -> None:
        """Stop them all. Raises RuntimeError when one did not end well."""
        running = [
            worker for worker in self._workers if worker.process is not None and worker.process.returncode is None
        ]
        for worker in running:
            worker.ask_to_stop()
        ends = [asyncio.create_task(worker.process.wait()) for worker in running if worker.process is not None]
        if ends:
            drain = max(self._settings.drain_seconds, _LONGEST_REQUEST_SECONDS)
            await asyncio.wait(ends, timeout=drain + _FLUSH_SECONDS)
        for worker in running:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.kill()
        codes = [await end for end in ends]
        # One that had only begun to start ends by the signal itself.
        bad = [f"{each.number} with {code}" for each, code in zip(running, codes, strict=True) if code not in (0, -15)]
        if bad:
            raise RuntimeError(f"of the router's processes ended {', '.join(bad)}: their lines in the log say why")
