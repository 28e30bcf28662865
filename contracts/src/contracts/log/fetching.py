"""How consumers wait for what is new, without asking all the time and without missing the moment."""

from collections.abc import Collection
from typing import Any

from aiokafka import TopicPartition

FETCH_WAIT_MS = 1000
"""The broker answers a fetch as soon as there is a record; an idle consumer asks this often."""


def fetch_together(consumer: Any) -> None:
    """Have a started aiokafka consumer fetch its partitions together.

    It has one fetch under way at a time. A partition whose last records its owner has not taken within 0.1 s is left
    out of the next one, and then hears of nothing new until the broker has answered for the others: FETCH_WAIT_MS later
    when they are silent. So long it now waits for its owner instead; what it waits is no setting of aiokafka's.
    """
    consumer._fetcher._prefetch_backoff = FETCH_WAIT_MS / 1000


def assign_paused(consumer: Any, partitions: Collection[TopicPartition]) -> None:
    """Give a started aiokafka consumer its partitions, none of which it fetches yet: seek, then resume them.

    Asked for the offsets of a topic that it does not know, it asks again 0.1 s later, for each topic anew; asked while
    it fetches, its answer waits as long as the broker holds the fetch.
    """
    consumer.assign(list(partitions))
    for partition in partitions:
        consumer.seek(partition, 0)  # without a place it would look for one
    consumer.pause(*partitions)
