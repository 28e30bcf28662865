"""All services on one bus, and the dice that say who is next."""

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime

from contracts.messages import StartBatchJob, UsageRecorded

from .batching import BatchRunner
from .billing import Metering
from .invariants import Invariants
from .people import Command, People
from .provisioning import Provisioner
from .reconciling import TIMING
from .routing import Router
from .scaling import Autoscaler
from .world import CALM, CATALOG, STORM, Actor, Chaos, Service, World

_PACE = 0.2
"""Seconds, at most, between two steps."""

_RARELY = 0.05
"""How much rarer something old comes again than something new comes twice."""

_COMES_AGAIN = (UsageRecorded.TOPIC, StartBatchJob.TOPIC)
"""Where a record changes nothing when it comes again, however late."""

_FLUSH_SECONDS = 6.0
"""Longer than any source keeps its usage to itself."""

_LONGEST_SETTLING, _GLANCE = 6_000, 25
_LAST_STEPS = 200


class House:
    """One simulation. The same seed and scripts give the same steps."""

    def __init__(
        self,
        seed: int | str,
        scripts: Mapping[str, Sequence[Command]],
        chaos: Chaos = STORM,
        *,
        one_outcome: bool = False,
    ):
        self.seed = seed
        self.watch = Invariants(CATALOG, TIMING.drain_seconds, one_outcome=one_outcome)
        self.world = World(random.Random(seed), chaos, self.watch)
        self.world.pass_time(0)
        self.people = People(self.world, scripts)
        self.provisioner = Provisioner(self.world)
        self.router = Router(self.world)
        self.metering = Metering(self.world)
        self.autoscaler = Autoscaler(self.world)
        self.batch_runner = BatchRunner(self.world)
        self.services: list[Service] = [
            self.provisioner,
            self.router,
            self.metering,
            self.autoscaler,
            self.batch_runner,
        ]
        self._actors: list[Actor] = [*self.services, self.people, self.world.machine]
        self.trace: list[tuple[datetime, str]] = []

    def run(self, steps: int) -> None:
        """Time passes, and things go wrong, for so many steps."""
        for _ in range(steps):
            self.step(_PACE)

    def step(self, pace: float = _PACE) -> None:
        """At most `pace` seconds pass, and somebody does something."""
        self.world.pass_time(self.world.rng.uniform(0.001, pace))
        with self._witnessed():
            self._note(self._anybody() or "nobody: nothing to do")

    def restart(self, *services: Service) -> None:
        """These services lose their memory."""
        with self._witnessed():
            for service in services:
                self._note(self._restart(service))

    def settle(self) -> None:
        """Nothing goes wrong any more and nobody has a request: all comes to rest, as it is desired, and is told."""
        self.world.chaos = CALM
        self.router.requests = False
        with self._witnessed():
            for number in range(_LONGEST_SETTLING):
                self.step()
                if number % _GLANCE == 0 and not self._unsettled():
                    self.world.pass_time(_FLUSH_SECONDS)
                    self.deal()
                    if not self._unsettled():
                        break
            else:
                raise AssertionError(f"it never settles: {self._unsettled()}")
            self.watch.accounts.check(self.world.machine, self.router.epoch)
            self.watch.check_jobs(self.world.machine.folders)

    def deal(self) -> None:
        """Do all that is due, in no time."""
        with self._witnessed():
            for _ in range(_LONGEST_SETTLING):
                did = self._anybody()
                if did is None:
                    return
                self._note(did)
            raise AssertionError("somebody always has something to do")

    def _unsettled(self) -> list[str]:
        """What is not as it should be at rest."""
        behind = [f"{service.name} has something to do" for service in self.services if service.behind()]
        people = [] if self.people.done() else ["people have more to say"]
        router = [] if self.router.idle() else ["requests are under way"]
        return [*behind, *people, *router, *self.watch.unsettled(self.world.machine)]

    def _anybody(self) -> str | None:
        world, rng = self.world, self.world.rng
        if world.happens(world.chaos.accident):
            return f"machine: {world.machine.accident()}"
        if world.happens(world.chaos.compact):
            topic, partition = rng.choice(world.bus.compacted)
            world.bus.compact(topic, partition)
            return f"kafka: compacted {topic}-{partition}"
        if world.happens(world.chaos.repeat * _RARELY) and (old := world.bus.all(rng.choice(_COMES_AGAIN))):
            again = rng.choice(old)
            world.bus.append_again(again)
            return f"kafka: {again.origin} came again"
        for actor in rng.sample(self._actors, len(self._actors)):
            if turns := actor.turns():
                if actor in self.services and world.happens(world.chaos.crash):
                    return self._restart(actor)
                return f"{actor.name}: {rng.choice(turns)()}"
        return None

    def _restart(self, service: Service) -> str:
        self.watch.restarted(service.name)
        service.restart()
        return f"{service.name}: RESTARTED"

    def _note(self, what: str) -> None:
        self.trace.append((self.world.now, what))

    @contextmanager
    def _witnessed(self) -> Iterator[None]:
        """A failure tells the seed and the way there, once."""
        try:
            yield
        except _Failure:
            raise
        except Exception as error:
            last = list(enumerate(self.trace))[-_LAST_STEPS:]
            steps = "\n".join(f"{number:5} {now:%H:%M:%S.%f} {what}" for number, (now, what) in last)
            raise _Failure(
                f"{type(error).__name__}: {error}\n"
                f"Seed {self.seed!r}, after step {len(self.trace)}. The same seed goes the same way, the last part of "
                f"which is\n{steps}"
            ) from error


class _Failure(AssertionError):
    """A simulation that went where none may go."""
