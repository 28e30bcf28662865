"""How many instances a deployment should have: Azure Monitor's autoscale rules.

PURE: no clock (`now` is an argument), no I/O, no Kafka. A decision that cannot be made is a `Hold` with its reason.
Source: Azure Monitor, "Understand autoscale settings" and "Autoscale flapping".

In this order, and the first that applies decides:

1. Bounds. Minimum and maximum are inclusive and override whatever count there is, at any time.
2. Waking. Requests that wait for a deployment with no instance start one; Azure's deployments have one at least.
3. Out. One firing rule is enough; of several the highest resulting count counts.
4. A metric that is missing takes the count to the default when it is below, and never in.
5. In. All rules must fire; the highest resulting count (the smallest cut) counts. What the out-rules would say with the
   fewer instances is projected first; where one would fire, the next higher count is tried, and none is a hold.

After a rule decided, rules wait for its cooldown, in both directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil, inf
from operator import eq, ge, gt, le, lt, ne
from typing import Literal, NamedTuple

from autoscaler.readings import METRICS, Reading, read
from autoscaler.window import Window
from contracts.messages import MetricTrigger, ScaleAction, ScaleDecision, ScaleProfile, ScaleRule

OBSERVED_WITHIN = timedelta(seconds=60)
"""How long a decision may take to show in what is observed, before another count there is somebody else's doing."""

