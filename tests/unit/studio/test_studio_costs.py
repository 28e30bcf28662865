"""Rollups to a tree of costs."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.messages import UsageRollup, Watermark
from studio.costs import MixedCurrencies, cost_tree

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
METER = "instance-time/Standard_DS1_v2"


def rollup(
    endpoint: str, deployment: str, hour: datetime = NOON, *,
    requests: int = 0, microseconds: int = 0, cost: str = "0", currency: str = "USD", lost: int = 0,
) -> UsageRollup:  # fmt: skip
    return UsageRollup(
        endpoint=endpoint,
        deployment=deployment,
        hour=hour,
        quantities={"requests": requests, METER: microseconds},
        costs={"requests": Decimal(0), METER: Decimal(cost)},
        currency=currency,
        lost=lost,
        sources={"s": Watermark(epoch=1, sequence=1)},
    )


def test_hours_sum_to_deployments_to_endpoints_to_the_total() -> None:
    tree = cost_tree(
        [
            rollup("diabetes", "green", requests=1, microseconds=1_500_000, cost="0.000000000003", lost=1),
            rollup("diabetes", "blue", requests=9, microseconds=1, cost="0.000000000001"),
            rollup("diabetes", "blue", NOON + timedelta(hours=1), requests=90, cost="1.5"),
            rollup("another", "blue", cost="2"),
        ]
    )
    blue_meters = {
        METER: {"quantity": 1, "cost": "1.500000000001"},
        "requests": {"quantity": 99, "cost": "0"},
    }
    green_meters = {
        METER: {"quantity": 1_500_000, "cost": "0.000000000003"},
        "requests": {"quantity": 1, "cost": "0"},
    }
    assert tree["currency"] == "USD"
    assert tree["total"] == "3.500000000004"
    assert tree["lost"] == 1
    another, diabetes = tree["endpoints"]
    assert (another["endpoint"], another["cost"]) == ("another", "2")
    assert (diabetes["endpoint"], diabetes["cost"], diabetes["requests"]) == ("diabetes", "1.500000000004", 100)
    assert diabetes["instance_seconds"] == "1.500001"
    assert diabetes["deployments"] == [
        {"deployment": "blue", "cost": "1.500000000001", "requests": 99, "instance_seconds": "0.000001", "lost": 0,
         "meters": blue_meters},
        {"deployment": "green", "cost": "0.000000000003", "requests": 1, "instance_seconds": "1.5", "lost": 1,
         "meters": green_meters},
    ]  # fmt: skip


def test_a_period_takes_the_hours_that_begin_in_it() -> None:
    hours = [rollup("diabetes", "blue", NOON + timedelta(hours=n), cost=str(10**n)) for n in range(4)]

    def total(since: datetime | None = None, until: datetime | None = None) -> Any:
        return cost_tree(hours, since, until)["total"]

    assert total() == "1111"
    assert total(NOON + timedelta(hours=1), NOON + timedelta(hours=3)) == "110"
    assert total(NOON + timedelta(minutes=1)) == "1110"
    assert total(None, NOON + timedelta(minutes=1)) == "1"


def test_nothing_costs_nothing_in_no_currency() -> None:
    assert cost_tree([]) == {
        "currency": None, "total": "0", "requests": 0, "instance_seconds": "0", "lost": 0, "endpoints": [],
    }  # fmt: skip


def test_currencies_are_not_added_up() -> None:
    rollups = [rollup("diabetes", "blue", cost="1"), rollup("diabetes", "green", cost="2", currency="EUR")]
    with pytest.raises(MixedCurrencies) as refused:
        cost_tree(rollups)
    assert refused.value.args[0] == ["EUR", "USD"]
    assert cost_tree(rollups, currency="EUR")["total"] == "2"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["one", "two"]),
            st.sampled_from(["blue", "green"]),
            st.decimals(0, 10**9, places=12),
        ),
        max_size=30,
    )
)
def test_parts_add_up_to_the_whole_to_the_last_digit(rows: list[tuple[str, str, Decimal]]) -> None:
    tree = cost_tree([rollup(e, d, NOON + timedelta(hours=n), cost=str(cost)) for n, (e, d, cost) in enumerate(rows)])
    assert Decimal(tree["total"]) == sum((cost for _, _, cost in rows), Decimal(0))
    assert Decimal(tree["total"]) == sum(Decimal(endpoint["cost"]) for endpoint in tree["endpoints"])
    for endpoint in tree["endpoints"]:
        assert Decimal(endpoint["cost"]) == sum(Decimal(part["cost"]) for part in endpoint["deployments"])
        for part in endpoint["deployments"]:
            assert Decimal(part["cost"]) == sum(Decimal(meter["cost"]) for meter in part["meters"].values())
