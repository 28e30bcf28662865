"""How far a longer copy is, for people."""

from collections.abc import Callable
from threading import Lock

Progress = Callable[[str], None]

_OVER = 8 * 2**20
_PARTS = 10


def quiet(_: str) -> None:
    """A progress that nobody hears."""


class Told:
    """Tells of a copy of `total` bytes ten times, if they are more than 8 MiB: "{text}: 12 of 120 MiB"."""

    def __init__(self, progress: Progress, text: str, total: int):
        self._progress, self._text, self._total = progress, text, total
        self._done, self._step = 0, max(total // _PARTS, 1)
        self._lock = Lock()

    def add(self, size: int) -> None:
        """That many bytes more are copied."""
        with self._lock:
            before, self._done = self._done, self._done + size
            if self._total > _OVER and self._done // self._step > before // self._step:
                self._progress(f"{self._text}: {self._done >> 20} of {self._total >> 20} MiB")
