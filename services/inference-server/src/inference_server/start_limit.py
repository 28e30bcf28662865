"""WORKER_TIMEOUT for the start of a process that no other one watches (`processes` watches its workers)."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import threading
from collections.abc import Callable, Iterator

from inference_server.script import EXIT_CODE

log = logging.getLogger(__name__)


@contextlib.contextmanager
def limited(seconds: float, failed: Callable[[str, str], None]) -> Iterator[None]:
    """Ends the process when what is within takes longer: user code that hangs cannot be called back."""

    def give_up() -> None:
        message = (
            f"Importing the script, init() and the warm-up took longer than {seconds:g} s (WORKER_TIMEOUT). "
            "The log shows where it was. Make init() faster, or set WORKER_TIMEOUT to more seconds."
        )
        faulthandler.dump_traceback()
        log.critical(message)
        failed("UserScriptInitFailed", message)
        os._exit(EXIT_CODE)

    timer = threading.Timer(min(seconds, threading.TIMEOUT_MAX), give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
