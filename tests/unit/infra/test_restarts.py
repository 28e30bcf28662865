"""A service that dies is started again: at once-ish, then later and later, until it has lived for a minute."""

from endpunkt_infra.stack.restarts import Restarts


def test_the_wait_doubles_up_to_half_a_minute_while_it_keeps_dying() -> None:
    record, now, waits = Restarts().started(0), 1.0, []
    for _ in range(9):
        record, due = record.died(now)
        waits.append(due - now)
        now = due + 1
        record = record.started(due)
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_minute_of_life_clears_the_record() -> None:
    record, _ = Restarts().started(0).died(1)
    record, _ = record.started(2).died(3)
    assert record.deaths == 2
    record, due = record.started(10).died(70)
    assert (record.deaths, due) == (1, 70.5)
