"""What instances print, and what was done to prepare them, for whoever asks (get-logs). Everything here blocks."""

from collections.abc import Callable, Sequence
from typing import Protocol

from contracts.messages import DeploymentDesired, GetLogs
from provisioner.compute.logs import last_lines
from provisioner.compute.process import ProcessCompute
from provisioner.core.lifecycle import Phase
from provisioner.instances import Tracked
from provisioner.preparation import Preparation

MOST_BYTES = 512 << 10
"""The newest of a text that one answer holds."""


class Reader(Protocol):
    """Reads logs; `Logs` is one."""

    def read(self, command: GetLogs, deployment: DeploymentDesired) -> str:
        """The text that is asked for. Raises LookupError when there is no such instance."""


class Logs:
    """`running()` gives every instance that runs."""

    def __init__(self, running: Callable[[], Sequence[Tracked]], compute: ProcessCompute, preparation: Preparation):
        self._running = running
        self._compute = compute
        self._preparation = preparation

    def read(self, command: GetLogs, deployment: DeploymentDesired) -> str:
        """The newest lines of a deployment, at most 512 KiB. Raises LookupError when there is no such instance."""
        if command.container == "storage-initializer":
            parts = [("", self._prepared(command, deployment.generation))]
        else:
            parts = self._printed(command)
        if len(parts) == 1:
            return _bounded(parts[0][1], MOST_BYTES)
        room = MOST_BYTES // max(1, len(parts)) - 200
        return "\n".join(f"==> {title} <==\n{_bounded(text, room)}" for title, text in parts)

    def _prepared(self, command: GetLogs, generation: int) -> str:
        path = self._preparation.log_file(command.endpoint, command.deployment, generation)
        lines = last_lines([path], command.lines, MOST_BYTES)
        return _text(lines) or f"nothing was prepared yet for generation {generation} of '{command.deployment}'\n"

    def _printed(self, command: GetLogs) -> list[tuple[str, str]]:
        """The output of each instance that runs, and of the one that failed last while none is ready."""
        running = [
            each for each in self._running() if each.instance.place[:2] == (command.endpoint, command.deployment)
        ]
        ended = self._compute.kept_consoles(command.endpoint, command.deployment)
        if command.instance is None:
            ended = [] if any(each.instance.phase is Phase.READY for each in running) else ended[:1]
        else:
            known = [each.instance.id for each in running] + [path.stem for path in ended]
            running = [each for each in running if each.instance.id == command.instance]
            ended = [path for path in ended if path.stem == command.instance]
            if not running and not ended:
                has = ", ".join(known) or "none"
                raise LookupError(f"'{command.instance}' is no instance of '{command.deployment}', which has {has}")
        parts = [
            (f"{path.stem} (it has ended)", _text(last_lines([path], command.lines, MOST_BYTES))) for path in ended
        ]
        parts += [
            (
                f"{each.instance.id} ({each.instance.phase})",
                _text(each.process.folder.last_lines(command.lines, MOST_BYTES)),
            )
            for each in running
        ]
        nothing = f"no instance of '{command.deployment}' has run yet: ask for the storage-initializer's log\n"
        return parts or [("", nothing)]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _bounded(text: str, most: int) -> str:
    """The end of `text`, at most so many bytes of UTF-8."""
    raw = text.encode()
    return text if len(raw) <= most else raw[-most:].decode(errors="ignore")
