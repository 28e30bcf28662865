"""How consumers wait for what is new, without asking all the time and without missing the moment."""

from typing import Any

FETCH_WAIT_MS = 1000
"""The broker answers a fetch as soon as there is a record; an idle consumer asks this often."""


def fetch_together(consumer: Any) -> None:
    """Have a started aiokafka consumer fetch its partitions together.

    It has one fetch under way at a time. A partition whose last records its owner has not taken within 0.1 s is left
    out of the next one, and then hears of nothing new until the broker has answered for the others: FETCH_WAIT_MS later
    when they are silent. So long it now waits for its owner instead; what it waits is no setting of aiokafka's.
    """
    consumer._fetcher._prefetch_backoff = FETCH_WAIT_MS / 1000
