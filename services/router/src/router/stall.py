"""A client that does not read makes an instance wait: how long it may, in all."""

import asyncio
from collections.abc import Callable


class Stall:
    """Counts the time between `begin` and `end`, over any number of pauses, and calls `too_long` when it passes
    `seconds`: a client that takes a little now and then gains nothing by it."""

    __slots__ = ("_began", "_left", "_loop", "_timer", "_too_long")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, too_long: Callable[[], None]):
        self._loop, self._left, self._too_long = loop, seconds, too_long
        self._began = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def lasts(self) -> bool:
        """Whether the client is being waited for."""
        return self._timer is not None

    def begin(self) -> None:
        """The client has fallen behind."""
        self._began = self._loop.time()
        self._timer = self._loop.call_later(max(0.0, self._left), self._too_long)

    def end(self) -> None:
        """The client has caught up, or the answer is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._left -= self._loop.time() - self._began
