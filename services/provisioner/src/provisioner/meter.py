"""Tells instance time (every few seconds) and what instances in service use (every second).

<home>/instances/told.json holds the instant up to which instance time is told. It is written after the log has it, so
a provisioner that was killed goes on from there: adopted instances have no gap, and at worst, when it was killed just
between the two writes, one interval told twice.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from contracts.catalog import Catalog
from contracts.instance_time import InstanceTime
from contracts.log import Publisher
from contracts.messages import ResourceSample, UsageRecorded
from contracts.shell.files import write_atomically
from provisioner.compute.process import InstanceProcess
from provisioner.compute.records import InstanceRecord
from provisioner.compute.use import Sessions

log = logging.getLogger(__name__)

_SAMPLE_SECONDS = 1.0


class InstanceMeter:
    """The instance time of every instance, as `source` with `epoch` tells it."""

    def __init__(self, home: Path, publisher: Publisher, source: str, epoch: int, seconds: float):
        self._told_file = home / "instances" / "told.json"
        self._publisher = publisher
        self._time = InstanceTime(source, epoch)
        self._seconds = seconds
        self._waiting: list[UsageRecorded] = []
        self._running = asyncio.Event()
        self._told_to: datetime | None = None
        with contextlib.suppress(OSError, ValueError):
            self._told_to = datetime.fromisoformat(json.loads(self._told_file.read_text())["to"])

    def counted_to(self, record: InstanceRecord) -> datetime:
        """The instant from which an adopted instance is counted: what was told before is not told again."""
        return record.started_at if self._told_to is None else max(record.started_at, self._told_to)

    def begin(self, record: InstanceRecord, counted_to: datetime) -> None:
        """Count an instance from `counted_to` on."""
        place = record.place
        self._time.begin(record.id, place.endpoint, place.deployment, record.spec.instance_type, counted_to)
        self._running.set()

    def end(self, instance: str, at: datetime) -> None:
        """The instance ended."""
        self._time.end(instance, at)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self._running.wait()
            await asyncio.sleep(self._seconds)
            try:
                await self.flush()
            except Exception:
                log.exception("cannot tell usage; %d records wait", len(self._waiting))

    @property
    def waiting(self) -> int:
        """How many records wait to be written."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Tell everything up to now. What cannot be written waits for the next time, in order."""
        now = datetime.now(UTC)
        self._waiting += self._time.flush(now)
        while self._waiting:
            record = self._waiting[0]
            id = f"{record.source}/{record.epoch}/{record.key()}/{record.sequence}"
            await self._publisher.publish(record, id=id)
            del self._waiting[0]
        told = json.dumps({"to": now.isoformat()}).encode()
        await asyncio.to_thread(write_atomically, self._told_file, told)
        if not self._time:
            self._running.clear()


class Sampler:
    """Tells CPU and memory of instances as percentages of their instance type, and how full the disk is that holds
    their folder: they share it, and no type bounds it. `sampled()` says which: those in service, as rules would take
    what an init() uses for load, and what a drained instance does not use for room."""

    def __init__(
        self, publisher: Publisher, source: str, catalog: Catalog, sampled: Callable[[], Iterable[InstanceProcess]]
    ):
        self._publisher = publisher
        self._source = source
        self._catalog = catalog
        self._sampled = sampled
        self._sessions = Sessions()
        self._before: dict[str, tuple[float, float]] = {}
        """By instance, when it was looked at last and the CPU seconds that it had used then."""
        self._failing = False

    async def run(self) -> None:
        """Sample at the end of each second, until cancelled."""
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS - time.time() % _SAMPLE_SECONDS)
            processes = list(self._sampled())
            if not processes and not self._before:
                continue
            try:
                async with asyncio.timeout(_SAMPLE_SECONDS):
                    sent = [await self._publisher.send(sample) for sample in self._samples(processes)]
                    await asyncio.gather(*sent)
                self._failing = False
            except Exception as error:
                # A second that could not be told is unknown, as the readers of samples expect; once is enough to log.
                if not self._failing:
                    log.warning("cannot tell samples: %r", error)
                self._failing = True

    def _samples(self, processes: Iterable[InstanceProcess]) -> list[ResourceSample]:
        """Samples of the second that just ended. An instance's first look only begins its account."""
        second = datetime.now(UTC) - timedelta(seconds=_SAMPLE_SECONDS / 2)
        samples, looked = [], dict[str, tuple[float, float]]()
        for process in processes:
            record = process.record
            kind = self._catalog.instance_types.get(record.spec.instance_type)
            if kind is None or (use := process.use(self._sessions)) is None:
                continue
            now, before = time.monotonic(), self._before.get(record.id)
            looked[record.id] = now, use.cpu_seconds
            if before is None or now <= before[0]:
                continue
            cpu = max(0.0, use.cpu_seconds - before[1]) / (now - before[0])
            samples.append(
                ResourceSample(
                    endpoint=record.place.endpoint,
                    deployment=record.place.deployment,
                    source=self._source,
                    at=second.replace(microsecond=0),
                    instance=record.id,
                    cpu_percent=100 * cpu / kind.vcpus,
                    memory_percent=100 * use.memory_bytes / (kind.memory_gib * 2**30),
                    disk_percent=_disk_percent(process.folder.path),
                )
            )
        self._before = looked
        return samples


def _disk_percent(folder: Path) -> float | None:
    """How full the disk is, as df(1) says it; None when the folder is gone."""
    try:
        disk = os.statvfs(folder)
    except OSError:
        return None
    used = disk.f_blocks - disk.f_bfree
    return 100 * used / max(1, used + disk.f_bavail)
