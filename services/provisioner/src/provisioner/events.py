"""Tells people what happens to instances: Azure's event log of a deployment.

Nobody waits for it: an event is handed over and written when the log takes it. While Kafka cannot be reached the
newest few hundred wait, and older ones are lost, as is what waits when this process ends: they are a service to whoever
watches, and nothing is decided by them.
"""

import asyncio
import logging
from collections import deque
from datetime import UTC, datetime
from typing import Protocol

from contracts.log import Offset
from contracts.messages import DeploymentEvent, Message
from contracts.messages.endpoints import EventReason

log = logging.getLogger(__name__)

_MOST_WAITING = 500
_LONGEST_MESSAGE = 4000
_RETRY_SECONDS = 1.0


class Writer(Protocol):
    """Writes to the log; `contracts.log.Publisher` is one."""

    async def publish(self, message: Message, *, id: str | None = None) -> Offset:
        """Write `message`."""


class Events:
    """The events that wait to be written."""

    def __init__(self, writer: Writer):
        self._writer = writer
        self._waiting: deque[DeploymentEvent] = deque(maxlen=_MOST_WAITING)
        self._woken = asyncio.Event()

    def tell(
        self, endpoint: str, deployment: str, reason: EventReason, message: str, instance: str | None = None
    ) -> None:
        """Something happened now; `instance` None: to what all instances share."""
        event = DeploymentEvent(
            endpoint=endpoint,
            deployment=deployment,
            instance=instance,
            at=datetime.now(UTC),
            reason=reason,
            message=message[:_LONGEST_MESSAGE],
        )
        self._waiting.append(event)
        self._woken.set()

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        failing = False
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                event = self._waiting.popleft()
                try:
                    await self._writer.publish(event)
                    failing = False
                except Exception as error:
                    # Once is enough to log; the one that failed makes room for newer ones.
                    if not failing:
                        log.warning("cannot tell events, which are lost meanwhile: %r", error)
                    failing = True
                    await asyncio.sleep(_RETRY_SECONDS)
