"""Requests that stay with one deployment: chosen by a value that they carry, in the proportions of the split.

PURE: bytes in, a choice out. No clock, no randomness and no I/O may enter this module.
Source: weighted rendezvous hashing (Schindelhauer and Schomaker, "Weighted distributed hash tables", 2005). When a
split changes, only as many values move as it takes; a value whose deployment has lost its traffic moves for good.
"""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from math import log

_BITS = 52  # so that a float holds every one of the fractions, and none is rounded up to 1


def choice(value: bytes, traffic: Mapping[str, int]) -> str | None:
    """The deployment of `value`; None when none has a positive weight."""
    return max(
        (name for name, weight in traffic.items() if weight > 0),
        key=lambda name: traffic[name] / -log(_fraction(value, name)),
        default=None,
    )


def _fraction(value: bytes, name: str) -> float:
    """A number between 0 and 1, both excluded, that is always the same for the two."""
    digest = blake2b(value, digest_size=8, key=name.encode()).digest()
    return ((int.from_bytes(digest) >> (64 - _BITS)) + 0.5) / (1 << _BITS)


def values_of(lines: Sequence[bytes], name: bytes) -> list[bytes]:
    """The values of all headers that are called `name` (lower case) among the pieces of `RequestHead.lines`."""
    return [lines[at + 2] for at in range(0, len(lines), 4) if lines[at].lower() == name]


def cookie(headers: Iterable[bytes], name: bytes) -> bytes:
    """The first value of a cookie in Cookie headers (RFC 6265, 5.4; a proxy that speaks HTTP/2 may cut one into
    several); empty when there is none."""
    for pair in b";".join(headers).split(b";"):
        each, _, value = pair.partition(b"=")
        if each.strip() == name:
            return value.strip()
    return b""
