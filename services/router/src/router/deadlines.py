"""Many deadlines of one length for the price of one timer.

Items of equal duration come due in the order in which they were added, so a dictionary is the queue and one timer of
the loop watches its oldest item. Adding and removing cost one dictionary operation; an idle queue has no timer.
"""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_RESOLUTION = 0.001
"""The loop counts in whole milliseconds: an item that is due within one is due, or its timer would spin until then."""


class Deadlines(Generic[T]):
    """Calls `expired(item)` when an item was neither removed nor added again for `seconds`."""

    __slots__ = ("_due", "_expired", "_loop", "_seconds", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[T], None]):
        self._loop, self._seconds, self._expired = loop, seconds, expired
        self._due: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._due)

    def add(self, item: T, now: float) -> None:
        """Begin to wait for `item`; it must not be waited for already."""
        self._due[item] = now + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_later(self._seconds, self._fire)

    def remove(self, item: T) -> None:
        """Stop waiting for `item`."""
        self._due.pop(item, None)

    def again(self, item: T, now: float) -> None:
        """Give `item` the whole duration anew."""
        self._due.pop(item, None)
        self.add(item, now)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        try:
            while self._due:
                item, due = next(iter(self._due.items()))
                if due - now > _RESOLUTION:
                    return
                del self._due[item]
                self._expired(item)
        finally:  # also when `expired` raises: the others come due all the same
            if self._due and self._timer is None:
                self._timer = self._loop.call_later(next(iter(self._due.values())) - now, self._fire)
