"""Who may start workers."""

from datetime import UTC, datetime, timedelta

import pytest

from batch_runner.room import Waiting, admitted

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


def job(name: str, workers: int, minute: int, fresh: bool = True) -> Waiting:
    return Waiting(fresh, NOON + timedelta(minutes=minute), name, workers)


@pytest.mark.parametrize(
    ("waiting", "used", "started"),
    [
        ([], 0, ""),
        ([job("a", 4, 0)], 0, "a"),
        ([job("a", 4, 0)], 1, ""),
        ([job("b", 2, 1), job("a", 2, 0)], 0, "ab"),
        ([job("b", 2, 1), job("a", 2, 0)], 2, "a"),
        # A small job does not overtake a large one that waits.
        ([job("large", 3, 0), job("small", 1, 1)], 2, ""),
        # What had begun before a restart comes first, though it is younger.
        ([job("old", 3, 0), job("begun", 3, 5, fresh=False)], 0, "begun"),
        ([job("y", 1, 0), job("x", 1, 0)], 3, "x"),
    ],
)
def test_jobs_start_in_order_and_only_where_there_is_room(waiting: list[Waiting], used: int, started: str) -> None:
    assert "".join(one.job for one in admitted(waiting, used, 4)) == started
