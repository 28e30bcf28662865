"""A real Kafka broker for each test file, with Endpunkt's topics, and services as real processes."""

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.log import KafkaSettings
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.services import ServiceProcess
from endpunkt_infra.topics import make_topics

sys.path.append(str(Path(__file__).parents[2]))  # helpers are imported as tests.integration.<module>

StartService = Callable[..., ServiceProcess]


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaSettings]:
    """An own broker: no test file sees another's records."""
    broker = Broker(tmp_path_factory.mktemp("kafka"), port=0)
    settings = KafkaSettings(broker.start())
    try:
        asyncio.run(make_topics(settings))
        yield settings
    finally:
        broker.stop()


@pytest.fixture
def start_service(kafka: KafkaSettings, tmp_path: Path) -> Iterator[StartService]:
    """`start_service(name, **settings)`: a running, ready service under tmp_path; settings are ENDPUNKT_* without the
    prefix, in lower case. All are stopped at the end of the test, and instances with them."""
    running: list[ServiceProcess] = []

    def start(name: str, home: Path = tmp_path, **settings: str) -> ServiceProcess:
        settings = {"instances_at_stop": "drain", **settings}
        environment = {f"ENDPUNKT_{key.upper()}": str(value) for key, value in settings.items()}
        service = ServiceProcess(name, home, {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, **environment})
        service.start()
        running.append(service)
        service.wait_ready()
        return service

    yield start
    for service in reversed(running):
        service.stop()
