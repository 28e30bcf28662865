"""Ports that are free now, for an Endpunkt that runs beside another one."""

import socket


def free_ports() -> dict[str, str]:
    """Settings that put router and studio on free ports, and tell the studio where scoring is."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    try:
        router, studio = (listener.getsockname()[1] for listener in sockets)
    finally:
        for listener in sockets:
            listener.close()
    return {
        "ENDPUNKT_ROUTER_PORT": str(router),
        "ENDPUNKT_STUDIO_PORT": str(studio),
        "ENDPUNKT_SCORING_URL": f"https://localhost:{router}",
    }
