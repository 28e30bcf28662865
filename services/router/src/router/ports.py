"""A port that several processes listen on (SO_REUSEPORT), held by one that does not."""

import socket

_ANY = ("", "0.0.0.0", "::")  # noqa: S104 (compared with, not bound)


def reserve(host: str, port: int) -> list[socket.socket]:
    """Bind `port` on every address of `host`, without listening; `port` 0 takes a free one. As long as the sockets are
    open, the port is nobody else's, and this user's processes may listen there. Raises OSError where somebody else
    listens: an own process of another installation could, or half of the requests would go to it."""
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind((address[0], port, *address[2:]))
            port = bound.getsockname()[1]
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # not before: so far it was to be ours alone
    except OSError:
        for each in sockets:
            each.close()
        raise
    return sockets


def reachable(host: str) -> str:
    """Where a process of this machine finds what listens on `host`."""
    return "127.0.0.1" if host in _ANY else host
