"""Settings and wiring of the router: `python -m router`."""

import asyncio

import uvloop

from contracts.shell.service import serve
from router.app import Router
from router.settings import RouterSettings


def main() -> None:
    """Serve until told to stop."""
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    serve("router", RouterSettings, Router)


if __name__ == "__main__":
    main()
