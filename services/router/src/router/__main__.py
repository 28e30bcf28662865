"""Settings and wiring of the router: `python -m router`."""

import asyncio
import os
import signal
import threading

from contracts.log.settings import KafkaSettings
from contracts.shell.service import App, serve
from router.settings import WORKER, RouterSettings


def main() -> None:
    """Serve until told to stop: as one process, as the one that looks after several, or as one of these."""
    number = os.environ.get(WORKER)
    if number is None:
        serve("router", RouterSettings, _router_or_workers)
    else:
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
        serve(f"router-{number}", RouterSettings, _router)


def _router_or_workers(settings: RouterSettings, kafka: KafkaSettings) -> App:
    if settings.processes == 1:
        return _router(settings, kafka)
    from router.workers import Workers

    return Workers(settings, kafka)


def _router(settings: RouterSettings, kafka: KafkaSettings) -> App:
    # Imported here: who looks after others needs none of it.
    import uvloop

    from router.app import Router

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    return Router(settings, kafka)


def _end_with_the_starter() -> None:
    """Whoever started this process holds the other end of its input: it ends when that one does, even by SIGKILL."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
