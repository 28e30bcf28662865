"""Whether a request is sent again, and what it is told when its time is over.

PURE: values only. No clock and no I/O may enter this module.

A request is *handed* to a model when its first byte is written to an instance's connection: from there on nobody can
know whether the model ran. So a request that was never handed may always be sent (a refused connection costs nothing);
one that was handed may be sent once more, and only where the deployment declares that scoring twice is harmless.
"""

from enum import Enum

from router.outcomes import INSTANCE_DIED, NOT_READY, TIMED_OUT, Refusal

_HANDS_OF_AN_IDEMPOTENT_REQUEST = 2


class Phase(Enum):
    """Where a request is."""

    WAITING = "in its deployment's queue, or held until an instance is ready"
    CONNECTING = "has an instance; the connection is being opened"
    SENT = "handed to a model, whose answer has not begun"
    STREAMING = "the answer's head has gone to the client"
    DONE = "answered, or nobody is left to answer"


def may_be_sent(handed: int, *, idempotent: bool) -> bool:
    """Whether a request that an instance lost may go to another. `handed` counts how often a model has had it."""
    return handed < (_HANDS_OF_AN_IDEMPOTENT_REQUEST if idempotent else 1)


def at_deadline(phase: Phase, handed: int, *, instance_usable: bool) -> Refusal:
    """The answer when request_timeout_ms is over: it names what was being waited for. (An answer that has begun and
    stands still is only counted as this: its client sees it cut off.)"""
    if phase in (Phase.SENT, Phase.STREAMING):
        return TIMED_OUT
    if handed:
        return INSTANCE_DIED
    return TIMED_OUT if instance_usable else NOT_READY
