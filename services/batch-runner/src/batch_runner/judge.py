"""What the end of an attempt means for its mini-batch and for the job.

PURE: no clock, no I/O. Source of the rules: Azure's batch deployment schema, `retry_settings` and `error_threshold`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, get_args

Settled = Literal["Succeeded", "Failed"]
Outcome = Literal[Settled, "Retrying"]


def outcome(*, ok: bool, attempt: int, max_retries: int) -> Outcome:
    """What became of a mini-batch whose `attempt` (1, 2, …) ended: it runs `max_retries` times more before it fails."""
    if ok:
        return "Succeeded"
    return "Retrying" if attempt <= max_retries else "Failed"


def verdict(error_threshold: int, failed_files: int) -> str | None:
    """Why the job fails: more files failed, over the whole input, than it forgives; -1 forgives all."""
    if not 0 <= error_threshold < failed_files:
        return None
    return f"{failed_files} files failed, more than the error_threshold of {error_threshold}; see logs/user/error.txt"


@dataclass(frozen=True, slots=True)
class Segment:
    """A mini-batch that is settled, and how many rows it gave. Its file's name says all of it."""

    index: int
    settled: Settled
    rows: int = 0

    @property
    def name(self) -> str:
        """The file's name: 00000012-Succeeded-40."""
        return f"{self.index:08d}-{self.settled}-{self.rows}"


def segments(names: Iterable[str]) -> dict[int, Segment]:
    """The segments among the names in a folder, by mini-batch. What is half written bears another kind of name."""
    found = {}
    for name in names:
        index, _, rest = name.partition("-")
        settled, _, rows = rest.partition("-")
        if settled in get_args(Settled) and index.isdecimal() and rows.isdecimal():
            found[int(index)] = Segment(int(index), "Succeeded" if settled == "Succeeded" else "Failed", int(rows))
    return found


@dataclass(frozen=True, slots=True)
class Tally:
    """How far a job is."""

    succeeded_files: int = 0
    failed_files: int = 0
    rows: int = 0
    mini_batches: int = 0

    def plus(self, segment: Segment, files: int) -> "Tally":
        """With one more mini-batch of `files` files."""
        ok = segment.settled == "Succeeded"
        return Tally(
            self.succeeded_files + (files if ok else 0),
            self.failed_files + (0 if ok else files),
            self.rows + segment.rows,
            self.mini_batches + 1,
        )


def tally(settled: Iterable[Segment], size: Callable[[int], int]) -> Tally:
    """How far a job is whose mini-batch i has size(i) files."""
    total = Tally()
    for segment in settled:
        total = total.plus(segment, size(segment.index))
    return total
