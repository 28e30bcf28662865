"""One question to a broker, "who are you?", in Kafka's own protocol: ready means answered, not merely listening.

A Metadata request (key 3, version 2) for no topics. Its answer holds the brokers that are in service and the
cluster's id, which tells our broker from a stranger on the same port. Written by hand because it is asked every
few hundredths of a second of a broker that is not there yet, and because clients of Kafka live in contracts.log.
https://kafka.apache.org/protocol#The_Messages_Metadata
"""

import socket
import struct
from dataclasses import dataclass

_CLIENT = b"endpunkt"
_REQUEST = struct.pack(">hhih", 3, 2, 1, len(_CLIENT)) + _CLIENT + struct.pack(">i", 0)
_LARGEST = 1 << 20  # bytes; a stranger's greeting, read as a length, is far more


@dataclass(frozen=True, slots=True)
class Answer:
    """What a broker says of its cluster."""

    cluster_id: str | None
    brokers: int


def ask(host: str, port: int, timeout: float = 1.0) -> Answer | None:
    """The broker's answer within `timeout` seconds, or None when nothing there speaks Kafka (yet)."""
    try:
        with socket.create_connection((host, port), timeout) as connection:
            connection.sendall(struct.pack(">i", len(_REQUEST)) + _REQUEST)
            with connection.makefile("rb") as stream:
                (size,) = struct.unpack(">i", stream.read(4))
                return parse(stream.read(size)) if 0 < size < _LARGEST else None
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def parse(body: bytes) -> Answer:
    """Read a Metadata response of version 2 as far as the cluster id. Raises struct.error when it is cut short."""
    offset = 4  # the correlation id

    def integer(code: str) -> int:
        nonlocal offset
        (value,) = struct.unpack_from(">" + code, body, offset)
        offset += struct.calcsize(code)
        return int(value)

    def text() -> str | None:
        nonlocal offset
        length = integer("h")
        if length < 0:
            return None
        (value,) = struct.unpack_from(f">{length}s", body, offset)
        offset += length
        return str(value, "utf-8")

    brokers = integer("i")
    for _ in range(brokers):
        integer("i"), text(), integer("i"), text()  # id, host, port, rack
    return Answer(text(), brokers)
