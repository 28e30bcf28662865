"""A closed-loop load of HTTP requests: as many connections as asked for, each with one request under way.

Written to cost little beside the server it measures: one thread, raw sockets, one epoll, the request's bytes made once.
It never sleeps: waking it, which costs a virtual machine dearly, would be on the account of whichever server sends.
"""

import select
import socket
import time


class LoadError(Exception):
    """The server answered with something other than 200, or not at all."""


def request(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def load(port: int, data: bytes, seconds: float, connections: int) -> tuple[int, float]:
    """Whole responses taken and the seconds they took. A server that closes after a response is connected to anew.

    Raises LoadError.
    """
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}
    partial: dict[int, bytes] = {}

    def connect() -> None:
        client = socket.create_connection(("127.0.0.1", port), 10)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients[client.fileno()] = client
        poll.register(client, select.EPOLLIN)
        client.sendall(data)

    for _ in range(connections):
        connect()
    done = 0
    began = now = time.monotonic()
    try:
        while now < began + seconds:
            for number, _ in poll.poll(0):
                client = clients[number]
                part = client.recv(65536)
                if not part and number not in partial:
                    raise LoadError("the server closed a connection before it answered")
                response = partial.pop(number, b"") + part
                size = _size(response)
                if size is None or len(response) < size:
                    partial[number] = response
                    continue
                if not response.startswith(b"HTTP/1.1 200 "):
                    raise LoadError(response.decode("latin-1"))
                done += 1
                if b"onnection: close" in response:
                    poll.unregister(client)
                    del clients[number]
                    client.close()
                    connect()
                else:
                    client.sendall(data)
            now = time.monotonic()
    finally:
        for client in clients.values():
            client.close()
        poll.close()
    return done, now - began


def _size(response: bytes) -> int | None:
    """The bytes of head and body together, once the head is whole."""
    end = response.find(b"\r\n\r\n")
    if end < 0:
        return None
    start = response.lower().find(b"content-length:", 0, end)
    if start < 0:
        raise LoadError("a response without Content-Length:\n" + response.decode("latin-1"))
    return end + 4 + int(response[start + 15 : response.index(b"\r\n", start)])
