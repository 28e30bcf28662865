"""When worker processes are replaced, as timelines of their deaths."""

import pytest

from inference_server.deaths import WINDOW_SECONDS, Deaths


def waits(count: int, *times: float) -> list[float | None]:
    deaths = Deaths(count)
    return [deaths.wait_after(at) for at in times]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (2, [0, 0, 1, 2, 4, 8, None]),
        (3, [0, 0, 0, 1, 2, 4, 8, 16, 16, None]),
    ],
)
def test_replacements_that_die_too_wait_longer_and_are_given_up(count: int, expected: list[float | None]) -> None:
    assert waits(count, *range(len(expected))) == expected


def test_what_lies_back_is_forgotten() -> None:
    assert waits(2, 0, 0, 0, WINDOW_SECONDS - 1, WINDOW_SECONDS, WINDOW_SECONDS) == [0, 0, 1, 2, 0, 1]
    now_and_then = [number * WINDOW_SECONDS / 2 for number in range(20)]
    assert waits(2, *now_and_then) == [0] * 20
