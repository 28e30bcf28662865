"""The routing table follows the log: what the documents of endpoints.desired and endpoints.observed say is routed.

The port opens as soon as the log's records are fetched. Decoding ten thousand endpoints takes ten times as long, and
the first requests are for a few of them: each is read when somebody asks for it, and the others between requests.
"""

import asyncio
import time

from contracts.envelope import Undecodable
from contracts.log import DeadLetters, Table
from contracts.messages import EndpointDesired, EndpointObserved, Message
from router.gateway import Gateway, LiveEndpoint
from router.memory import forget_the_start


class Following:
    """Feeds `gateway` from its `tables`. Once they have caught up: `begin`, then `finish`."""

    def __init__(self, gateway: Gateway):
        self._gateway = gateway
        self._desired = Table(EndpointDesired, self._note, deferred=True)
        self._observed = Table(EndpointObserved, self._note, deferred=True)
        self.tables = (self._desired, self._observed)
        self.read_at = 0.0
        """When a table last took records, in seconds since 1970."""
        self._changed: set[str] = set()
        self._waiting: dict[bytes, list[bytes | None]] = {}
        self._refused: list[Undecodable] = []

    @property
    def waiting(self) -> int:
        """How many endpoints were in the log at the start and are not read yet."""
        return len(self._waiting)

    def begin(self) -> None:
        """From now on whoever looks for an endpoint finds it, read or not."""
        for name in self._desired.kept.keys() | self._observed.kept.keys():
            self._waiting.setdefault((name or b"").lower(), []).append(name)
        self._gateway.table.find = self._find
        self.read_at = time.time()

    async def finish(self, dead_letters: DeadLetters) -> None:
        """Read the others, one at a time between two requests. Raises TooManyDeadLetters as any reader does."""
        try:
            while self._waiting:
                self._settle(next(iter(self._waiting)))
                dead_letters.read()
                await asyncio.sleep(0)
            self._gateway.table.find = self._gateway.table.entries.get
        finally:
            forget_the_start()
        while self._refused:  # not before: Kafka may keep this waiting
            await dead_letters.park(self._refused.pop())

    async def update(self) -> None:
        """Take what a batch of records changed into the routing table."""
        self.read_at = time.time()
        self._take()

    def _note(self, endpoint: str, _: Message | None) -> None:
        self._changed.add(endpoint)

    def _take(self) -> None:
        """Each endpoint once and as a whole, with those whose names differ from its by case only."""
        gateway = self._gateway
        while self._changed:
            name = self._changed.pop()
            if self._waiting:
                self._read(name.lower().encode())
                self._changed.discard(name)
            desired = self._desired.entries.get(name)
            gateway.changed(gateway.table.apply(name, desired, self._observed.entries, gateway.loop.time()))

    def _find(self, name: bytes) -> LiveEndpoint | None:
        if name in self._waiting:
            self._settle(name)
        return self._gateway.table.entries.get(name)

    def _settle(self, name: bytes) -> None:
        self._read(name)
        self._take()

    def _read(self, name: bytes) -> None:
        for each in self._waiting.pop(name, ()):
            self._refused += self._desired.settle(each) + self._observed.settle(each)
