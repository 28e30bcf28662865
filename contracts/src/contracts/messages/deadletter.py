"""What a service could not read, parked with its origin and the reason.

PURE, see `base`.
"""

from typing import ClassVar

from contracts.messages.base import Message, Timestamp


class DeadLetter(Message):
    """A parked record. `value_base64` is as it came, cut to 64 KiB; the key and the headers are text, cut to 1024
    characters each and to 32 headers."""

    TOPIC: ClassVar[str] = "deadletter.*"

    service: str
    topic: str
    partition: int
    offset: int
    record_key: str | None
    headers: dict[str, str]
    value_base64: str
    reason: str
    parked_at: Timestamp

    def key(self) -> str:
        return f"{self.topic}-{self.partition}-{self.offset}"
