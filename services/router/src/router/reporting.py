"""Telling the bus what the router saw: load samples every second, usage every interval.

A load sample is worth something only while it is fresh: what cannot be sent is dropped. Usage is money: a record is
kept until Kafka has it, and the records of an interval are sent only when those of the one before are durable, because
metering counts a sequence number that comes too late as lost.
"""

import asyncio
import logging
import time
from collections import deque
from datetime import UTC, datetime

from contracts.log import Publisher
from contracts.messages import REQUESTS, LoadSample, UsageRecorded
from router.gateway import Gateway
from router.usage import UsageMeter

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_FLUSH_SECONDS = 5.0


class Reporter:
    """Reads the counters of `gateway` and publishes them as `source`."""

    def __init__(self, gateway: Gateway, publisher: Publisher, source: str, usage_seconds: float):
        started_at = datetime.now(UTC)
        self._gateway, self._publisher, self._source = gateway, publisher, source
        self._usage_seconds = usage_seconds
        self._meter = UsageMeter(source, int(started_at.timestamp() * 1000), started_at)
        self._outbox: deque[list[UsageRecorded]] = deque()
        self._cut_wakes = asyncio.Event()

    async def tell_load(self) -> None:
        """At the end of each second, send a sample of each deployment that has an autoscale setting."""
        sending: asyncio.Task[None] | None = None
        second = int(time.time())
        while True:
            await asyncio.sleep(max(0.0, second + 1 - time.time()))
            samples = self._samples(datetime.fromtimestamp(second, UTC))
            second = max(second + 1, int(time.time()))
            if samples and sending is not None and not sending.done():
                log.warning("load samples are dropped: Kafka did not take those of the second before in time")
            elif samples:
                sending = asyncio.create_task(self._send_samples(samples))

    async def tell_usage(self) -> None:
        """Cut the usage at each interval's end, and send it."""
        sender = asyncio.create_task(self._send_usage())
        try:
            while True:
                left = (self._meter.next_cut(self._usage_seconds) - datetime.now(UTC)).total_seconds()
                await asyncio.sleep(max(0.0, left))
                self._cut()
        finally:
            sender.cancel()

    async def flush(self) -> None:
        """Cut the running interval and send everything, once: for a graceful stop. What Kafka does not take in time is
        lost, and the log says how much."""
        self._cut()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._outbox:
                    await self._send_interval(self._outbox[0])
                    self._outbox.popleft()
        except Exception as error:
            lost = sum(record.quantities[REQUESTS] for interval in self._outbox for record in interval)
            log.error("the usage of %d requests is lost: Kafka did not take it (%r)", lost, error)

    def _samples(self, at: datetime) -> list[LoadSample]:
        return [
            deployment.tally.take_second(endpoint, name, self._source, at, deployment.in_flight)
            for (endpoint, name), deployment in self._gateway.table.deployments.items()
            if deployment.route.autoscaled
        ]

    async def _send_samples(self, samples: list[LoadSample]) -> None:
        try:
            await asyncio.gather(*[await self._publisher.send(sample) for sample in samples])
        except Exception as error:
            log.warning("load samples are dropped: %r", error)

    def _cut(self) -> None:
        table = self._gateway.table
        records = self._meter.cut(
            datetime.now(UTC), ((key, deployment.tally.handed) for key, deployment in table.deployments.items())
        )
        for key in table.forget_removed():
            self._meter.forget(key)
        if records:
            self._outbox.append(records)
            self._cut_wakes.set()

    async def _send_usage(self) -> None:
        while True:
            await self._cut_wakes.wait()
            self._cut_wakes.clear()
            while self._outbox:
                try:
                    await self._send_interval(self._outbox[0])
                except Exception as error:
                    log.warning("usage waits, %d intervals: Kafka does not take it (%r)", len(self._outbox), error)
                    await asyncio.sleep(_RETRY_SECONDS)
                else:
                    self._outbox.popleft()

    async def _send_interval(self, records: list[UsageRecorded]) -> None:
        await asyncio.gather(*[await self._publisher.send(record, id=_id(record)) for record in records])


def _id(record: UsageRecorded) -> str:
    """The same for every attempt to send it."""
    return f"{record.source}/{record.epoch}/{record.key()}/{record.sequence}"
