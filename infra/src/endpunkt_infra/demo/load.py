"""Load at a steady rate: requests start on time whether or not earlier ones have been answered."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

Send = Callable[[int], Coroutine[Any, Any, None]]
"""Sends the request of that number."""


async def steady_load(send: Send, per_second: float, stop: asyncio.Event) -> None:
    """Call `send(0)`, `send(1)`, … at `per_second` until `stop` is set, then wait for all of them."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    sent = 0
    async with asyncio.TaskGroup() as requests:
        while not stop.is_set():
            requests.create_task(send(sent))
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / per_second - loop.time()))


async def closed_load(send: Send, total: int, workers: int) -> None:
    """Call `send(0)` … `send(total - 1)`, `workers` at a time."""
    numbers = iter(range(total))

    async def work() -> None:
        for number in numbers:
            await send(number)

    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
