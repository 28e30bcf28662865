"""`python backend.py PORT…`: instances that answer every request at once, with an answer of SIZE bytes.

`x-answer-bytes` in the request asks for another size. One process serves all ports, on the core of the load.
"""

import asyncio
import re
import sys
from typing import cast

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_WANTED = re.compile(rb"\r\nx-answer-bytes: *(\d+)", re.IGNORECASE)
_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-ms-run-fn-exec-ms: 0.512\r\n"
    b"x-ms-server-version: bench\r\ncontent-length: %d\r\n\r\n"
)
_SMALL = _HEAD % 3 + b"[1]"


class Instance(asyncio.Protocol):
    """One connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._buffer = b""
        self._wanted = 0  # bytes of the body that are still to come
        self._answer = b""

    def data_received(self, data: bytes) -> None:
        while data:
            if self._wanted:
                taken = min(self._wanted, len(data))
                self._wanted -= taken
                data = data[taken:]
            else:
                self._buffer += data
                head, found, data = self._buffer.partition(b"\r\n\r\n")
                if not found:
                    return
                self._buffer = b""
                length, size = _LENGTH.search(head), _WANTED.search(head)
                self._wanted = int(length[1]) if length else 0
                self._answer = _HEAD % int(size[1]) + bytes(int(size[1])) if size else _SMALL
            if not self._wanted:
                self._transport.write(self._answer)


async def main() -> None:
    """Serve until killed."""
    for port in sys.argv[1:]:
        await asyncio.get_running_loop().create_server(Instance, "127.0.0.1", int(port), backlog=4096)
    await asyncio.Event().wait()


uvloop.install()
asyncio.run(main())
