"""Which of several worker processes have a place free for a call of `run()`, told through memory that they share.

Each thread that calls `run()` has one byte, which it alone writes. So there is nothing to lock, and what a killed
process leaves behind is a byte that its parent sets back.
"""

from __future__ import annotations

import mmap

_TAKEN, _FREE = b"\0", b"\1"


class Seats:
    """The seats of all processes, `places` each, all taken. Made before the processes are forked."""

    def __init__(self, processes: int, places: int):
        self._bytes = mmap.mmap(-1, processes * places)
        self._places = places

    def of(self, process: int) -> Row:
        """The row of a process; these are numbered from 0."""
        return Row(self._bytes, process * self._places, self._places)


class Row:
    """One process's seats."""

    def __init__(self, memory: mmap.mmap, first: int, count: int):
        self._bytes = memory
        self._first, self._end = first, first + count

    def free_all(self) -> None:
        self._fill(_FREE)

    def take_all(self) -> None:
        """Nobody sits there, and nobody can."""
        self._fill(_TAKEN)

    def take(self, place: int) -> None:
        self._bytes[self._first + place] = _TAKEN[0]

    def free(self, place: int) -> None:
        self._bytes[self._first + place] = _FREE[0]

    @property
    def has_free(self) -> bool:
        return self._bytes.find(_FREE, self._first, self._end) >= 0

    @property
    def others_have_free(self) -> bool:
        return self._bytes.find(_FREE, 0, self._first) >= 0 or self._bytes.find(_FREE, self._end) >= 0

    def _fill(self, state: bytes) -> None:
        self._bytes[self._first : self._end] = state * (self._end - self._first)
