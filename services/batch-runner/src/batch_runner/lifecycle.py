"""A job's life: which status follows which event, and what is to be done next.

PURE: no clock, no I/O, no Kafka. The log says the status and the job's folder says what is done; from the two alone
`next_step` tells what to do, so that whoever takes a job over after a crash does exactly the rest.
"""

from dataclasses import dataclass
from typing import Literal

from contracts.messages import JobStatus

Event = Literal["begin", "ready", "finalize", "complete", "fail", "cancel", "canceled"]

# A cancel is not undone by the progress that crosses it.
_CANCELING: dict[Event, JobStatus] = {
    "begin": "CancelRequested",
    "ready": "CancelRequested",
    "finalize": "CancelRequested",
    "complete": "CancelRequested",
    "fail": "CancelRequested",
    "cancel": "CancelRequested",
    "canceled": "Canceled",
}
TRANSITIONS: dict[JobStatus, dict[Event, JobStatus]] = {
    "Queued": {"begin": "Provisioning", "fail": "Failed", "cancel": "CancelRequested"},
    "Provisioning": {"ready": "Running", "fail": "Failed", "cancel": "CancelRequested"},
    "Running": {"finalize": "Finalizing", "fail": "Failed", "cancel": "CancelRequested"},
    "Finalizing": {"complete": "Completed", "fail": "Failed", "cancel": "CancelRequested"},
    "CancelRequested": _CANCELING,
    "Completed": {},
    "Failed": {},
    "Canceled": {},
}
ENDED = frozenset(status for status, events in TRANSITIONS.items() if not events)


class IllegalEventError(ValueError):
    """An event that the status does not know; nothing has changed."""


def after(status: JobStatus, event: Event) -> JobStatus:
    """The status that follows. Raises IllegalEventError."""
    try:
        return TRANSITIONS[status][event]
    except KeyError:
        raise IllegalEventError(f"a job that is {status} knows no '{event}'") from None


@dataclass(frozen=True, slots=True)
class Disk:
    """What the job's folder says: a plan is there; a decision to fail is; how many mini-batches have no segment yet;
    the output is in its place."""

    planned: bool = False
    failing: bool = False
    left: int = 0
    committed: bool = False


Step = Literal["plan", "begin", "score", "finalize", "write", "complete", "fail", "cancel"]


def next_step(status: JobStatus, disk: Disk) -> Step | None:
    """What to do next; None when the job has ended.

    plan: check the job and write its plan. begin: take room for its workers. score: run the mini-batches that are left.
    finalize: tell the final counts. write: put the output in its place. complete, fail, cancel: clean up and end.
    """
    if status in ENDED:
        return None
    if status == "CancelRequested":
        return "cancel"
    if disk.failing:
        return "fail"
    if not disk.planned:
        return "plan"
    if status == "Queued":
        return "begin"
    if disk.committed:
        return "complete"
    if disk.left or status == "Provisioning":
        return "score"
    return "finalize" if status == "Running" else "write"
