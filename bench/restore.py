"""How long the router takes to restore its table from Kafka, beside a consumer that only reads the same records."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).with_name("peers") / "router"))

from documents import desired, observed

from contracts.log import KafkaSettings, Publisher
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.topics import make_topics

RESTART = Path(__file__).with_name("peers") / "router" / "restart.py"
IN_FLIGHT = 1000


async def fill(kafka: KafkaSettings, endpoints: int) -> None:
    """Make the topics and write so many endpoints, with two deployments each."""
    await make_topics(kafka)
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # it tells of every retry until the topics have leaders
    publisher = Publisher(kafka, "bench")
    await publisher.start()
    sent = []
    for number in range(endpoints):
        name = f"endpoint-{number}"
        for document in (desired(name), observed(name, {"blue": "5001", "green": "5002"})):
            sent.append(await publisher.send(document))
        if len(sent) > IN_FLIGHT:
            await asyncio.gather(*sent)
            sent.clear()
    await asyncio.gather(*sent)
    await publisher.stop()


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """What is started meanwhile stays on that core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def restored(folder: Path, core: int, broker_core: int, endpoints: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each restart of `bare` and `router`, in turns; both on `core`, the broker on the other."""
    took: dict[str, list[float]] = {"bare": [], "router": []}
    broker = Broker(folder / "kafka", port=0)
    with pinned(broker_core):
        address = broker.start()
    try:
        asyncio.run(fill(KafkaSettings(address), endpoints))
        environment = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": address}
        for number in range(rounds + 1):
            for who, seconds in took.items():
                command = [sys.executable, str(RESTART), who, str(folder / "restored"), str(2 * endpoints)]
                with pinned(core):
                    ran = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
                if number:  # the first round makes the certificates and warms the broker
                    seconds.append(float(json.loads(ran.stdout)))
    finally:
        broker.stop()
    return took
