"""The last seconds of one deployment's samples.

PURE: samples in, numbers out. No clock (`now` is an argument), no I/O, no Kafka.

A second is told by several sources (the routers) or instances, once each; telling it again replaces it, so a replay
changes nothing. What nobody told is unknown, which is not zero. Memory is bounded: each source or instance has one ring
of `seconds` slots, and a ring that nothing came to for that long is let go.
"""

from array import array
from collections.abc import Iterator
from datetime import datetime

from contracts.messages import LoadSample, ResourceSample

SETTLE_SECONDS = 1
"""A second is used once so many more have passed after its end: samples of several sources arrive one after another."""

WAITED_SECONDS = 5
"""A request that waits is told every second: one that was told longer ago has been answered or given up."""

_NEVER = -1


class Ring:
    """Two numbers for each of the last seconds, in slots that are used over and over."""

    __slots__ = ("_first", "_second", "_tags", "newest")

    def __init__(self, seconds: int):
        self._tags = array("q", [_NEVER]) * seconds
        self._first = array("d", [0.0]) * seconds
        self._second = array("d", [0.0]) * seconds
        self.newest = _NEVER

    def put(self, second: int, first: float, second_number: float) -> None:
        """Tell of a second, unless its slot holds a newer one."""
        slot = second % len(self._tags)
        if second >= self._tags[slot]:
            self._tags[slot] = second
            self._first[slot] = first
            self._second[slot] = second_number
            self.newest = max(self.newest, second)

    def items(self) -> Iterator[tuple[int, float, float]]:
        """Every second that is held, with its numbers, in no order."""
        for slot, second in enumerate(self._tags):
            if second != _NEVER:
                yield second, self._first[slot], self._second[slot]

    def between(self, start: int, end: int) -> Iterator[tuple[int, float, float]]:
        """The seconds in [start, end) that were told, oldest first, with their numbers."""
        size = len(self._tags)
        for second in range(max(start, end - size), end):
            slot = second % size
            if self._tags[slot] == second:
                yield second, self._first[slot], self._second[slot]


class Window:
    """One deployment's samples. It has watched since `since`: only after that is silence known to be silence."""

    def __init__(self, seconds: int, since: datetime):
        self.seconds = seconds
        self.since = since
        self.load: dict[str, Ring] = {}
        """Requests and milliseconds of latency in each second, by source."""
        self.resources: dict[str, Ring] = {}
        """Percent of processor and of memory in each second, by instance."""
        self.disks: dict[str, Ring] = {}
        """Percent of disk in each second (the second number is unused), by instance that tells it."""
        self.asked = _NEVER
        """The last second at whose end a request ran or waited."""

    def add(self, sample: LoadSample | ResourceSample) -> None:
        """Take a sample; one of a second that it holds already replaces it."""
        second = int(sample.at.timestamp())
        if isinstance(sample, LoadSample):
            self._ring(self.load, sample.source).put(second, sample.requests, sample.latency_ms_sum)
            if sample.in_flight:
                self.asked = max(self.asked, second)
        else:
            self._ring(self.resources, sample.instance).put(second, sample.cpu_percent, sample.memory_percent)
            if sample.disk_percent is not None:
                self._ring(self.disks, sample.instance).put(second, sample.disk_percent, 0.0)

    def _ring(self, rings: dict[str, Ring], name: str) -> Ring:
        ring = rings.get(name)
        if ring is None:
            ring = rings[name] = Ring(self.seconds)
        return ring

    def end(self, now: datetime) -> int:
        """The first second that is not used yet."""
        return int(now.timestamp()) - SETTLE_SECONDS

    def waiting(self, now: datetime) -> bool:
        """Whether a request waited in the last seconds. They need not settle: one router's word is enough."""
        return self.asked > int(now.timestamp()) - WAITED_SECONDS

    def forget(self, now: datetime) -> None:
        """Let go of the sources and instances that are gone."""
        oldest = int(now.timestamp()) - self.seconds
        for rings in (self.load, self.resources, self.disks):
            for name in [name for name, ring in rings.items() if ring.newest < oldest]:
                del rings[name]

    def resized(self, seconds: int) -> "Window":
        """The same samples in a window of another length."""
        window = Window(seconds, self.since)
        window.asked = self.asked
        pairs = (self.load, window.load), (self.resources, window.resources), (self.disks, window.disks)
        for rings, copies in pairs:
            for name, ring in rings.items():
                copies[name] = Ring(seconds)
                for second, first, second_number in sorted(ring.items()):
                    copies[name].put(second, first, second_number)
        return window
