"""The machine and its disk: what a service starts there lives on its own, and what it writes there stays.

Instances live and die whoever watches; so do the provisioner's note of what it told, and the folders of batch jobs.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

from batch_runner.judge import Segment
from batch_runner.lifecycle import Disk
from batch_runner.plan import Plan
from contracts.messages import DeploymentDesired, OnlineDeploymentSpec
from provisioner.core.lifecycle import Place

Turn = Callable[[], str]
"""Does one thing that no crash cuts in two, and says what it was."""

BROKEN = "BROKEN"
"""The environment variable with which a deployment's script never gets through init()."""

UNBUILDABLE = "unbuildable.yml"
"""The environment file of which no environment can be built."""


class NotStarted(RuntimeError):
    """The machine cannot start an instance now."""


@dataclass(slots=True)
class Process:
    """One instance as the machine sees it. `stopping` is noted on disk when it is asked to end; `noticed_at` is when a
    provisioner heard that it had ended, until which it is paid for."""

    id: str
    place: Place
    template: DeploymentDesired
    address: str
    started_at: datetime
    answers: bool = False
    hangs: bool = False
    stopping: bool = False
    ended_at: datetime | None = None
    noticed_at: datetime | None = None

    @property
    def alive(self) -> bool:
        """Whether it has not ended."""
        return self.ended_at is None

    @property
    def serves(self) -> bool:
        """Whether it takes requests and answers them."""
        return self.alive and self.answers and not self.hangs

    @property
    def instance_type(self) -> str:
        """What is paid for."""
        return self.template.spec.instance_type

    @property
    def broken(self) -> bool:
        """Whether it can never answer."""
        assert isinstance(self.template.spec, OnlineDeploymentSpec)
        return BROKEN in self.template.spec.environment_variables


@dataclass(slots=True)
class Folder:
    """What a job has on disk. `settled` counts how often each mini-batch was settled in the life of one plan, `output`
    the rows of the output once it is in its place."""

    plan: Plan | None = None
    segments: dict[int, Segment] = field(default_factory=dict)
    settled: Counter[int] = field(default_factory=Counter)
    output: int | None = None

    def look(self, failing: bool) -> Disk:
        """What is done."""
        if self.plan is None:
            return Disk(failing=failing)
        left = self.plan.mini_batches - len(self.segments)
        return Disk(True, failing, left, self.output is not None)


class Machine:
    """Every process that there ever was, by id. `on_stop` sees each request to end, before the process does."""

    name = "machine"

    def __init__(self, rng: random.Random, clock: Callable[[], datetime], on_stop: Callable[[Process, datetime], None]):
        self.processes: dict[str, Process] = {}
        self.told_to: datetime | None = None
        """Up to when instance time is told: the provisioner's note."""
        self.folders: dict[str, Folder] = {}
        """What batch jobs have on disk."""
        self.prepared: set[tuple[object, ...]] = set()
        """Models, code and environments that lie on the disk together."""
        self._rng, self._clock = rng, clock
        self._on_stop = on_stop

    def alive(self) -> list[Process]:
        """Those that run."""
        return [process for process in self.processes.values() if process.alive]

    def start(self, place: Place, template: DeploymentDesired, *, refuses: bool) -> Process:
        """Start an instance. Raises NotStarted."""
        parts = template.model, template.code, template.environment
        assert parts in self.prepared, f"an instance of {place} starts before {parts} are there"
        if refuses:
            raise NotStarted("the machine has no process to spare")
        number = len(self.processes)
        id = f"{place.endpoint}-{place.deployment}-{number}"
        process = self.processes[id] = Process(id, place, template, f"127.0.0.1:{10_000 + number}", self._clock())
        return process

    def terminate(self, process: Process) -> None:
        """Ask it to end."""
        self._on_stop(process, self._clock())
        process.stopping = True

    def kill(self, process: Process) -> None:
        """End it."""
        if process.alive:
            process.ended_at = self._clock()

    def turns(self) -> list[Turn]:
        """Processes get ready, fail, or end as they were asked to."""
        alive = [process for process in self.alive() if not process.hangs]
        return [partial(self._live, process) for process in alive if process.stopping or not process.answers]

    def _live(self, process: Process) -> str:
        if process.stopping or process.broken:
            process.ended_at = self._clock()
            return f"{process.id} has ended"
        process.answers = True
        return f"{process.id} answers"

    def accident(self) -> str:
        """A process ends by itself, or hangs."""
        alive = self.alive()
        if not alive:
            return "nothing happened"
        process = self._rng.choice(alive)
        if self._rng.random() < 0.3:
            process.hangs = True
            return f"{process.id} hangs"
        process.ended_at = self._clock()
        return f"{process.id} died"
