"""Copies of requests, for a deployment that is tried with real traffic: asked like any other, and never waited for.

A copy is an exchange of its own whose client is nobody. It goes out after the live request did and takes no part of it
but the bytes of its body; whatever becomes of it is counted and dropped. A body that is too long to be kept is not
copied, nor is a request that names its deployment, or asks for another protocol.

PURE: statuses and bytes in, counts out. No clock and no I/O may enter this module.
"""

from collections import Counter
from hashlib import blake2b


class Nobody:
    """The client of a copy. `taken` counts the bytes that it was given."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0

    def write(self, data: bytes) -> None:
        """Nobody reads it."""
        self.taken += len(data)

    def finished(self, exchange: object) -> None:
        """Nobody waited for it."""

    def abort(self) -> None:
        """There is nothing to break."""


class Watch:
    """What a model answers to one of the two requests: its own status, and a digest of the body."""

    __slots__ = ("_body", "_comparison", "answered", "status")

    def __init__(self, comparison: "Comparison"):
        self._comparison = comparison
        self._body = blake2b(digest_size=16)
        self.status = 0
        self.answered = False

    def add(self, data: bytes) -> None:
        """A part of the body."""
        self._body.update(data)

    def ended(self, *, answered: bool) -> None:
        """The request is over; `answered` says that the model's whole answer came."""
        self.answered = answered
        self._comparison.ended()

    def digest(self) -> bytes:
        """Of the body so far."""
        return self._body.digest()


class Comparison:
    """Counts in `outcomes`, once both are over, whether the copy was answered as the live request was: `same`, another
    `status`, another `body`, or `unanswered`. Where the live answer did not come, there is nothing to compare with."""

    __slots__ = ("_open", "_outcomes", "copy", "live")

    def __init__(self, outcomes: Counter[str]):
        self._outcomes = outcomes
        self._open = 2
        self.live, self.copy = Watch(self), Watch(self)

    def ended(self) -> None:
        """One of the two is over."""
        self._open -= 1
        if self._open == 0 and self.live.answered:
            self._outcomes[self._outcome()] += 1

    def _outcome(self) -> str:
        if not self.copy.answered:
            return "unanswered"
        if self.copy.status != self.live.status:
            return "status"
        return "same" if self.copy.digest() == self.live.digest() else "body"
