"""`python restart.py bare|router HOME RECORDS`: seconds from a start to every record of the router's topics being read.

KAFKA_BOOTSTRAP_SERVERS names the broker. `bare` is a consumer that does nothing with what it reads; `router` is the
service, from its start to its open port. Imports are not counted.
"""

import asyncio
import os
import sys
import time
from pathlib import Path

import uvloop
from aiokafka import AIOKafkaConsumer, TopicPartition

from contracts.log import KafkaSettings
from contracts.messages import EndpointDesired, EndpointObserved
from contracts.topics import topics
from router.app import Router
from router.settings import RouterSettings

POLL_SECONDS = 0.001


async def bare(kafka: KafkaSettings, records: int) -> None:
    """Read as many records, in the largest batches there are."""
    consumer = AIOKafkaConsumer(**kafka.client(), enable_auto_commit=False, isolation_level="read_committed")
    await consumer.start()
    places = [
        TopicPartition(name, number)
        for name in (EndpointDesired.TOPIC, EndpointObserved.TOPIC)
        for number in range(topics()[name].partitions)
    ]
    consumer.assign(places)
    await consumer.seek_to_beginning(*places)
    seen = 0
    while seen < records:
        seen += sum(map(len, (await consumer.getmany(timeout_ms=1000)).values()))
    await consumer.stop()


async def router(kafka: KafkaSettings, home: Path) -> None:
    """Start the service; return when its port is open."""
    service, stop = Router(RouterSettings(home=home, router_port=0), kafka), asyncio.Event()
    running = asyncio.create_task(service.run(stop))
    while service.not_ready() and not running.done():  # noqa: ASYNC110 (it tells nobody but who asks)
        await asyncio.sleep(POLL_SECONDS)
    print(time.perf_counter() - began, flush=True)
    stop.set()
    await running


async def main(what: str, home: str, records: str) -> None:
    """One restart."""
    kafka = KafkaSettings.from_environment(os.environ)
    if what == "router":
        await router(kafka, Path(home))
    else:
        await bare(kafka, int(records))
        print(time.perf_counter() - began, flush=True)


uvloop.install()
began = time.perf_counter()
asyncio.run(main(*sys.argv[1:]))
