"""The autoscaler: its windows and its rules in the order in which its app calls them."""

from datetime import timedelta

from autoscaler.decide import Decision, current_count, decide
from autoscaler.watched import REPLAY_SECONDS, Deployments, Watched
from contracts.envelope import Record
from contracts.log import Table, Tail
from contracts.messages import EndpointDesired, EndpointObserved, LoadSample, Message, ResourceSample, ScaleDecision

from .bus import Reader
from .machine import Turn
from .world import World

_EVERY = timedelta(seconds=1)


class Autoscaler:
    """Level-triggered: a decision is the latest document of its deployment, and the next evaluation repairs."""

    name = "autoscaler"

    def __init__(self, world: World):
        self._world = world
        self.restart()

    def restart(self) -> None:
        world = self._world
        self._evaluate_at = world.now
        self._deployments = Deployments()
        self._observed, self._decisions = Table(EndpointObserved), Table(ScaleDecision)
        self._reader = Reader(
            world.bus,
            Table(EndpointDesired, lambda name, desired: self._deployments.change(name, desired, world.now)),
            self._observed,
            self._decisions,
            Tail(LoadSample.TOPIC, self._hear, since=world.now - timedelta(seconds=REPLAY_SECONDS)),
        )
        self._deployments.caught_up()

    def turns(self) -> list[Turn]:
        turns: list[Turn] = [self._read] if self._reader.behind() else []
        return [*turns, self._evaluate] if self._world.now >= self._evaluate_at else turns

    def behind(self) -> bool:
        return bool(self._reader.behind())

    def _read(self) -> str:
        self._reader.poll(self._world.rng)
        return "read"

    def _hear(self, _: Record, sample: Message) -> None:
        assert isinstance(sample, LoadSample | ResourceSample)
        self._deployments.add(sample, self._world.now)

    def _evaluate(self) -> str:
        world = self._world
        self._evaluate_at = world.now + _EVERY
        for key in sorted(self._decisions.entries.keys() - self._deployments.by_key.keys()):
            self._reader.wait_for(world.bus.delete(ScaleDecision.TOPIC, key))
        decided = [self._decide(key, watched) for key, watched in sorted(self._deployments.by_key.items())]
        return "; ".join(filter(None, decided)) or "held"

    def _decide(self, key: str, watched: Watched) -> str:
        world, profile = self._world, watched.profile
        if profile is None:
            return ""
        watched.window.forget(world.now)
        last = self._decisions.entries.get(key)
        observed = self._observed.entries.get(watched.endpoint)
        seen = observed.deployments.get(watched.deployment) if observed is not None else None
        works_towards = seen.desired_instances if seen is not None else None
        count = current_count(works_towards, watched.declared, last, world.now)
        made = decide(profile, watched.window, count, last, world.now)
        if not isinstance(made, Decision):
            return ""
        decision = ScaleDecision(
            endpoint=watched.endpoint,
            deployment=watched.deployment,
            decided_at=world.now,
            previous=count,
            instances=made.instances,
            kind=made.kind,
            profile=profile.name,
            reason=made.reason,
            cooldown_until=made.cooldown_until,
        )
        offset = world.bus.publish(decision, id=f"{key}@{world.now.isoformat()}", source=self.name, now=world.now)
        self._reader.wait_for(offset)
        return f"{key}: {made.reason}"
