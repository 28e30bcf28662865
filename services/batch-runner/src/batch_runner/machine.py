"""What jobs of one process share: room for workers, and the way out to the bus."""

import asyncio
import logging

from batch_runner.room import Waiting, admitted
from contracts.log import Publisher
from contracts.messages import Message

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0
_MOST_IN_FLIGHT = 500


class Machine:
    """Room for `limit` workers; see `room` for who gets it."""

    def __init__(self, limit: int):
        self.limit = limit
        self._inside: dict[str, int] = {}
        self._doors: dict[Waiting, asyncio.Future[None]] = {}

    @property
    def used(self) -> int:
        """Workers that there is room taken for."""
        return sum(self._inside.values())

    async def enter(self, one: Waiting) -> None:
        """Wait until the job may start its workers; at once when it already may."""
        if one.job in self._inside:
            return
        door = self._doors[one] = asyncio.get_running_loop().create_future()
        self._admit()
        try:
            await door
        except asyncio.CancelledError:
            self._doors.pop(one, None)
            self.leave(one.job)
            raise

    def leave(self, job: str) -> None:
        """The job's workers are gone."""
        self._inside.pop(job, None)
        self._admit()

    def _admit(self) -> None:
        for one in admitted(self._doors, self.used, self.limit):
            self._inside[one.job] = one.workers
            door = self._doors.pop(one)
            if not door.done():
                door.set_result(None)


class Outbox:
    """Publishes in order and keeps what cannot be sent yet, so that no job waits for Kafka to tell of its progress."""

    def __init__(self, publisher: Publisher):
        self._publisher = publisher
        self._waiting: list[tuple[str, Message]] = []
        self._filled = asyncio.Event()

    def put(self, id: str, message: Message) -> None:
        """Publish soon, at least once, always with this id."""
        self._waiting.append((id, message))
        self._filled.set()

    async def run(self) -> None:
        """Publish until canceled."""
        while True:
            await self._filled.wait()
            self._filled.clear()
            await self.flush()

    async def flush(self) -> None:
        """Return when everything that was put is durable."""
        while batch := self._waiting[:_MOST_IN_FLIGHT]:
            try:
                sent = [await self._publisher.send(message, id=id) for id, message in batch]
                await asyncio.gather(*sent)
            except Exception as error:
                log.warning("%d messages wait for Kafka: %r", len(self._waiting), error)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                del self._waiting[: len(batch)]
