"""What is done for running instances every second or few: their output is bounded, what they collected is fetched, and
where no kernel bounds their memory, those that use too much are ended."""

import asyncio
import logging
from collections.abc import Callable, Iterable

from provisioner.compute.process import InstanceProcess, ProcessCompute
from provisioner.compute.use import Sessions

log = logging.getLogger(__name__)

_SECONDS = 1.0
_FETCH_EVERY = 5


class Housekeeping:
    """Looks after `running()`, whose outputs keep `log_bytes` twice: the newest file and the one before."""

    def __init__(self, compute: ProcessCompute, running: Callable[[], Iterable[InstanceProcess]], log_bytes: int):
        self._compute = compute
        self._running = running
        self._log_bytes = log_bytes
        self._sessions = Sessions()

    async def run(self) -> None:
        """Until cancelled."""
        turn = 0
        while True:
            await asyncio.sleep(_SECONDS)
            turn += 1
            self.look()
            if turn % _FETCH_EVERY == 0:
                await self.fetch()

    def look(self) -> None:
        """Bound outputs, and memory where nothing else does."""
        for process in self._running():
            try:
                process.folder.trim(self._log_bytes)
            except OSError as error:  # a full disk
                log.warning("cannot bound the output of %s: %s", process.record.id, error)
            limit = process.record.memory_bytes
            if self._compute.isolation.bounds_memory or limit is None:
                continue
            use = process.use(self._sessions)
            if use is not None and use.memory_bytes > limit:
                log.warning("%s uses %d bytes, its type has %d: ending it", process.record.id, use.memory_bytes, limit)
                process.exhausted()

    async def fetch(self) -> None:
        """Fetch what has been collected."""
        for process in list(self._running()):
            if process.record.spec.data_collector is not None:
                try:
                    await asyncio.to_thread(self._compute.fetch_collected, process)
                except OSError as error:
                    log.warning("cannot fetch what %s collected: %s", process.record.id, error)
