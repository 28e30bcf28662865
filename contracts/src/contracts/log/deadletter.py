"""Parking what cannot be read, with its origin and reason, at a bounded rate.

A few bad records are somebody's mistake and must not stop the service. When most of what arrives is bad, the reader
itself is probably broken (a bad release), and parking everything would hide it: then the service stops.
"""

import base64
import itertools
import logging
import time
from datetime import UTC, datetime

from contracts.envelope import Record, Undecodable
from contracts.log.publisher import Publisher
from contracts.messages import DeadLetter
from contracts.topics import dead_letter_topic

log = logging.getLogger(__name__)

# A parked record must itself fit into a record (1 MiB), whatever it is made of.
_LARGEST_VALUE = 65_536
_LONGEST_TEXT = 1024
_MOST_HEADERS = 32


class TooManyDeadLetters(RuntimeError):
    """More records were bad than a few mistakes explain."""


class ParkingLimit:
    """At least `least` records parked within `window` seconds, and more than `share` of all that were read: too many.

    Pure: `now` is any monotonic clock in seconds. Windows do not slide: counts begin anew when one is over.
    """

    def __init__(self, least: int = 100, share: float = 0.5, window: float = 60.0):
        self._least, self._share, self._window = least, share, window
        self._began = float("-inf")
        self._read = self._parked = 0

    def count(self, now: float, *, parked: bool) -> bool:
        """Note one record; False when the limit is passed."""
        if now - self._began > self._window:
            self._began, self._read, self._parked = now, 0, 0
        self._read += 1
        self._parked += parked
        return self._parked < self._least or self._parked <= self._share * self._read


def dead_letter(service: str, record: Record, reason: str, at: datetime) -> DeadLetter:
    """The message that parks `record`."""
    return DeadLetter(
        service=service,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        record_key=None if record.key is None else record.key[:_LONGEST_TEXT],
        headers={
            name[:_LONGEST_TEXT]: value[:_LONGEST_TEXT]
            for name, value in itertools.islice(record.headers.items(), _MOST_HEADERS)
        },
        value_base64=base64.b64encode((record.value or b"")[:_LARGEST_VALUE]).decode(),
        reason=reason,
        parked_at=at,
    )


class DeadLetters:
    """The dead-letter topic of one service."""

    def __init__(self, publisher: Publisher, service: str, limit: ParkingLimit | None = None):
        self.topic = dead_letter_topic(service)
        self._publisher = publisher
        self._service = service
        self._limit = limit or ParkingLimit()

    def read(self) -> None:
        """Note that a record was good."""
        self._limit.count(time.monotonic(), parked=False)

    async def park(self, error: Undecodable) -> None:
        """Park the record and log where it went. Raises TooManyDeadLetters, once it is parked, past the limit."""
        letter = self.letter(error)
        await self._publisher.publish(letter, id=letter.key(), topic=self.topic)
        self.check(error)

    def letter(self, error: Undecodable) -> DeadLetter:
        """The message that parks the record, for a caller with a transaction of its own."""
        return dead_letter(self._service, error.record, str(error), datetime.now(UTC))

    def check(self, error: Undecodable) -> None:
        """Count a parked record against the limit."""
        log.warning("parked on %s: %s", self.topic, error)
        if not self._limit.count(time.monotonic(), parked=True):
            raise TooManyDeadLetters(
                f"{self._service} could not read most of the last minute's records, the last {error.record.origin}: "
                f"it stops instead of parking everything. Look at {self.topic}; "
                "if the records are good, this release reads them wrongly: roll it back."
            )
