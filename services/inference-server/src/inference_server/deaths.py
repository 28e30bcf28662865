"""When a worker process that died is replaced, and when the instance had better end.

Pure: the time is an argument. A worker that a request brings down now and then is replaced at once. Where replacements
die too, each waits twice as long as the one before, and in the end whoever started the instance is to judge it: out of
memory, say, is told to nobody as long as the workers are quietly started again.
"""

from __future__ import annotations

from collections import deque

WINDOW_SECONDS = 300.0  # deaths are forgotten after it
MOST_EACH = 3  # for each worker within the window; one more ends the instance
FIRST_WAIT_SECONDS = 1.0


class Deaths:
    """Of the worker processes of one instance, which has `count` of them."""

    def __init__(self, count: int):
        self._count = count
        self._recent: deque[float] = deque()

    def wait_after(self, now: float) -> float | None:
        """A worker died `now`: the seconds until another one is started; None for no other one."""
        self._recent.append(now)
        while self._recent[0] <= now - WINDOW_SECONDS:
            self._recent.popleft()
        replaced = len(self._recent) - self._count  # how many of the dead were replacements, at least
        if len(self._recent) > MOST_EACH * self._count:
            return None
        return 0.0 if replaced <= 0 else FIRST_WAIT_SECONDS * 2 ** min(replaced - 1, 4)
