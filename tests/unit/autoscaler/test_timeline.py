"""The autoscaler's day, second by second: samples come in, decisions show up in what is observed a little later."""

from datetime import UTC, datetime, timedelta

from autoscaler.decide import Decision, current_count, decide
from autoscaler.window import Window
from contracts.messages import (
    Capacity,
    LoadSample,
    MetricTrigger,
    ScaleAction,
    ScaleDecision,
    ScaleProfile,
    ScaleRule,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def rule(direction: str, operator: str, threshold: float) -> ScaleRule:
    return ScaleRule(
        metric_trigger=MetricTrigger.model_validate(
            {
                "metric_name": "RequestsPerMinute",
                "time_grain": timedelta(seconds=1),
                "time_window": timedelta(seconds=8),
                "operator": operator,
                "threshold": threshold,
            }
        ),
        scale_action=ScaleAction.model_validate(
            {"direction": direction, "type": "ChangeCount", "value": 1, "cooldown": timedelta(seconds=10)}
        ),
    )


# Above 50 requests a second one more, below 10 one less.
PROFILE = ScaleProfile(
    name="default",
    capacity=Capacity(minimum=1, maximum=3, default=1),
    rules=(rule("Increase", "GreaterThan", 3000), rule("Decrease", "LessThan", 600)),
)


class Day:
    """One deployment with two routers; `lag` seconds pass from a decision until the provisioner shows its count."""

    def __init__(self, lag: int = 3):
        self.lag = lag
        self.now = 0
        self.window = Window(600, NOON)
        self.last: ScaleDecision | None = None
        self.kinds: list[tuple[int, str, int]] = []

    def at(self, second: int) -> datetime:
        return NOON + timedelta(seconds=second)

    def observed(self) -> int:
        if self.last is None:
            return 1
        seen = self.last.decided_at + timedelta(seconds=self.lag) <= self.at(self.now)
        return self.last.instances if seen else self.last.previous

    def pass_until(self, second: int, load: int | None) -> int:
        """Let time pass with `load` requests a second (None: no router tells anything); the count at the end."""
        while self.now < second:
            if load is not None:
                for router, share in (("router-1", load // 2), ("router-2", load - load // 2)):
                    self.window.add(
                        LoadSample(
                            endpoint="diabetes", deployment="blue", source=router, at=self.at(self.now),
                            requests=share, failures=0, in_flight=0, latency_ms_sum=0, latency_ms_max=0,
                        )
                    )  # fmt: skip
            self.now += 1
            self.evaluate()
        return self.count()

    def evaluate(self) -> None:
        now, count = self.at(self.now), self.count()
        decision = decide(PROFILE, self.window, count, self.last, now)
        if isinstance(decision, Decision):
            self.kinds.append((self.now, decision.kind, decision.instances))
            self.last = ScaleDecision(
                endpoint="diabetes",
                deployment="blue",
                decided_at=now,
                previous=count,
                instances=decision.instances,
                kind=decision.kind,
                profile=PROFILE.name,
                reason=decision.reason,
                cooldown_until=decision.cooldown_until,
            )

    def count(self) -> int:
        return current_count(self.observed(), 1, self.last, self.at(self.now))

    def restart(self) -> None:
        """The window is gone; the log has the samples of the last seconds and the latest decision."""
        held = self.window
        self.window = Window(600, self.at(self.now))
        for source, ring in held.load.items():
            for second, requests, _ in ring.items():
                at = datetime.fromtimestamp(second, UTC)
                self.window.add(
                    LoadSample(
                        endpoint="diabetes", deployment="blue", source=source, at=at,
                        requests=int(requests), failures=0, in_flight=0, latency_ms_sum=0, latency_ms_max=0,
                    )
                )  # fmt: skip


def test_load_comes_stays_and_goes() -> None:
    day = Day()
    # A second is used when it is one second old: half of the window of eight is there at five.
    assert day.pass_until(4, load=80) == 1
    assert day.pass_until(5, load=80) == 2
    # Ten seconds of cooldown. Nothing is decided twice while the second instance is still on its way.
    assert day.pass_until(14, load=80) == 2
    assert day.pass_until(15, load=80) == 3
    # At the maximum.
    assert day.pass_until(60, load=80) == 3
    # It takes as long as it takes the mean over eight seconds to fall below ten a second.
    assert day.pass_until(68, load=0) == 3
    assert day.pass_until(69, load=0) == 2
    assert day.pass_until(78, load=0) == 2
    assert day.pass_until(79, load=0) == 1
    assert day.pass_until(600, load=0) == 1
    assert day.kinds == [(5, "ScaleOut", 2), (15, "ScaleOut", 3), (69, "ScaleIn", 2), (79, "ScaleIn", 1)]


def test_a_restart_keeps_the_cooldown_and_the_count() -> None:
    day = Day()
    assert day.pass_until(8, load=80) == 2
    day.restart()
    assert day.pass_until(14, load=80) == 2
    assert day.pass_until(15, load=80) == 3


def test_a_restart_after_a_silence_holds_until_the_window_tells() -> None:
    day = Day()
    assert day.pass_until(5, load=80) == 2
    day.pass_until(60, load=None)
    day.restart()
    assert day.pass_until(64, load=0) == 2
    assert day.pass_until(65, load=0) == 1
    assert day.kinds[1:] == [(65, "ScaleIn", 1)]


def test_routers_that_fall_silent_never_scale_in() -> None:
    day = Day()
    assert day.pass_until(5, load=80) == 2
    assert day.pass_until(7, load=0) == 2
    assert day.pass_until(600, load=None) == 2


def test_a_provisioner_that_is_slow_is_not_told_twice() -> None:
    day = Day(lag=40)
    day.pass_until(14, load=80)
    assert day.kinds == [(5, "ScaleOut", 2)]
    # The cooldown is over and the load is still there: from the two that were decided to three, not from the one seen.
    assert day.pass_until(15, load=80) == 3