_OPERATORS = {
    "Equals": eq,
    "NotEquals": ne,
    "GreaterThan": gt,
    "GreaterThanOrEqual": ge,
    "LessThan": lt,
    "LessThanOrEqual": le,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """Another count. `cooldown_until` is when rules may decide again."""

    instances: int
    kind: Literal["ScaleOut", "ScaleIn", "Bounds", "FlappingOccurred", "MetricMissing"]
    reason: str
    cooldown_until: datetime | None


@dataclass(frozen=True, slots=True)
class Hold:
    """The same count, and why."""

    why: Literal["Steady", "Limit", "Cooldown", "Filling", "MetricMissing", "Flapping"]
    reason: str


class Judged(NamedTuple):
    """A rule with what its metric is now."""

    rule: ScaleRule
    reading: Reading

    @property
    def fires(self) -> bool:
        """Whether its condition holds; an unknown value fires nothing."""
        return self.reading.state == "known" and self.holds_for(self.reading.value)

    def holds_for(self, value: float) -> bool:
        """Whether its condition holds for `value`."""
        trigger = self.rule.metric_trigger
        return bool(_OPERATORS[trigger.operator](value, trigger.threshold))


def current_count(observed: int | None, declared: int, last: ScaleDecision | None, now: datetime) -> int:
    """How many instances there are to decide about: a decision that is on its way counts as done.

    `observed` is the count that the provisioner works towards, `declared` the one in the specification.
    """
    if last is not None and (observed is None or now - last.decided_at < OBSERVED_WITHIN):
        return last.instances
    return declared if observed is None else observed


def decide(
    profile: ScaleProfile, window: Window, count: int, last: ScaleDecision | None, now: datetime
) -> Decision | Hold:
    """What becomes of `count` instances at `now`; `last` is the latest decision, whose cooldown may still run."""
    capacity = profile.capacity
    bounded = min(max(count, capacity.minimum), capacity.maximum)
    cooldown_until = last.cooldown_until if last else None
    if bounded != count:
        bounds = f"{capacity.minimum} to {capacity.maximum} instances are allowed: {count} -> {bounded}"
        return Decision(bounded, "Bounds", bounds, cooldown_until)
    if count == 0 and window.waiting(now):
        return Decision(1, "ScaleOut", "requests wait and there is no instance: 0 -> 1", cooldown_until)
    judged = [Judged(rule, read(rule.metric_trigger, window, count, now)) for rule in profile.rules]
    out = [each for each in judged if each.rule.scale_action.direction == "Increase"]
    if any(each.fires for each in out):
        return _scale_out(profile, [each for each in out if each.fires], count, cooldown_until, now)
    for each in judged:
        if each.reading.state == "missing":
            return _missing(each.rule.metric_trigger, count, capacity.default, cooldown_until)
    for each in judged:
        if each.reading.state == "filling":
            trigger = each.rule.metric_trigger
            span = _duration(trigger.time_window)
            return Hold("Filling", f"too few samples of {trigger.metric_name} in {span} yet: stays at {count}")
    into = [each for each in judged if each.rule.scale_action.direction == "Decrease"]
    if not into or not all(each.fires for each in into):
        return Hold("Steady", "; ".join(describe(*each) for each in judged) or "there are no rules")
    return _scale_in(profile, out, into, count, cooldown_until, now)


def _scale_out(
    profile: ScaleProfile, firing: Sequence[Judged], count: int, cooldown_until: datetime | None, now: datetime
) -> Decision | Hold:
    best = max(firing, key=lambda each: _target(each.rule.scale_action, count))
    target = min(_target(best.rule.scale_action, count), profile.capacity.maximum)
    said = describe(*best)
    if target <= count:
        return Hold("Limit", f"{said}: stays at {count} of at most {profile.capacity.maximum}")
    if held := _cooling(said, cooldown_until, now):
        return held
    return _by_rule(target, "ScaleOut", f"{said}: {count} -> {target}", best.rule.scale_action, now)


def _scale_in(
    profile: ScaleProfile,
    out: Sequence[Judged],
    firing: Sequence[Judged],
    count: int,
    cooldown_until: datetime | None,
    now: datetime,
) -> Decision | Hold:
    best = max(firing, key=lambda each: _target(each.rule.scale_action, count))
    target = max(_target(best.rule.scale_action, count), profile.capacity.minimum)
    said = "; ".join(describe(*each) for each in firing)
    if target >= count:
        return Hold("Limit", f"{said}: stays at {count} of at least {profile.capacity.minimum}")
    if held := _cooling(said, cooldown_until, now):
        return held
    action = best.rule.scale_action
    flaps = _would_fire(out, count, target)
    if flaps is None:
        return _by_rule(target, "ScaleIn", f"{said}: {count} -> {target}", action, now)
    for fewer in range(target + 1, count):
        if _would_fire(out, count, fewer) is None:
            reason = f"{said}: {count} -> {fewer} and not {target}, where {flaps}"
            return _by_rule(fewer, "FlappingOccurred", reason, action, now)
    return Hold("Flapping", f"{said}: stays at {count}, for with {target} {flaps}")


def _would_fire(out: Sequence[Judged], count: int, fewer: int) -> str | None:
    """What an out-rule would say if `fewer` instances shared what `count` have now; None when all are quiet."""
    for each in out:
        value = each.reading.value
        projected = value * count / fewer if fewer else (inf if value else 0.0)
        if each.holds_for(projected):
            trigger = each.rule.metric_trigger
            return f"{trigger.metric_name} would be {projected:g}, {trigger.operator} {trigger.threshold:g}"
    return None


def _missing(trigger: MetricTrigger, count: int, default: int, cooldown_until: datetime | None) -> Decision | Hold:
    reason = f"no samples of {trigger.metric_name} for {_duration(trigger.time_window)}"
    if trigger.metric_name not in METRICS:
        reason = f"{trigger.metric_name} is not measured (known are {', '.join(METRICS)})"
    if count < default:
        return Decision(default, "MetricMissing", f"{reason}: {count} -> the default {default}", cooldown_until)
    return Hold("MetricMissing", f"{reason}: stays at {count}")


def _cooling(said: str, until: datetime | None, now: datetime) -> Hold | None:
    return Hold("Cooldown", f"{said}: waits until {until:%H:%M:%S} UTC") if until is not None and now < until else None


def _by_rule(
    instances: int,
    kind: Literal["ScaleOut", "ScaleIn", "FlappingOccurred"],
    reason: str,
    action: ScaleAction,
    now: datetime,
) -> Decision:
    reason = f"{reason}; cooldown {_duration(action.cooldown)}"
    return Decision(instances, kind, reason, now + action.cooldown)


def _target(action: ScaleAction, count: int) -> int:
    """The count that an action asks for, bounds aside. A percentage moves one instance at least, out rounded up and in
    rounded down; an exact count that lies the other way moves none."""
    out = action.direction == "Increase"
    if action.type == "ExactCount":
        return max(action.value, count) if out else min(action.value, count)
    step = action.value
    if action.type == "PercentChangeCount" and step:
        step = max(1, ceil(count * step / 100) if out else count * step // 100)
    return count + step if out else max(0, count - step)


def describe(rule: ScaleRule, reading: Reading) -> str:
    """A rule and its metric as a person reads it: RequestsPerMinute Average over 5 min is 912, GreaterThan 600."""
    trigger = rule.metric_trigger
    metric = trigger.metric_name + (" per instance" if trigger.divide_per_instance else "")
    window = f"{trigger.time_aggregation} over {_duration(trigger.time_window)}"
    fires = "" if _OPERATORS[trigger.operator](reading.value, trigger.threshold) else "not "
    return f"{metric} {window} is {reading.value:g}, {fires}{trigger.operator} {trigger.threshold:g}"


def _duration(duration: timedelta) -> str:
    seconds = duration.total_seconds()
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
