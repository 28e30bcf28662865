"""What must hold whatever happens, checked at every record and at every signal.

Nothing here calls a core: what a core says is compared with what was seen, counted in the plainest way.
"""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from fractions import Fraction
from typing import Any

from contracts.catalog import Catalog
from contracts.envelope import Record
from contracts.messages import (
    BatchJob,
    CommandAccepted,
    CommandRejected,
    DeploymentDesired,
    EndpointDesired,
    EndpointObserved,
    Message,
    OnlineDeploymentSpec,
    ScaleDecision,
    UsageRecorded,
    UsageRollup,
)

from .accounts import Accounts
from .machine import BROKEN, UNBUILDABLE, Folder, Machine, Process

_ENDED = ("Completed", "Failed", "Canceled")


class Invariants:
    """Looks on; every method raises AssertionError where something is not as it must be.

    A command that was accepted is answered the same whenever it comes again. With `one_outcome`, for scripts whose
    commands meet what earlier ones on their endpoint have left and nothing else, so is one that was rejected.
    """

    def __init__(self, catalog: Catalog, drain_seconds: float, *, one_outcome: bool):
        self.now = datetime.min
        self.accounts = Accounts(catalog)
        self.desired: dict[str, EndpointDesired] = {}
        self.observed: dict[str, EndpointObserved] = {}
        self.decisions: dict[str, ScaleDecision] = {}
        self.outcomes: dict[str, CommandAccepted | CommandRejected] = {}
        self.jobs: dict[str, BatchJob] = {}
        self._state: dict[str, dict[str, Any]] = {
            EndpointDesired.TOPIC: self.desired,
            EndpointObserved.TOPIC: self.observed,
            ScaleDecision.TOPIC: self.decisions,
        }
        self._drain_seconds, self._one_outcome = drain_seconds, one_outcome
        self._draining: dict[str, datetime] = {}
        self._splits: dict[str, tuple[dict[str, int], Counter[str]]] = {}

    # Records

    def appended(self, record: Record, message: Message | None) -> None:
        """A record was written."""
        match message:
            case EndpointDesired():
                self._desired_written(message)
            case EndpointObserved():
                self._observed_written(message)
            case CommandAccepted() | CommandRejected():
                self._answered(message)
            case BatchJob():
                self._job_written(message)
            case ScaleDecision():
                self.decisions[message.key()] = message
            case UsageRecorded():
                self.accounts.told(message)
            case UsageRollup():
                self.accounts.rolled_up(message)
            case None if record.value is None:
                self._state[record.topic].pop(record.key or "", None)

    def _desired_written(self, document: EndpointDesired) -> None:
        before = self.desired.get(document.endpoint)
        follows = 1 if before is None else before.generation + 1
        assert document.generation == follows, f"generation {document.generation} was written, {follows} was next"
        if before is None:
            assert document.endpoint not in self.observed, f"{document.endpoint} is made, and its predecessor told of"
        assert sum(document.traffic.values()) in (0, 100), f"the split is {document.traffic}"
        assert document.traffic.keys() <= document.deployments.keys(), f"{document.traffic} names what is not there"
        ids = [each.command_id for each in document.applied]
        assert len(set(ids)) == len(ids), f"a command was applied twice: {ids}"
        self.desired[document.endpoint] = document

    def _answered(self, reply: CommandAccepted | CommandRejected) -> None:
        first = self.outcomes.setdefault(reply.command_id, reply)
        if self._one_outcome or isinstance(first, CommandAccepted):
            assert first == reply, f"{reply.command_id} was answered with {first}, and then with {reply}"
        self.outcomes[reply.command_id] = reply

    def _observed_written(self, document: EndpointObserved) -> None:
        name, desired = document.endpoint, self.desired.get(document.endpoint)
        if desired is not None:
            assert document.generation <= desired.generation, f"{name} is observed before it is desired"
        if (before := self.observed.get(name)) is not None:
            assert document.generation >= before.generation, f"{name} was observed at {before.generation} already"
        instances = [instance for each in document.deployments.values() for instance in each.instances]
        assert len({instance.id for instance in instances}) == len(instances), f"{name}: one instance, told twice"
        assert len({instance.address for instance in instances}) == len(instances), f"{name}: one address, told twice"
        self.observed[name] = document
        draining = {instance.id for instance in instances if instance.state == "Draining"}
        for id in draining:
            self._draining.setdefault(id, self.now)
        for id in {instance.id for instance in instances} - draining:
            self._draining.pop(id, None)

    def _job_written(self, document: BatchJob) -> None:
        before = self.jobs.get(document.job)
        if before is not None:
            assert before.status not in _ENDED, f"{document.job} had ended as {before.status}: {document.status}"
            assert document.submitted_at == before.submitted_at, f"{document.job} was submitted twice"
            crossed = before.status == "CancelRequested" and document.status not in ("CancelRequested", "Canceled")
            assert not crossed, f"{document.job} was to be canceled and is {document.status}"
        self.jobs[document.job] = document

    # Signals

    def stopping(self, process: Process, now: datetime) -> None:
        """An instance is asked to end: nobody may be sent there any more."""
        if not process.serves or process.stopping:
            return
        document = self.observed.get(process.place.endpoint)
        told = [each for d in document.deployments.values() for each in d.instances] if document is not None else []
        states = {each.id: each.state for each in told}
        if process.id not in self._draining and states.get(process.id) in (None, "Starting"):
            return  # it answers since a moment ago, and nobody was told
        assert process.id in self._draining, f"{process.id} is stopped while the log says {states.get(process.id)}"
        grace = (now - self._draining[process.id]).total_seconds()
        assert grace >= self._drain_seconds, f"{process.id} is stopped {grace:g} s after the log said that it drains"

    def routed(self, endpoint: str, traffic: dict[str, int] | None) -> None:
        """The router's entry was replaced: with another split, counting begins anew."""
        if traffic is None:
            self._splits.pop(endpoint, None)
        elif endpoint not in self._splits or self._splits[endpoint][0] != traffic:
            self._splits[endpoint] = traffic, Counter()

    def turned(self, endpoint: str, deployment: str) -> None:
        """The split chose a deployment: each has its share of all turns, give or take less than one."""
        traffic, turns = self._splits[endpoint]
        turns[deployment] += 1
        for name in traffic.keys() | turns.keys():
            off = abs(turns[name] - Fraction(traffic.get(name, 0), 100) * turns.total())
            assert off < 1, f"{endpoint}: {name} has {turns[name]} of {turns.total()} turns of {traffic}"

    def restarted(self, name: str) -> None:
        """A service has lost its memory."""
        if name == "router":
            self._splits.clear()
        if name == "batch-runner":
            self.accounts.runner_restarted = True

    # At rest

    def unsettled(self, machine: Machine) -> list[str]:
        """How things are not as they are desired."""
        wrong = [f"{name} is still told of" for name in self.observed.keys() - self.desired.keys()]
        known: set[str] = set()
        for name, desired in self.desired.items():
            observed = self.observed.get(name)
            if observed is None or observed.generation != desired.generation:
                wrong.append(f"{name} is not observed at {desired.generation}")
                continue
            known |= {instance.id for each in observed.deployments.values() for instance in each.instances}
            wrong += [f"{name}/{gone} is still told of" for gone in observed.deployments.keys() - desired.deployments]
            for of, (deployment, spec) in desired.online().items():
                seen, wanted = observed.deployments[of], self._wanted(desired, of, deployment, spec)
                ready = [instance.generation for instance in seen.in_state("Ready")]
                environment = deployment.environment
                hopeless = environment is not None and environment.artifact.name == UNBUILDABLE
                if wanted and (hopeless or BROKEN in spec.environment_variables):
                    right = seen.state == "Failed" and deployment.generation not in ready and len(ready) <= wanted
                else:
                    right = seen.state == "Succeeded" and ready == [deployment.generation] * wanted
                    right &= len(seen.instances) == wanted and seen.generation == deployment.generation
                if not right or seen.desired_instances != wanted:
                    wrong.append(f"{name}/{of} should have {wanted} of generation {deployment.generation}: {seen}")
        alive = {process.id for process in machine.alive() if not process.broken}
        return [*wrong, *(f"{id} runs for nobody" for id in alive - known)]

    def _wanted(
        self, desired: EndpointDesired, name: str, deployment: DeploymentDesired, spec: OnlineDeploymentSpec
    ) -> int:
        if deployment.autoscale is None:
            return spec.instance_count
        capacity = deployment.autoscale.profiles[0].capacity
        decision = self.decisions.get(f"{desired.endpoint}/{name}")
        current = decision is not None and decision.decided_at >= desired.created_at
        count = decision.instances if decision is not None and current else spec.instance_count
        return min(max(count, capacity.minimum), capacity.maximum)

    def check_jobs(self, folders: Mapping[str, Folder]) -> None:
        """Every job has ended, with all of its output or none."""
        for job, document in self.jobs.items():
            assert document.status in _ENDED, f"{job} is {document.status} for ever"
            assert all(instance.stopped_at for instance in document.compute), f"{job} ended, its compute did not"
            folder, files = folders[job], document.files
            if document.status != "Completed":
                assert folder.output is None, f"{job} is {document.status} and has an output"
                continue
            assert files.succeeded + files.failed == files.total, f"{job} is complete without all files: {files}"
            assert folder.output == document.rows == files.succeeded, f"{job} has {folder.output} rows: {document}"
            assert document.mini_batches_done == document.mini_batches == len(folder.settled), f"{job}: {document}"
