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
from dataclasses import asdict
from pathlib import Path

from contracts.log import KafkaSettings
from contracts.shell.files import write_atomically
from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka import address
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.services import MODULES, ServiceProcess
from endpunkt_infra.stack.leftovers import end, leftovers
from endpunkt_infra.stack.restarts import Restarts
from endpunkt_infra.topics import make_topics

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_READY_SECONDS = 60.0


class Supervisor:
    """Runs everything under `home`. `environment` is what the services are told besides Kafka's address.

    Kafka is the cluster in KAFKA_BOOTSTRAP_SERVERS when that is set, which is then neither started nor stopped.
    """

    def __init__(self, home: Path, environment: dict[str, str]):
        self._home = home
        self._environment = environment
        self._broker: Broker | None = None
        self._services: list[ServiceProcess] = []
        self._restarts = dict.fromkeys(MODULES, Restarts())

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
            log.exception("Endpunkt did not start")
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
                name, self._home, {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, **self._environment}
            )
            self._services.append(service)
            self._launch(service)
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
        return KafkaSettings(self._broker.start())

    def _launch(self, service: ServiceProcess) -> None:
        service.start()
        self._restarts[service.name] = self._restarts[service.name].started(time.monotonic())

    def _watch(self) -> None:
        """Start again what dies, each after its own wait."""
        due: dict[str, float] = {}
        while True:
            time.sleep(_LOOK_SECONDS)
            now = time.monotonic()
            if self._broker is not None and not self._broker.is_running:
                log.error("Kafka is gone; starting it again")
                self._broker.start()
            for service in self._services:
                assert service.process is not None
                code = service.process.poll()
                if code is None:
                    continue
                if service.name not in due:
                    self._restarts[service.name], due[service.name] = self._restarts[service.name].died(now)
                    wait = due[service.name] - now
                    log.error("%s ended with %d; starting it again in %.1f s", service.name, code, wait)
                elif now >= due[service.name]:
                    del due[service.name]
                    self._launch(service)

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


class _Interrupted(Exception):
    pass


def _interrupt(number: int, frame: object) -> None:
    raise _Interrupted
