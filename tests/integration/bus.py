"""What tests say on the bus."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from contracts.log import KafkaSettings, Publisher


@asynccontextmanager
async def publishing(kafka: KafkaSettings) -> AsyncIterator[Publisher]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    try:
        yield publisher
    finally:
        await publisher.stop()
