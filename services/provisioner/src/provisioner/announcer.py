"""Tells the log how endpoints are: the newest document per endpoint, in its own time.

Instances must be healed while Kafka cannot be reached, so nobody waits for the log here: a document waits, a newer one
takes its place, and what could not be written is tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping

from contracts.log import Publisher
from contracts.messages import EndpointObserved

log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0


class Announcer:
    """`published` is what the log says at the start. `on_told(endpoint, document)` hears when it says something new."""

    def __init__(
        self,
        publisher: Publisher,
        published: Mapping[str, EndpointObserved],
        on_told: Callable[[str, EndpointObserved | None], None],
    ):
        self._publisher = publisher
        self._published: dict[str, EndpointObserved] = dict(published)
        self._waiting: dict[str, EndpointObserved | None] = {}
        self._on_told = on_told
        self._woken = asyncio.Event()

    def latest(self, endpoint: str) -> EndpointObserved | None:
        """What was last said of `endpoint`, or is about to be."""
        return self._waiting[endpoint] if endpoint in self._waiting else self._published.get(endpoint)

    def speaks_of(self, endpoint: str) -> bool:
        """Whether the log says something of `endpoint`, or is about to change what it says."""
        return endpoint in self._published or endpoint in self._waiting

    def endpoints(self) -> set[str]:
        """The endpoints of which the log says something."""
        return self._published.keys() | self._waiting.keys()

    def tell(self, endpoint: str, document: EndpointObserved | None) -> bool:
        """Have the log say `document` (None: nothing any more). True when it says so already."""
        if endpoint not in self._waiting and document == self._published.get(endpoint):
            return True
        # What waits may be on its way already, so the log is only known once it is written.
        self._waiting[endpoint] = document
        self._woken.set()
        return False

    async def run(self) -> None:
        """Write what waits, until cancelled."""
        while True:
            await self._woken.wait()
            self._woken.clear()
            while self._waiting:
                endpoint = next(iter(self._waiting))
                try:
                    await self._write(endpoint, self._waiting[endpoint])
                except Exception:
                    log.exception("cannot tell how '%s' is; trying again", endpoint)
                    await asyncio.sleep(_RETRY_SECONDS)

    async def _write(self, endpoint: str, document: EndpointObserved | None) -> None:
        if document is None:
            await self._publisher.delete(EndpointObserved.TOPIC, endpoint)
            self._published.pop(endpoint, None)
        else:
            await self._publisher.publish(document)
            self._published[endpoint] = document
        if self._waiting[endpoint] == document:
            del self._waiting[endpoint]
        self._on_told(endpoint, document)
