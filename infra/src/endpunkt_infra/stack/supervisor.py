"""The process that runs a whole Endpunkt on one machine: Kafka, topics, services; it starts again what dies.

It tells how far it is in <home>/run/stack.json, which `up` waits for and `down` reads.
"""

import asyncio
import fcntl
import json
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from contracts.log import KafkaSettings
from contracts.shell.files import write_atomically
from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka import KafkaUnavailableError, address
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.services import MODULES, ServiceProcess
from endpunkt_infra.stack.leftovers import end, leftovers
from endpunkt_infra.stack.restarts import Restarts
from endpunkt_infra.topics import make_topics

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_READY_SECONDS = 60.0
_ALL_ENDS = {"ENDPUNKT_INSTANCES_AT_STOP": "drain"}
"""No provisioner comes after ours to adopt instances: they end with it."""


@dataclass
class Watched:
    """Something that is started again when it is gone, each time after a wait of its own.

    `gone` tells how it ended, None while it runs. A `start` that fails counts as one more death.
    """

    name: str
    gone: Callable[[], str | None]
    start: Callable[[], object]
    clock: Callable[[], float] = time.monotonic
    restarts: Restarts = field(default_factory=Restarts)
    _due: float | None = None

    def __post_init__(self) -> None:
        self.restarts = self.restarts.started(self.clock())

    def look(self) -> None:
        """Start it again when it is gone and its wait is over."""
        why = self.gone()
        if why is None:
            return
        now = self.clock()
        if self._due is None:
            self.restarts, self._due = self.restarts.died(now)
            log.error("%s %s; starting it again in %.1f s", self.name, why, self._due - now)
        elif now >= self._due:
            self._due = None
            try:
                self.start()
            except (KafkaUnavailableError, OSError) as error:
                log.error("%s could not be started again: %s", self.name, error)
            # Only now: a start that failed after a minute is no minute of health.
            self.restarts = self.restarts.started(self.clock())


class Supervisor:
    """Runs everything under `home`. `environment` is what the services are told besides Kafka's address.

    Kafka is the cluster in KAFKA_BOOTSTRAP_SERVERS when that is set, which is then neither started nor stopped.
    """

    def __init__(self, home: Path, environment: dict[str, str]):
        self._home = home
        self._environment = environment
        self._broker: Broker | None = None
        self._services: list[ServiceProcess] = []
        self._watched: list[Watched] = []

    def run(self) -> int:
        """Start everything, keep it running until SIGTERM or SIGINT, stop it. Returns the exit code."""
        os.umask(0o077)  # what is kept here is nobody else's to read
        lock = self._home / "run" / "supervisor.lock"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                log.error("another supervisor runs under %s: stop it with `make down`", self._home)
                return 1
            return self._run()

    def _run(self) -> int:
        signal.signal(signal.SIGTERM, _interrupt)
        signal.signal(signal.SIGINT, _interrupt)
        try:
            addresses = self._start()
            self._tell("ready", addresses=addresses)
            log.info("ready")
            self._watch()
        except _Interrupted:
            log.info("stopping")
        except Exception as error:
            log.exception("Endpunkt failed; stopping all of it")
            self._tell("failed", error=str(error))
            return 1
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._stop()
        self._tell("stopped")
        return 0

    def _start(self) -> dict[str, str]:
        self._tell("starting")
        kafka = self._start_kafka()
        asyncio.run(make_topics(kafka))
        for name in MODULES:
            service = ServiceProcess(
                name, self._home, {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, **_ALL_ENDS, **self._environment}
            )
            self._services.append(service)
            service.start()
            self._watched.append(Watched(name, partial(_ended, service), service.start))
        addresses = {"kafka": kafka.bootstrap_servers}
        for service in self._services:
            addresses |= service.wait_ready(_READY_SECONDS)
        return addresses

    def _start_kafka(self) -> KafkaSettings:
        self._broker = Broker(self._home / "kafka")
        # `make env` names our own broker to a shell that may call us again.
        if address.named(os.environ) != self._broker.last_address and (cluster := address.external(os.environ)):
            self._broker = None
            return cluster
        bootstrap = self._broker.start()
        # At this very address, or not at all: it is the one that the services know.
        again = self._broker = Broker(self._home / "kafka", int(bootstrap.rpartition(":")[2]))
        self._watched.append(Watched("Kafka", lambda: None if again.is_running else "is gone", again.start))
        return KafkaSettings(bootstrap)

    def _watch(self) -> None:
        while True:
            time.sleep(_LOOK_SECONDS)
            for each in self._watched:
                each.look()

    def _stop(self) -> None:
        # The provisioner drains its instances, so the router goes after it; everyone flushes before Kafka goes.
        for services in ([each for each in self._services if each.name != "router"], self._services):
            for service in services:
                service.ask_to_stop()
            for service in services:
                service.stop()
        end(leftovers(self._home))
        if self._broker is not None:
            self._broker.stop()

    def _tell(self, state: str, *, addresses: dict[str, str] | None = None, error: str | None = None) -> None:
        identity = ProcessIdentity.of(os.getpid())
        assert identity is not None
        told = {"state": state, "addresses": addresses or {}, "error": error, "supervisor": asdict(identity)}
        write_atomically(self._home / "run" / "stack.json", json.dumps(told, indent=2).encode())


def _ended(service: ServiceProcess) -> str | None:
    assert service.process is not None
    code = service.process.poll()
    return None if code is None else f"ended with {code}"


class _Interrupted(Exception):
    pass


def _interrupt(number: int, frame: object) -> None:
    raise _Interrupted
