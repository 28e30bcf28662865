"""Azure Monitor's rules as tables: bounds, out, in, missing, cooldown, flapping. Source: see `autoscaler.decide`."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from autoscaler.decide import OBSERVED_WITHIN, Decision, Hold, current_count, decide
from autoscaler.window import Window
from contracts.messages import (
    Capacity,
    LoadSample,
    MetricTrigger,
    ResourceSample,
    ScaleAction,
    ScaleDecision,
    ScaleProfile,
    ScaleRule,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CPU = "CpuUtilizationPercentage"
MEMORY = "CpuMemoryUtilizationPercentage"
WINDOW = 60


def rule(
    direction: str,
    operator: str,
    threshold: float,
    value: int = 1,
    *,
    type: str = "ChangeCount",
    metric: str = CPU,
    cooldown: int = 60,
    **trigger: Any,
) -> ScaleRule:
    return ScaleRule(
        metric_trigger=MetricTrigger.model_validate(
            {
                "metric_name": metric,
                "time_grain": timedelta(seconds=1),
                "time_window": timedelta(seconds=WINDOW),
                "operator": operator,
                "threshold": threshold,
                **trigger,
            }
        ),
        scale_action=ScaleAction.model_validate(
            {"direction": direction, "type": type, "value": value, "cooldown": timedelta(seconds=cooldown)}
        ),
    )


def out(threshold: float, value: int = 1, operator: str = "GreaterThan", **fields: Any) -> ScaleRule:
    return rule("Increase", operator, threshold, value, **fields)


def into(threshold: float, value: int = 1, operator: str = "LessThan", **fields: Any) -> ScaleRule:
    return rule("Decrease", operator, threshold, value, **fields)


def profile(*rules: ScaleRule, minimum: int = 1, maximum: int = 10, default: int = 1) -> ScaleProfile:
    return ScaleProfile(
        name="default", capacity=Capacity(minimum=minimum, maximum=maximum, default=default), rules=rules
    )


def measured(*instances: float, memory: float | None = None) -> Window:
    """A window in which each instance had so much CPU all the time (and memory, the same for all)."""
    window = Window(600, NOON - timedelta(hours=1))
    for second in range(-WINDOW - 1, 0):
        for number, cpu in enumerate(instances):
            window.add(
                ResourceSample(
                    endpoint="diabetes",
                    deployment="blue",
                    source="provisioner-1",
                    at=NOON + timedelta(seconds=second),
                    instance=str(number),
                    cpu_percent=cpu,
                    memory_percent=cpu if memory is None else memory,
                )
            )
    return window


SILENT = Window(600, NOON - timedelta(hours=1))
JUST_STARTED = Window(600, NOON)


def decided(
    instances: int, *, ago: float = 3600, cooldown: float | None = None, kind: str = "ScaleOut"
) -> ScaleDecision:
    at = NOON - timedelta(seconds=ago)
    return ScaleDecision.model_validate(
        {
            "endpoint": "diabetes",
            "deployment": "blue",
            "decided_at": at,
            "previous": 1,
            "instances": instances,
            "kind": kind,
            "profile": "default",
            "reason": "",
            "cooldown_until": None if cooldown is None else at + timedelta(seconds=cooldown),
        }
    )


def result(setting: ScaleProfile, window: Window, count: int, last: ScaleDecision | None = None) -> tuple[str, int]:
    """What was decided, or why not, and the count."""
    match decide(setting, window, count, last, NOON):
        case Decision(instances, kind):
            return kind, instances
        case Hold(why):
            return why, count


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, ("Bounds", 2)),
        (1, ("Bounds", 2)),
        (2, ("Filling", 2)),
        (5, ("Filling", 5)),
        (6, ("Bounds", 5)),
        (9, ("Bounds", 5)),
    ],
)
def test_minimum_and_maximum_are_inclusive_and_override_any_count_at_once(
    count: int, expected: tuple[str, int]
) -> None:
    setting = profile(out(50), minimum=2, maximum=5, default=3)
    assert result(setting, JUST_STARTED, count, decided(count, ago=1, cooldown=600)) == expected


@pytest.mark.parametrize(
    ("operator", "fires_at"),
    [
        ("GreaterThan", [51]),
        ("GreaterThanOrEqual", [50, 51]),
        ("LessThan", [49]),
        ("LessThanOrEqual", [49, 50]),
        ("Equals", [50]),
        ("NotEquals", [49, 51]),
    ],
)
def test_operators(operator: str, fires_at: list[int]) -> None:
    setting = profile(out(50, operator=operator))
    assert [value for value in (49, 50, 51) if result(setting, measured(value), 1) == ("ScaleOut", 2)] == fires_at


@pytest.mark.parametrize(
    ("type", "value", "count", "expected"),
    [
        ("ChangeCount", 2, 3, ("ScaleOut", 5)),
        ("ChangeCount", 20, 3, ("ScaleOut", 10)),  # as far as the maximum
        ("ChangeCount", 0, 3, ("Limit", 3)),
        ("PercentChangeCount", 50, 4, ("ScaleOut", 6)),
        ("PercentChangeCount", 50, 3, ("ScaleOut", 5)),  # rounded up
        ("PercentChangeCount", 1, 3, ("ScaleOut", 4)),  # one at least
        ("PercentChangeCount", 0, 3, ("Limit", 3)),
        ("PercentChangeCount", 100, 10, ("Limit", 10)),
        ("ExactCount", 7, 3, ("ScaleOut", 7)),
        ("ExactCount", 2, 3, ("Limit", 3)),  # the other way
    ],
)
def test_what_an_action_adds(type: str, value: int, count: int, expected: tuple[str, int]) -> None:
    assert result(profile(out(50, value, type=type)), measured(*[99.0] * count), count) == expected


@pytest.mark.parametrize(
    ("type", "value", "count", "expected"),
    [
        ("ChangeCount", 2, 5, ("ScaleIn", 3)),
        ("ChangeCount", 20, 5, ("ScaleIn", 1)),  # as far as the minimum
        ("PercentChangeCount", 50, 5, ("ScaleIn", 3)),  # rounded down
        ("PercentChangeCount", 1, 5, ("ScaleIn", 4)),  # one at least
        ("ExactCount", 2, 5, ("ScaleIn", 2)),
        ("ExactCount", 7, 5, ("Limit", 5)),  # the other way
        ("ChangeCount", 1, 1, ("Limit", 1)),
    ],
)
def test_what_an_action_takes(type: str, value: int, count: int, expected: tuple[str, int]) -> None:
    assert result(profile(into(30, value, type=type)), measured(*[1.0] * count), count) == expected


def test_any_out_rule_is_enough_and_the_highest_resulting_count_counts() -> None:
    setting = profile(out(50, 1), out(80, 3), out(95, 7))
    assert result(setting, measured(60, 60), 2) == ("ScaleOut", 3)
    assert result(setting, measured(90, 90), 2) == ("ScaleOut", 5)


def test_out_goes_before_in() -> None:
    setting = profile(out(50, metric=MEMORY), into(30))
    assert result(setting, measured(10, 10, memory=90), 2) == ("ScaleOut", 3)
    # A firing out-rule that is at the maximum leaves no room for in-rules either.
    assert result(profile(out(50, metric=MEMORY), into(30), maximum=2), measured(10, 10, memory=90), 2) == ("Limit", 2)


def test_every_in_rule_must_fire_and_the_smallest_cut_counts() -> None:
    setting = profile(into(30, 3), into(30, 1, metric=MEMORY))
    assert result(setting, measured(*[10.0] * 6, memory=50), 6) == ("Steady", 6)
    assert result(setting, measured(*[10.0] * 6, memory=10), 6) == ("ScaleIn", 5)


@pytest.mark.parametrize(
    ("count", "expected"), [(1, ("MetricMissing", 3)), (3, ("MetricMissing", 3)), (4, ("MetricMissing", 4))]
)
def test_a_missing_metric_takes_the_count_up_to_the_default_and_never_down(
    count: int, expected: tuple[str, int]
) -> None:
    assert result(profile(out(50), into(30), default=3), SILENT, count) == expected


def test_one_missing_metric_among_others_keeps_from_scaling_in_but_not_from_scaling_out() -> None:
    unknown = out(50, metric="RequestsPerMinute")
    assert result(profile(into(30), unknown), measured(10, 10), 2) == ("MetricMissing", 2)
    assert result(profile(out(50), unknown), measured(90, 90), 2) == ("ScaleOut", 3)


def test_a_metric_that_nobody_measures_is_told_with_the_ones_there_are() -> None:
    held = decide(profile(out(50, metric="QueueLength")), measured(10), 1, None, NOON)
    assert held == Hold(
        "MetricMissing",
        "QueueLength is not measured (known are RequestsPerMinute, RequestLatency, CpuUtilizationPercentage, "
        "CpuMemoryUtilizationPercentage, DiskUtilization): stays at 1",
    )


def test_after_a_start_the_count_is_held_until_the_window_can_tell() -> None:
    assert result(profile(out(50), into(30), default=3), JUST_STARTED, 1) == ("Filling", 1)


def test_requests_that_wait_for_a_deployment_without_instances_start_one() -> None:
    quiet, asked = Window(600, NOON - timedelta(hours=1)), Window(600, NOON - timedelta(hours=1))
    for ago, window in ((1, asked), (30, quiet)):
        at = NOON - timedelta(seconds=ago)
        window.add(
            LoadSample(
                endpoint="shop",
                deployment="blue",
                source="r",
                at=at,
                requests=0,
                failures=0,
                in_flight=3,
                latency_ms_sum=0,
                latency_ms_max=0,
            )
        )
    sleeping = profile(minimum=0, default=0)
    decision = decide(sleeping, asked, 0, None, NOON)
    assert isinstance(decision, Decision)
    assert (decision.instances, decision.kind) == (1, "ScaleOut")
    assert decision.reason == "requests wait and there is no instance: 0 -> 1"
    assert isinstance(decide(sleeping, quiet, 0, None, NOON), Hold)
    assert isinstance(decide(sleeping, asked, 1, None, NOON), Hold)
    assert asked.resized(60).waiting(NOON)


def test_a_profile_without_rules_only_bounds() -> None:
    assert result(profile(minimum=2, default=2), SILENT, 1) == ("Bounds", 2)
    assert result(profile(), SILENT, 1) == ("Steady", 1)


# One cooldown clock


@pytest.mark.parametrize(("ago", "expected"), [(59, ("Cooldown", 2)), (60, ("ScaleOut", 3))])
def test_the_rule_that_fired_last_makes_out_rules_wait(ago: float, expected: tuple[str, int]) -> None:
    assert result(profile(out(50, cooldown=1)), measured(90, 90), 2, decided(2, ago=ago, cooldown=60)) == expected


@pytest.mark.parametrize(("ago", "expected"), [(59, ("Cooldown", 2)), (60, ("ScaleIn", 1))])
def test_and_in_rules_too_whichever_way_it_went(ago: float, expected: tuple[str, int]) -> None:
    last = decided(2, ago=ago, cooldown=60, kind="ScaleOut")
    assert result(profile(into(30, cooldown=1)), measured(10, 10), 2, last) == expected


def test_a_decision_starts_the_cooldown_of_its_rule() -> None:
    decision = decide(profile(out(50, 1, cooldown=10), out(60, 2, cooldown=300)), measured(90), 1, None, NOON)
    assert isinstance(decision, Decision)
    assert decision.cooldown_until == NOON + timedelta(seconds=300)


@pytest.mark.parametrize(
    ("setting", "window", "kind"),
    [(profile(minimum=2, default=2), SILENT, "Bounds"), (profile(out(50), default=2), SILENT, "MetricMissing")],
)
def test_a_decision_that_no_rule_made_waits_for_nothing_and_keeps_the_clock(
    setting: ScaleProfile, window: Window, kind: str
) -> None:
    last = decided(1, ago=10, cooldown=60)
    decision = decide(setting, window, 1, last, NOON)
    assert isinstance(decision, Decision)
    assert (decision.kind, decision.cooldown_until) == (kind, last.cooldown_until)


# Flapping. The first two are Azure's own examples.


def test_two_instances_at_28_percent_stay_for_one_would_be_at_56() -> None:
    held = decide(profile(out(50), into(30)), measured(28, 28), 2, None, NOON)
    assert held == Hold(
        "Flapping",
        f"{CPU} Average over 1 min is 28, LessThan 30: stays at 2, for with 1 {CPU} would be 56, GreaterThan 50",
    )


@pytest.mark.parametrize(("threads", "expected"), [(1250, ("Steady", 3)), (1180, ("ScaleIn", 2))])
def test_of_1250_threads_on_three_instances_none_goes_and_of_1180_one_does(
    threads: int, expected: tuple[str, int]
) -> None:
    # 1250 is 417 for each, which is not less than 400; 1180 is 393, and 590 on two.
    setting = profile(out(600, operator="GreaterThanOrEqual"), into(400))
    assert result(setting, measured(*[threads / 3] * 3), 3) == expected


def test_50_for_each_of_two_instances_fires_at_100() -> None:
    setting = profile(out(50, operator="GreaterThanOrEqual", statistic="Sum", divide_per_instance=True))
    assert result(setting, measured(50, 49), 2) == ("Steady", 2)
    assert result(setting, measured(50, 50), 2) == ("ScaleOut", 3)


@pytest.mark.parametrize(
    ("cut", "cpu", "expected"),
    [
        (4, 8.0, ("ScaleIn", 1)),  # 40 on one
        (4, 12.0, ("FlappingOccurred", 2)),  # 60 on one, 30 on two
        (4, 24.0, ("FlappingOccurred", 3)),  # 60 on two, 40 on three
        (1, 29.0, ("ScaleIn", 4)),
    ],
)
def test_a_cut_that_would_flap_becomes_the_largest_one_that_does_not(
    cut: int, cpu: float, expected: tuple[str, int]
) -> None:
    assert result(profile(out(50), into(30, cut)), measured(*[cpu] * 5), 5) == expected


def test_an_adjusted_cut_says_what_it_avoids() -> None:
    decision = decide(profile(out(50), into(30, 4)), measured(*[12.0] * 5), 5, None, NOON)
    assert isinstance(decision, Decision)
    assert decision.reason == (
        f"{CPU} Average over 1 min is 12, LessThan 30: 5 -> 2 and not 1, where {CPU} would be 60, GreaterThan 50; "
        "cooldown 1 min"
    )


def test_every_out_rule_is_projected() -> None:
    setting = profile(out(90), out(50, metric=MEMORY), into(30))
    assert result(setting, measured(10, 10, memory=20), 2) == ("ScaleIn", 1)
    assert result(setting, measured(10, 10, memory=30), 2) == ("Flapping", 2)


@pytest.mark.parametrize(("cpu", "expected"), [(0.0, ("ScaleIn", 0)), (0.1, ("Flapping", 1))])
def test_the_last_instance_goes_only_when_nothing_is_left_to_do(cpu: float, expected: tuple[str, int]) -> None:
    assert result(profile(out(50), into(30), minimum=0, default=0), measured(cpu), 1) == expected


# What there is to decide about


@pytest.mark.parametrize(
    ("observed", "last", "expected"),
    [
        (None, None, 3),  # nothing but the specification
        (4, None, 4),
        (None, decided(2), 2),
        (1, decided(2, ago=1), 2),  # on its way
        (2, decided(2, ago=1), 2),
        (1, decided(2, ago=OBSERVED_WITHIN.total_seconds()), 1),  # somebody else's doing, or lost: decide again
        (5, decided(2), 5),
    ],
)
def test_the_count_that_is_decided_about(observed: int | None, last: ScaleDecision | None, expected: int) -> None:
    assert current_count(observed, 3, last, NOON) == expected


def test_a_reason_tells_the_rule_the_value_the_window_the_change_and_the_cooldown() -> None:
    setting = profile(out(50, cooldown=90, time_aggregation="Maximum", divide_per_instance=True))
    decision = decide(setting, measured(160, 160), 2, None, NOON)
    assert isinstance(decision, Decision)
    assert decision.reason == f"{CPU} per instance Maximum over 1 min is 80, GreaterThan 50: 2 -> 3; cooldown 90 s"


def test_a_hold_tells_what_it_waits_for() -> None:
    held = decide(profile(out(50)), measured(90), 1, decided(1, ago=10, cooldown=60), NOON)
    assert held == Hold("Cooldown", f"{CPU} Average over 1 min is 90, GreaterThan 50: waits until 12:00:50 UTC")
    assert decide(profile(out(50), into(30)), measured(40), 1, None, NOON) == Hold(
        "Steady",
        f"{CPU} Average over 1 min is 40, not GreaterThan 50; {CPU} Average over 1 min is 40, not LessThan 30",
    )
