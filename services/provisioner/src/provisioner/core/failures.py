"""Why an instance died, in Azure's words.

PURE, see the package. What an instance says of itself comes from user code's process: it is bounded and checked here.
"""

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contracts.messages import DeploymentError

TAIL_LINES = 20
_LONGEST_LINE = 400
_LONGEST_MESSAGE = 2000
_MODEL_TREE = b"\nModel Directory Contents:\n"
"""What the inference server logs after a script's traceback, up to 200 lines of it."""
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Status(BaseModel):
    """What the inference server writes to its status file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str
    code: str | None = Field(default=None, pattern=r"^[A-Za-z]{1,64}$")
    message: str | None = None
    pid: int

    @classmethod
    def read(cls, content: bytes | None) -> "Status | None":
        """The status in `content`; None when there is none, or no sense in it."""
        try:
            return None if content is None else cls.model_validate_json(content)
        except ValidationError:
            return None


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with `code` (negative: by that signal); None when only its end was seen, which is so for
    one that an earlier provisioner started."""

    code: int | None


def why_ended(ended: Exit, status: Status | None, log: bytes) -> DeploymentError:
    """The error of an instance whose process ended by itself."""
    if status is not None and status.state == "failed" and status.code:
        traceback = log.rpartition(_MODEL_TREE)[0] or log
        return _error(status.code, status.message or "the script cannot be served", traceback)
    if ended.code is None:
        return _error("InternalServerError", "the instance ended; how is not known, a provisioner was restarted", log)
    if ended.code >= 0:
        return _error("InternalServerError", f"the instance ended by itself with exit code {ended.code}", log)
    try:
        name = signal.Signals(-ended.code).name
    except ValueError:
        name = f"signal {-ended.code}"
    hint = ": by hand, or because the machine's memory was used up" if name == "SIGKILL" else ""
    return _error("InternalServerError", f"the instance was ended by {name}{hint}", log)


def never_ready(seconds: float, log: bytes) -> DeploymentError:
    """The error of an instance that did not answer in time."""
    message = (
        f"GET / was not answered within {seconds:g} s (readiness_probe: initial_delay + failure_threshold x period)"
    )
    return _error("ResourceNotReady", message, log)


def no_longer_alive(failures: int, last: str, log: bytes) -> DeploymentError:
    """The error of an instance that stopped answering."""
    return _error("ResourceNotReady", f"the liveness probe failed {failures} times in a row, the last: {last}", log)


def not_started(reason: str) -> DeploymentError:
    """The error of an instance whose process could not be started at all."""
    return _error("InternalServerError", f"the instance could not be started: {reason}", b"")


def _error(code: str, message: str, log: bytes) -> DeploymentError:
    return DeploymentError(code=code, message=_clean(message, _LONGEST_MESSAGE), log_tail=_tail(log))


def _tail(log: bytes) -> tuple[str, ...]:
    lines: Sequence[str] = log.decode(errors="replace").rstrip().splitlines()[-TAIL_LINES:]
    return tuple(_clean(line, _LONGEST_LINE) for line in lines)


def _clean(text: str, longest: int) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)[:longest]
