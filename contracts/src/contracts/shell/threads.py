"""Blocking work in threads, for event loops whose tasks may be canceled at any time."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


async def in_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """`asyncio.to_thread` that is over only when the thread is: what is canceled writes nothing afterwards."""
    running = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        await ended(running)
    except asyncio.CancelledError:
        if error := running.exception():
            log.warning("%s failed for somebody who had gone: %r", getattr(function, "__name__", function), error)
        raise
    return running.result()


async def ended(*tasks: asyncio.Future[Any]) -> None:
    """Wait until all are over, through cancels too; a cancel is raised then."""
    canceled: asyncio.CancelledError | None = None
    while pending := [task for task in tasks if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            canceled = error
    if canceled is not None:
        raise canceled
