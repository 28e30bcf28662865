"""The process's stdout and stderr: the script's prints come out line by line, the server's log beside them."""

from __future__ import annotations

import io
import logging
import sys
import time


def set_up(log_level: str) -> None:
    """The root logger is left to the script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Not written through, even with PYTHONUNBUFFERED: else print() writes a line and its end apart from each
            # other, and another process's line comes between.
            stream.reconfigure(line_buffering=True, write_through=False, errors="backslashreplace")
    formatter = logging.Formatter("%(asctime)s %(levelname).1s [%(process)d] %(name)s - %(message)s")
    formatter.converter = time.gmtime
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logger = logging.getLogger("inference_server")
    logger.addHandler(handler)
    logger.setLevel(log_level)
    logger.propagate = False
