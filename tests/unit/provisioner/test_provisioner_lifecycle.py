"""The life of an instance as its table says, and the waits between the lives of a place."""

from datetime import UTC, datetime

import pytest

from contracts.messages import DeploymentError
from provisioner.core.lifecycle import LIFECYCLE, PROVEN, Deaths, Event, IllegalEvent, Instance, Phase, Place

PLACE = Place("shop", "blue", 3, 0)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ERROR = DeploymentError(code="UserScriptInitFailed", message="x")


def instance(phase: Phase) -> Instance:
    return Instance("i", PLACE, "127.0.0.1:1", NOON, phase, since=5.0)


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("event", Event)
def test_an_event_leads_where_the_table_says_and_any_other_raises(phase: Phase, event: Event) -> None:
    before = instance(phase)
    if event in LIFECYCLE[phase]:
        after = before.after(event, 9.0)
        since = 5.0 if {phase, after.phase} <= set(PROVEN) else 9.0
        assert (after.phase, after.since, after.place) == (LIFECYCLE[phase][event], since, PLACE)
    else:
        with pytest.raises(IllegalEvent, match=f"i is {phase}"):
            before.after(event, 9.0)
        assert before == instance(phase)


def test_an_instance_that_may_get_traffic_is_never_stopped_before_it_was_drained() -> None:
    for phase in PROVEN:
        assert Event.STOP not in LIFECYCLE[phase]


def test_how_long_an_instance_was_ready_counts_from_the_first_time() -> None:
    starting = instance(Phase.STARTING)
    assert starting.ready_seconds(99.0) is None
    ready = starting.after(Event.HEALTHY, 10.0)
    hung = ready.after(Event.UNHEALTHY, 50.0)
    back = hung.after(Event.HEALTHY, 70.0)
    assert [each.ready_seconds(80.0) for each in (ready, hung, back)] == [70.0, 70.0, 70.0]
    assert hung.live, "it is not replaced for that"
    assert back.after(Event.DRAIN, 90.0).ready_seconds(95.0) is None


def test_every_phase_but_the_last_can_end_and_every_phase_is_reached() -> None:
    assert all(Event.EXITED in events for phase, events in LIFECYCLE.items() if phase is not Phase.GONE)
    reached = {phase for events in LIFECYCLE.values() for phase in events.values()}
    assert reached == set(Phase) - {Phase.STARTING}


def waits(*lives: float | None) -> list[float]:
    """The waits after deaths of instances that were ready for so long (None: never)."""
    record, told = None, []
    for ready_seconds in lives:
        record = Deaths.after(record, ready_seconds, 100.0, ERROR)
        told.append(record.retry_at - 100.0)
        assert record.failing == (told[-1] > 0)
    return told


@pytest.mark.parametrize(
    ("lives", "expected"),
    [
        # One that never gets ready waits from the first time on, twice as long each time, a minute at most.
        ([None] * 9, [1, 2, 4, 8, 16, 32, 60, 60, 60]),
        # One that was ready is replaced at once; only when it goes on dying it waits.
        ([5.0] * 5, [0, 1, 2, 4, 8]),
        # A minute of health makes the next death an accident again.
        ([5.0, 5.0, 60.0, 5.0], [0, 1, 0, 1]),
        ([5.0, 5.0, 59.9], [0, 1, 2]),
        ([None, None, 3600.0, 3600.0], [1, 2, 0, 0]),
        ([3600.0, None, None], [0, 2, 4]),
    ],
)
def test_waits_after_deaths(lives: list[float | None], expected: list[float]) -> None:
    assert waits(*lives) == expected


def test_a_place_has_proven_itself_once_an_instance_of_it_was_ready() -> None:
    never = Deaths.after(None, None, 0, ERROR)
    once = Deaths.after(never, 1.0, 0, ERROR)
    assert (never.proven, once.proven, Deaths.after(once, None, 0, ERROR).proven) == (False, True, True)
