"""Ports of this machine for servers of ours."""

import secrets
import socket

HOST = "127.0.0.1"
# Below Linux's range for outgoing connections (32768 to 60999). In that range a client that keeps knocking at the
# port of a stopped server is in the end given this very port as its own, connects to itself, and keeps it.
PORTS = range(20000, 30000)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of HOST now."""
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as Kafka does: TIME_WAIT is no hindrance
        try:
            candidate.bind((HOST, port))
        except OSError:
            return False
        return True


def free_port(besides: int = 0) -> int:
    """A free port out of PORTS, another one than `besides`."""
    while (port := secrets.choice(PORTS)) == besides or not is_free(port):
        continue
    return port
