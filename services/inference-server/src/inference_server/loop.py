"""A small event loop that may change its thread: sockets, timers and calls from other threads.

asyncio's loops belong to one thread for life. This one is turned by whoever calls `turn()`, one thread at a time, so
the thread that reads a request can also run it, and another goes on reading if that takes long (`relay`). A turn
handles one ready socket; the others that were ready with it are kept for the turns after it, whoever's they are.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
GONE = select.EPOLLRDHUP  # the peer has sent all that it will ever send
BROKEN = select.EPOLLHUP | select.EPOLLERR
AT_ONCE = 16  # sockets that are asked for in one call: enough to make it cheap, few enough to be news
WOKEN = b"\0"  # no signal has the number 0


class Timer:
    """A call to come. `cancel()` it on the thread that turns the loop."""

    def __init__(self, call: Callable[[], None]):
        self.call = call

    def cancel(self) -> None:
        self.call = _nothing


def _nothing() -> None: ...


class Loop:
    def __init__(self) -> None:
        self._poll = select.epoll()
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._waits = False  # in poll(), so that whoever wants something must wake it
        self._ready: list[tuple[int, int]] = []  # sockets that are known to be ready: descriptor and events
        self._polled = True
        self._wakes, self.alarm = socket.socketpair()  # the alarm's descriptor is for signal.set_wakeup_fd
        for end in (self._wakes, self.alarm):
            end.setblocking(False)

    def close(self) -> None:
        """For a forked child, which turns a loop of its own. What this one watches is not touched."""
        self._poll.close()
        self._wakes.close()
        self.alarm.close()

    def watch(self, fd: int, events: int, handler: Callable[[int], None]) -> None:
        """Calls `handler(events)` while one of `events` (or BROKEN) is so."""
        self._handlers[fd] = handler
        self._poll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._poll.modify(fd, events)
        self._drop(fd)

    def forget(self, fd: int) -> None:
        """Before the descriptor is closed."""
        del self._handlers[fd]
        self._poll.unregister(fd)
        self._drop(fd)

    def _drop(self, fd: int) -> None:
        """What was seen of a descriptor holds no more: others are waited for now, or it is another socket's."""
        self._ready = [ready for ready in self._ready if ready[0] != fd]

    def later(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def soon(self, call: Callable[..., None], *arguments: Any) -> None:
        """Calls it in the next turn. Any thread may call this."""
        self._calls.append((call, arguments))
        if self._waits:
            self.wake()

    def wake(self) -> None:
        """Ends the turn that waits. Any thread may call this."""
        with contextlib.suppress(BlockingIOError):  # so many wakes are unread that one more is not missed
            self.alarm.send(WOKEN)

    def on_wake(self, handler: Callable[[bytes], None]) -> None:
        """Calls it with the numbers of the signals that have arrived, and zeros for calls of `wake()`."""
        self.watch(self._wakes.fileno(), READ, lambda _: handler(self._wakes.recv(4096)))

    def turn(self) -> None:
        """One call, one timer or one ready socket; waits until there is one, or for `wake()`."""
        if self._calls and self._polled:
            self._polled = False  # sockets are looked at between two calls
            call, arguments = self._calls.popleft()
            call(*arguments)
            return
        self._polled = True
        if self._ready:
            self._handle(*self._ready.pop())
            return
        timeout = None
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
            if not timeout:
                heapq.heappop(self._timers)[2].call()
                return
        self._waits = True
        if self._calls:  # looked at after `_waits` is set, so that no call goes unseen
            timeout = 0.0
        self._ready = self._poll.poll(timeout, AT_ONCE)
        self._waits = False
        if self._ready:
            self._handle(*self._ready.pop())

    def _handle(self, fd: int, events: int) -> None:
        handler = self._handlers.get(fd)
        if handler is not None:
            handler(events)
