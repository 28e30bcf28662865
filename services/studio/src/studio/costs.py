"""Usage rollups as one tree of costs: endpoint, deployment, meter.

PURE: messages in, values out. No clock, no I/O, no web framework. Money stays decimal: a rollup's costs are rounded
once, by metering, and everything above them is a sum, so the parts add up to the whole to the last digit.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

from contracts.messages import INSTANCE_TIME, REQUESTS, UsageRollup

_MICROSECONDS = 1_000_000


class MixedCurrencies(ValueError):
    """The rollups are in several currencies, which do not add up; `args[0]` names them, sorted."""


def cost_tree(
    rollups: Iterable[UsageRollup],
    since: datetime | None = None,
    until: datetime | None = None,
    currency: str | None = None,
) -> dict[str, Any]:
    """The costs of the hours that begin at or after `since` and before `until`.

    {"currency", "total", "requests", "instance_seconds", "lost", "endpoints": [{"endpoint", "cost", "requests",
    "instance_seconds", "lost", "deployments": [{"deployment", "cost", …, "meters": {meter: {"quantity", "cost"}}}]}]}.
    Amounts and seconds are decimal text; the currency is None when there is nothing. Raises MixedCurrencies unless
    there is one currency or `currency` picks one.
    """
    chosen = [
        rollup
        for rollup in rollups
        if (since is None or rollup.hour >= since)
        and (until is None or rollup.hour < until)
        and (currency is None or rollup.currency == currency)
    ]
    currencies = sorted({rollup.currency for rollup in chosen})
    if len(currencies) > 1:
        raise MixedCurrencies(currencies)
    by_deployment: dict[str, dict[str, list[UsageRollup]]] = defaultdict(lambda: defaultdict(list))
    for rollup in chosen:
        by_deployment[rollup.endpoint][rollup.deployment].append(rollup)
    endpoints = [
        {
            "endpoint": endpoint,
            **_totals([rollup for hours in deployments.values() for rollup in hours]),
            "deployments": [
                {"deployment": deployment, **_totals(hours), "meters": _meters(hours)}
                for deployment, hours in sorted(deployments.items())
            ],
        }
        for endpoint, deployments in sorted(by_deployment.items())
    ]
    totals = _totals(chosen)
    return {
        "currency": currencies[0] if currencies else currency,
        "total": totals.pop("cost"),
        **totals,
        "endpoints": endpoints,
    }


def _totals(rollups: list[UsageRollup]) -> dict[str, Any]:
    microseconds = sum(
        quantity
        for rollup in rollups
        for meter, quantity in rollup.quantities.items()
        if meter.startswith(INSTANCE_TIME)
    )
    return {
        "cost": _text(sum((rollup.cost for rollup in rollups), Decimal(0))),
        "requests": sum(rollup.quantities.get(REQUESTS, 0) for rollup in rollups),
        "instance_seconds": _text(Decimal(microseconds) / _MICROSECONDS),
        "lost": sum(rollup.lost for rollup in rollups),
    }


def _meters(rollups: list[UsageRollup]) -> dict[str, dict[str, Any]]:
    meters = sorted({meter for rollup in rollups for meter in (*rollup.quantities, *rollup.costs)})
    return {
        meter: {
            "quantity": sum(rollup.quantities.get(meter, 0) for rollup in rollups),
            "cost": _text(sum((rollup.costs.get(meter, Decimal(0)) for rollup in rollups), Decimal(0))),
        }
        for meter in meters
    }


def _text(amount: Decimal) -> str:
    """Plain digits, never an exponent."""
    return f"{amount:f}"
