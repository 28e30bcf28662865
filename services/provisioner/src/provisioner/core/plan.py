"""What to do next so that an endpoint's instances become what its document asks for.

PURE, see the package. Level-triggered: `plan` looks only at how things are, so a plan that was interrupted anywhere
goes on where it stopped. Rules that hold at every step:

- An instance that may get traffic is drained first: the log says so, then `drain_seconds` pass, then it is stopped.
- While a new generation comes up, the older one keeps `wanted - ready(new)` instances. So a new one that never gets
  ready replaces nothing, and instances of the older one that die meanwhile are replaced as well.
- One that is not ready for a while is not replaced, and drains first where there is one too many.
- At most a quarter more instances than wanted are live at a time (rounded up; Kubernetes' default `maxSurge`).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from contracts.messages import EndpointDesired
from provisioner.core.lifecycle import PROVEN, Deaths, Instance, Phase, Place

SURGE = 0.25


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds from "it drains" in the log to SIGTERM, and from the end of its drain time to SIGKILL."""

    drain_seconds: float = 2.0
    stop_seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Start:
    """Start an instance in `place`."""

    place: Place


@dataclass(frozen=True, slots=True)
class Drain:
    """Take an instance out of traffic."""

    instance: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Ask an instance to end."""

    instance: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End an instance that does not end by itself."""

    instance: str


Step = Start | Drain | Stop | Kill


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps to take now, and when to look again although nothing happens (None: only when something does)."""

    steps: tuple[Step, ...]
    look_at: float | None


def plan(
    endpoint: str,
    desired: EndpointDesired | None,
    wanted: Mapping[str, int],
    instances: Sequence[Instance],
    deaths: Mapping[Place, Deaths],
    now: float,
    timing: Timing,
) -> Plan:
    """The plan for one endpoint. `desired` None: it is deleted, or everything is to stop.

    `wanted` has the count of each of its online deployments; `instances` and `deaths` are this endpoint's.
    """
    steps: list[Step] = []
    times: list[float] = []
    for instance in instances:
        match instance.phase:
            case Phase.FAILED:
                steps.append(Stop(instance.id))
            case Phase.DRAINING if instance.told_at is not None:
                _at(instance.told_at + timing.drain_seconds, now, Stop(instance.id), steps, times)
            case Phase.STOPPING:
                _at(instance.since + timing.stop_seconds + instance.drain_seconds, now, Kill(instance.id), steps, times)
    counts = wanted if desired is not None else {}
    for name in sorted({instance.place.deployment for instance in instances} | counts.keys()):
        live = [instance for instance in instances if instance.place.deployment == name and instance.live]
        if desired is None or name not in counts:
            steps += _surplus(live)
            continue
        own = {at: record for at, record in deaths.items() if at.deployment == name}
        generation = desired.deployments[name].generation
        _deployment(Place(endpoint, name, generation, 0), counts[name], live, own, now, steps, times)
    return Plan(tuple(steps), min(times, default=None))


def _deployment(
    first: Place,
    wanted: int,
    live: list[Instance],
    deaths: Mapping[Place, Deaths],
    now: float,
    steps: list[Step],
    times: list[float],
) -> None:
    """Towards `wanted` instances of the generation of `first`, with the older one as its safety net."""
    new = [instance for instance in live if instance.place.generation == first.generation]
    old = [instance for instance in live if instance.place.generation != first.generation]
    ready = sum(instance.phase is Phase.READY for instance in new)
    net = fallback(first.generation, live, deaths)
    old_wanted = 0 if net is None else max(0, wanted - ready)
    kept_new = _best(new)[:wanted]
    kept_old = _best(i for i in old if i.phase is Phase.READY or i.place.generation == net)[:old_wanted]
    kept = {instance.id for instance in (*kept_new, *kept_old)}
    steps += _surplus(instance for instance in live if instance.id not in kept)
    room = wanted + math.ceil(wanted * SURGE) - len(kept)
    missing = [_free(first, wanted - len(kept_new), kept_new)]
    if net is not None:
        # First what has proven to work.
        missing.insert(0, _free(first._replace(generation=net), old_wanted - len(kept_old), kept_old))
    for place in [place for places in missing for place in places][: max(0, room)]:
        record = deaths.get(place)
        _at(record.retry_at if record else now, now, Start(place), steps, times)


def fallback(generation: int, live: Iterable[Instance], deaths: Mapping[Place, Deaths]) -> int | None:
    """The newest generation older than `generation` that has proven to work and still has, or just had, instances."""
    proven = {instance.place.generation for instance in live if instance.phase in PROVEN}
    proven |= {place.generation for place, record in deaths.items() if record.proven}
    return max((each for each in proven if each < generation), default=None)


def remembered(
    desired: EndpointDesired | None,
    wanted: Mapping[str, int],
    instances: Sequence[Instance],
    deaths: Mapping[Place, Deaths],
) -> dict[Place, Deaths]:
    """Of an endpoint's records of deaths those that still matter: those of places needed or taken, and, until the
    new generation is complete, those of the older one."""
    kept: dict[Place, Deaths] = {}
    for place, record in deaths.items():
        if desired is None or place.deployment not in wanted:
            continue
        live = [each for each in instances if each.place.deployment == place.deployment and each.live]
        own = {at: each for at, each in deaths.items() if at.deployment == place.deployment}
        count = wanted[place.deployment]
        generation = desired.deployments[place.deployment].generation
        ready = sum(each.phase is Phase.READY and each.place.generation == generation for each in live)
        if place.generation == generation:
            matters = (place.number < count and ready < count) or any(each.place == place for each in live)
        else:
            matters = ready < count and place.generation == fallback(generation, live, own)
        if matters:
            kept[place] = record
    return kept


def _best(instances: Iterable[Instance]) -> list[Instance]:
    """Ready ones first, then of newer generations, then by place: whoever comes last goes first."""
    return sorted(
        instances, key=lambda each: (each.phase is not Phase.READY, -each.place.generation, each.place.number)
    )


def _free(first: Place, count: int, kept: Sequence[Instance]) -> list[Place]:
    """The `count` lowest places of this generation that nobody has."""
    taken = {instance.place.number for instance in kept if instance.place.generation == first.generation}
    free = (number for number in range(count + len(taken)) if number not in taken)
    return [first._replace(number=number) for number, _ in zip(free, range(count), strict=False)]


def _surplus(instances: Iterable[Instance]) -> list[Step]:
    return [Drain(instance.id) if instance.phase in PROVEN else Stop(instance.id) for instance in _best(instances)]


def _at(when: float, now: float, step: Step, steps: list[Step], times: list[float]) -> None:
    """Do it now, or look again when it is time."""
    if when <= now:
        steps.append(step)
    else:
        times.append(when)
