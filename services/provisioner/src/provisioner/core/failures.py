"""Why an instance died, or never lived, in Azure's words: its error codes, and its names of events for the two probes.

PURE, see the package. What an instance says of itself comes from user code's process: it is bounded and checked here.
"""

import errno
import re
import signal
from collections.abc import Mapping, Sequence
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


NEXT_STEPS: Mapping[str, str] = {
    "UserScriptImportError": "Check that the environment's conda_file names every package that the script imports.",
    "UserScriptFunctionNotFound": "Define init() and run(data) at the top level of the scoring script.",
    "UserScriptInitFailed": "The last lines of the log show where init() failed; correct the script, or the model's "
    "path below AZUREML_MODEL_DIR, and update the deployment.",
    "BadArgument": "Correct the deployment's settings and update it.",
}
"""What to do about what an instance says of itself, by Azure's code."""

NOTHING_LISTENS = "nothing listens at its port"
"""What a question finds while a process has not opened its port."""


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process ended: with `code` (negative: by that signal); None when only its end was seen, which is so for
    one that an earlier provisioner started. `out_of_memory`: the kernel ended it, or a process of its, at the limit of
    its instance type, `limit_bytes`; `peak_bytes` is the most that it had, where that is known."""

    code: int | None
    out_of_memory: bool = False
    limit_bytes: int | None = None
    peak_bytes: int | None = None


def why_ended(ended: Exit, status: Status | None, log: bytes) -> DeploymentError:
    """The error of an instance whose process ended by itself."""
    if ended.out_of_memory:
        return _error("PodOutOfMemory", _out_of_memory(ended), log)
    if status is not None and status.state == "failed" and status.code:
        traceback = log.rpartition(_MODEL_TREE)[0] or log
        said = status.message or "the script cannot be served"
        return _error(status.code, _with_next_step(said, NEXT_STEPS.get(status.code)), traceback)
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


def _out_of_memory(ended: Exit) -> str:
    limit = f" of {ended.limit_bytes / 2**30:g} GiB" if ended.limit_bytes is not None else ""
    peak = f" (at most {ended.peak_bytes / 2**30:.2f} GiB were used)" if ended.peak_bytes is not None else ""
    said = f"the instance used up the memory{limit} that its instance type grants{peak} and was ended"
    return _with_next_step(said, "Use a larger instance_type, a smaller model, or fewer workers (WORKER_COUNT).")


def never_ready(seconds: float, log: bytes, last: str | None = None) -> DeploymentError:
    """The error of an instance that did not answer in time; `last` is what the last question found."""
    within = f"within {seconds:g} s (readiness_probe: initial_delay + failure_threshold x period)"
    if last is None or last == NOTHING_LISTENS:
        said = f"the port never opened: the process runs, but nothing listened {within}; init() may still be at work"
        return _error("ResourceNotReady", _with_next_step(said, "Make init() faster, or raise the probe."), log)
    said = f"the instance listens, but did not answer GET / with 200 {within}, the last time: {last}"
    step = "Look at its log: the script hangs, or holds the interpreter."
    return _error("ReadinessProbeFailed", _with_next_step(said, step), log)


def no_longer_alive(failures: int, last: str, log: bytes) -> DeploymentError:
    """The error of an instance that stopped answering."""
    return _error("LivenessProbeFailed", f"the liveness probe failed {failures} times in a row, the last: {last}", log)


NO_ROOM = frozenset({
    errno.EAGAIN, errno.ENOMEM, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EADDRINUSE, errno.EUSERS
})  # fmt: skip
"""What the system says when it has no more of something: processes, memory, disk, files, ports, users."""


def why_not_started(number: int | None) -> str:
    """The code of a system error that kept an instance from starting."""
    return "PodUnschedulable" if number in NO_ROOM else "InternalServerError"


def not_started(reason: str, code: str = "InternalServerError") -> DeploymentError:
    """The error of an instance whose process could not be started at all."""
    step = "This machine has no room for it: use fewer instances." if code == "PodUnschedulable" else None
    return _error(code, _with_next_step(f"the instance could not be started: {reason}", step), b"")


def not_built(reason: str, log: Sequence[str]) -> DeploymentError:
    """The error of a deployment whose environment could not be built; `log` is the end of the build's."""
    said = _with_next_step(f"the environment could not be built: {reason}", "Correct the conda_file and update it.")
    return _error("ImageBuildFailure", said, "\n".join(log).encode())


def not_fetched(reason: str) -> DeploymentError:
    """The error of a deployment whose files could not be brought to this machine. They were in the store when it was
    accepted, so the fault is not the deployment's."""
    said = _with_next_step(f"its files could not be brought here: {reason}", "It is tried again.")
    return _error("InternalServerError", said, b"")


def _with_next_step(said: str, step: str | None) -> str:
    """What happened, and what to do about it."""
    return said if step is None else f"{said.rstrip().removesuffix('.')}. {step}"


def _error(code: str, message: str, log: bytes) -> DeploymentError:
    return DeploymentError(code=code, message=_clean(message, _LONGEST_MESSAGE), log_tail=_tail(log))


def _tail(log: bytes) -> tuple[str, ...]:
    lines: Sequence[str] = log.decode(errors="replace").rstrip().splitlines()[-TAIL_LINES:]
    return tuple(_clean(line, _LONGEST_LINE) for line in lines)


def _clean(text: str, longest: int) -> str:
    return _UNPRINTABLE.sub("\ufffd", text)[:longest]
