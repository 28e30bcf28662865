"""`python load.py PORT plain|tls CONNECTIONS SECONDS [RATE [BODY_BYTES [ANSWER_BYTES]]]`: requests to one endpoint.

It says READY when all connections are open, begins when it reads a line, and prints one line of JSON: `done` requests
in `seconds`, microseconds of latency (`p50`, `p99`), `bad` answers. Without RATE (0) it is a closed loop: a connection
asks again when it has its answer. With RATE requests are due at even times, whoever is busy, and a latency counts from
when its request was due. SECONDS 0: the connections stay idle, until another line.
"""

import asyncio
import json
import ssl
import sys
import time
from collections import deque
from typing import cast

import uvloop

HOST = "diabetes.local.inference.localhost"
BODY = json.dumps({"instances": [[0.038, 0.051, 0.062, 0.022, -0.044, -0.035, -0.043, -0.003, 0.02, -0.018]] * 2})


class Loader:
    """All connections of one run."""

    def __init__(self, rate: float, body: bytes, answer_bytes: int):
        wanted = f"x-answer-bytes: {answer_bytes}\r\n" if answer_bytes else ""
        head = (
            f"POST /score HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer the-primary-key\r\n{wanted}"
            f"Content-Type: application/json\r\nUser-Agent: load\r\nAccept: */*\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.request = head.encode() + body
        self.answer_bytes = answer_bytes or 3
        self.rate = rate
        self.idle: list[Client] = []
        self.due: deque[float] = deque()
        self.latencies: list[float] = []
        self.done = self.bad = 0
        self.stopped = False

    def ended(self, client: "Client", good: bool) -> None:
        """An answer is complete."""
        self.done += 1
        self.bad += not good
        self.latencies.append(time.perf_counter() - client.since)
        if self.stopped:
            return
        if not self.rate:
            client.ask(time.perf_counter())
        elif self.due:
            client.ask(self.due.popleft())
        else:
            self.idle.append(client)

    async def offer(self, until: float) -> None:
        """Make requests due at even times."""
        next_due = time.perf_counter()
        while next_due < until:
            now = time.perf_counter()
            while next_due <= now:
                if self.idle:
                    self.idle.pop().ask(next_due)
                else:
                    self.due.append(next_due)
                next_due += 1 / self.rate
            await asyncio.sleep(0)  # it spins: a sleeping load would wake its peers late


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, loader: Loader):
        self._loader = loader
        self.since = 0.0
        self._head = b""
        self._left = -1  # bytes of the answer's body; -1: its head is not complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def ask(self, since: float) -> None:
        """Send a request that was due at `since`."""
        self.since = since
        self._transport.write(self._loader.request)

    def data_received(self, data: bytes) -> None:
        if self._left < 0:
            self._head += data
            _, found, body = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            self._left = self._loader.answer_bytes - len(body)
        else:
            self._left -= len(data)
        if self._left <= 0:
            good = self._left == 0 and self._head.startswith(b"HTTP/1.1 200 ")
            self._head, self._left = b"", -1
            self._loader.ended(self, good)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._loader.stopped:
            sys.exit(f"the connection was closed by its peer: {exc}; {self._head[:200]!r}")


async def line() -> None:
    """Wait for a line of the standard input."""
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)


async def main(port: str, scheme: str, connections: str, seconds: str, *more: str) -> None:
    """One run."""
    rate, body_bytes, answer_bytes = (*map(float, more), 0.0, 0.0, 0.0)[:3]
    body = bytes(int(body_bytes)) if body_bytes else BODY.encode()
    loader = Loader(rate, body, int(answer_bytes))
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if scheme == "tls" else None
    if trust is not None:  # both ends are this benchmark's
        trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    clients: list[Client] = []
    for _ in range(int(connections)):
        _, client = await asyncio.get_running_loop().create_connection(
            lambda: Client(loader), "127.0.0.1", int(port), ssl=trust, server_hostname=HOST if trust else None
        )
        clients.append(client)
    print("READY", flush=True)
    await line()
    began = time.perf_counter()
    until = began + float(seconds)
    if not float(seconds):
        await line()
    elif rate:
        loader.idle += clients
        await loader.offer(until)
    else:
        for client in clients:
            client.ask(time.perf_counter())
        await asyncio.sleep(float(seconds))
    loader.stopped = True
    done, took = loader.done, time.perf_counter() - began
    ordered = sorted(loader.latencies) or [0.0]
    told = {
        "done": done,
        "seconds": took,
        "p50": ordered[len(ordered) // 2] * 1e6,
        "p99": ordered[int(len(ordered) * 0.99)] * 1e6,
        "bad": loader.bad,
    }
    print(json.dumps(told), flush=True)


uvloop.install()
asyncio.run(main(*sys.argv[1:]))
