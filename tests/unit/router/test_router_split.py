"""After any N requests each deployment has its share, give or take less than one."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.split import Split, sequence


@st.composite
def splits(draw: st.DrawFn) -> dict[str, int]:
    """Any whole percentages that sum to 100, over 1 to 20 deployments, zeros too."""
    cuts = sorted(draw(st.lists(st.integers(0, 100), min_size=0, max_size=19)))
    return {f"d{at:02}": high - low for at, (low, high) in enumerate(zip([0, *cuts], [*cuts, 100], strict=True))}


def worst_deviation(traffic: dict[str, int], picks: tuple[str, ...]) -> Fraction:
    """The largest distance of any count from its share, after any number of picks."""
    total = sum(traffic.values())
    served = Counter[str]()
    worst = Fraction(0)
    for turn, pick in enumerate(picks, 1):
        served[pick] += 1
        worst = max(worst, *(abs(Fraction(weight * turn, total) - served[name]) for name, weight in traffic.items()))
    return worst


@given(splits())
def test_after_any_number_of_requests_each_deployment_is_within_one_of_its_share(traffic: dict[str, int]) -> None:
    positive = sum(weight > 0 for weight in traffic.values())
    bound = 1 - Fraction(1, 2 * positive - 2) if positive > 1 else 0
    assert worst_deviation(traffic, sequence(traffic)) <= bound


@given(splits())
def test_one_period_is_exact_so_the_bound_holds_for_ever(traffic: dict[str, int]) -> None:
    picks = sequence(traffic)
    assert 100 % len(picks) == 0
    served = Counter(picks)
    assert {name: served[name] * 100 // len(picks) for name in traffic} == traffic


def test_a_split_that_smooth_weighted_round_robin_gets_wrong() -> None:
    traffic = {f"d{at}": weight for at, weight in enumerate((2, 1, 26, 3, 21, 15, 15, 1, 1, 15))}
    current = dict.fromkeys(traffic, 0)
    smooth = []
    for _ in range(100):
        current = {name: current[name] + weight for name, weight in traffic.items()}
        pick = max(current, key=lambda name: current[name])
        current[pick] -= 100
        smooth.append(pick)
    assert worst_deviation(traffic, tuple(smooth)) > 1
    assert worst_deviation(traffic, sequence(traffic)) < 1


def test_a_thousand_requests_at_90_10() -> None:
    split = Split({"blue": 90, "green": 10})
    assert Counter(split.next() for _ in range(1000)) == {"blue": 900, "green": 100}


def test_small_shares_are_spread_out() -> None:
    assert sequence({"blue": 90, "green": 10}) == ("blue",) * 5 + ("green",) + ("blue",) * 4


@pytest.mark.parametrize("traffic", [{}, {"blue": 0}, {"blue": 0, "green": 0}])
def test_without_a_positive_weight_nobody_is_picked(traffic: dict[str, int]) -> None:
    assert Split(traffic).next() is None


def test_the_whole_weight_is_everybody() -> None:
    assert sequence({"blue": 100, "green": 0}) == ("blue",)
