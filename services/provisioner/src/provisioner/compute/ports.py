"""Ports of instances: never one that the machine hands out for outgoing connections, which another program could hold
for a moment and which an address in the log would then name."""

import errno
import secrets
import socket
from collections import deque

FIRST, LAST = 20_000, 29_999
_RECENT = 1000


class Ports:
    """Binds free ports; one that was in use recently is not taken again soon, so a router that still knows its former
    instance does not reach another one."""

    def __init__(self, first: int = FIRST, last: int = LAST):
        self._first, self._count = first, last - first + 1
        self._recent: deque[int] = deque(maxlen=min(_RECENT, self._count // 2))

    def remember(self, port: int) -> None:
        """It is in use."""
        self._recent.append(port)

    def bind(self, host: str) -> socket.socket:
        """A bound socket. Raises OSError when none is free."""
        offset = secrets.randbelow(self._count)
        for step in range(self._count):
            port = self._first + (offset + step) % self._count
            if port in self._recent:
                continue
            bound = socket.socket()
            try:
                bound.bind((host, port))
            except OSError as error:
                bound.close()
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
                continue
            self._recent.append(port)
            return bound
        raise OSError(errno.EADDRINUSE, f"no port from {self._first} to {self._first + self._count - 1} is free")
