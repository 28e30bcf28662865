"""Fresh request ids: GUIDs in the form of version 4 (RFC 9562).

They must differ from every other, not be hard to guess: 62 random bits are shared by a run of ids that count up from a
random number, which costs a sixth of random bits for each.
"""

import os

_RUN = 1 << 16


class RequestIds:
    """An endless supply of GUIDs as bytes."""

    __slots__ = ("_at", "_end", "_prefix")

    def __init__(self) -> None:
        self._prefix = b""
        self._at = self._end = 0

    def next(self) -> bytes:
        """A GUID."""
        at = self._at
        if at == self._end:
            text = os.urandom(8).hex()
            variant = "89ab"[int(text[15], 16) & 3]
            self._prefix = f"{text[:8]}-{text[8:12]}-4{text[12:15]}-{variant}{os.urandom(2).hex()[:3]}-".encode()
            at = int.from_bytes(os.urandom(6), "big") % ((1 << 48) - _RUN)
            self._end = at + _RUN
        self._at = at + 1
        return b"%b%012x" % (self._prefix, at)
