"""Telling the bus what the router saw: load samples every second, usage every interval.

A load sample is worth something only while it is fresh: what cannot be sent is dropped. Usage is money: a record is
kept until Kafka has it, and the records of an interval are sent only when those of the one before are durable, because
metering counts a sequence number that comes too late as lost.

While Kafka takes nothing, the interval that runs is not cut but grows, at most to the end of its hour, and what is not
sent is written to disk (`unsent`) as often as it would be cut, so that a kill takes no more along than otherwise. What
a stop cannot send, the next start does.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.log import Publisher
from contracts.messages import REQUESTS, LoadSample, UsageRecorded
from router.gateway import Gateway
from router.unsent import Interval, Unsent
from router.usage import Key, UsageMeter

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_FLUSH_SECONDS = 5.0
_CLAIM_SECONDS = 0.2

MOST_INTERVALS = 100
"""So many may wait: with one an hour that is longer than metering takes usage. After that the last one grows on."""


class Reporter:
    """Reads the counters of `gateway` and publishes them as `source`; what waits is kept under `home`. For
    `is_former` see `Unsent`."""

    def __init__(
        self,
        gateway: Gateway,
        publisher: Publisher,
        source: str,
        usage_seconds: float,
        home: Path,
        is_former: Callable[[str], bool] = lambda _: False,
    ):
        started_at = datetime.now(UTC)
        self._gateway, self._publisher, self._source = gateway, publisher, source
        self._usage_seconds = usage_seconds
        self._unsent = Unsent(home, source, is_former)
        self._epoch = max(int(started_at.timestamp() * 1000), self._unsent.last_epoch() + 1)
        self._meter = UsageMeter(source, self._epoch, started_at)
        self._outbox: deque[Interval] = deque()
        self._taken = False
        self._dirty = False  # there is more on disk than is unsent
        self._writing = asyncio.Lock()
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
            due = self._meter.next_cut(self._usage_seconds)
            while True:
                await asyncio.sleep(max(0.0, (due - datetime.now(UTC)).total_seconds()))
                now, waiting = datetime.now(UTC), len(self._outbox)
                if not waiting or (now >= self._meter.hour_ends and waiting < MOST_INTERVALS):
                    self._cut(now)
                if waiting:
                    await self._keep([*self._outbox, self._meter.preview(now, self._handed())])
                due = self._next(now)
        finally:
            sender.cancel()

    async def flush(self) -> None:
        """Cut the running interval and send everything, once: for a graceful stop. What Kafka does not take in time
        stays on disk for the next start."""
        self._cut(datetime.now(UTC), last=True)
        self._take()
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                while self._outbox:
                    await self._send_interval(self._outbox[0])
                    self._outbox.popleft()
        except Exception as error:
            count = sum(record.quantities.get(REQUESTS, 0) for interval in self._outbox for record in interval)
            if await self._keep(list(self._outbox)):
                log.warning("the usage of %d requests waits on disk: Kafka did not take it (%r)", count, error)
            else:
                log.error("the usage of %d requests is lost: Kafka did not take it (%r)", count, error)
        else:
            await self._keep([])
        self._unsent.release()

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

    def _handed(self) -> Iterator[tuple[Key, int]]:
        return ((key, deployment.tally.handed) for key, deployment in self._gateway.table.deployments.items())

    def _next(self, now: datetime) -> datetime:
        """When the interval ends that runs, or what is kept of it is kept anew."""
        due = self._meter.next_cut(self._usage_seconds)
        if due > now:
            return due
        again = now + timedelta(seconds=self._usage_seconds)
        return min(again, self._meter.hour_ends) if self._meter.hour_ends > now else again

    def _cut(self, now: datetime, *, last: bool = False) -> None:
        records = self._meter.cut(now, self._handed(), last=last)
        closed = [self._meter.forget(key) for key in self._gateway.table.forget_removed()]
        for interval in (records, [record for record in closed if record is not None]):
            if interval:
                self._outbox.append(interval)
                self._cut_wakes.set()

    # What waits

    def _take(self) -> bool:
        """Put what an earlier process left before what this one tells; False while that one lives."""
        if not self._taken and self._unsent.claim():
            self._taken = True
            self._outbox.extendleft(reversed(self._unsent.take()))
            self._dirty = True
            self._cut_wakes.set()
        return self._taken

    async def _keep(self, intervals: list[Interval]) -> bool:
        """Have these on disk, if this process is its source by now; whether they are. A write that has begun is
        finished, so that none overtakes another."""
        return self._taken and await asyncio.shield(self._write(intervals))

    async def _write(self, intervals: list[Interval]) -> bool:
        async with self._writing:
            self._dirty = bool(intervals)
            return await asyncio.to_thread(self._unsent.keep, self._epoch, intervals)

    async def _send_usage(self) -> None:
        while not self._take():  # noqa: ASYNC110 (a lock of another process tells nobody)
            await asyncio.sleep(_CLAIM_SECONDS)
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
            if self._dirty:
                await self._keep([])

    async def _send_interval(self, records: Interval) -> None:
        await asyncio.gather(*[await self._publisher.send(record, id=_id(record)) for record in records])


def _id(record: UsageRecorded) -> str:
    """The same for every attempt to send it."""
    return f"{record.source}/{record.epoch}/{record.key()}/{record.sequence}"
