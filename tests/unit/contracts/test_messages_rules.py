"""Rules that a message's own fields hold."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from pydantic import ValidationError

from contracts.catalog import Catalog, InstanceType, load_catalog
from contracts.messages import (
    AssetReference,
    AutoscaleSetting,
    CreateEndpoint,
    OnlineEndpointSpec,
    ScaleProfile,
    UpdateEndpoint,
    UsageRecorded,
    UsageRollup,
    Watermark,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("name", ["abc", "a-b", "A1b", "x" * 32, "d1-"[:2] + "2"])
def test_names_that_azure_takes(name: str) -> None:
    assert CreateEndpoint(endpoint=name, spec=OnlineEndpointSpec()).key() == name


@pytest.mark.parametrize("name", ["", "ab", "x" * 33, "1ab", "-ab", "ab-", "a_b", "a.b", "äbc", "abc\n"])
def test_names_that_azure_refuses(name: str) -> None:
    with pytest.raises(ValidationError):
        CreateEndpoint(endpoint=name, spec=OnlineEndpointSpec())


@pytest.mark.parametrize("traffic", [{"blue": 101}, {"blue": -1}, {"1x": 100}, {"blue": 50.5}])
def test_a_percentage_is_a_whole_number_from_0_to_100_of_a_deployment(traffic: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        UpdateEndpoint.model_validate({"endpoint": "diabetes", "traffic": traffic})


@pytest.mark.parametrize(
    "reference",
    [{}, {"path": "/m", "id": "azureml:m:1"}, {"id": "m:1"}, {"id": "azureml:m"}, {"id": "azureml:m@first"}],
)
def test_a_model_is_either_a_path_or_a_registered_version(reference: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        AssetReference.model_validate(reference)


def usage(start: datetime, end: datetime) -> UsageRecorded:
    return UsageRecorded(
        source="s", epoch=1, sequence=1, endpoint="diabetes", deployment="blue",
        started_at=start, ended_at=end, quantities={"requests": 1},
    )  # fmt: skip


def test_a_usage_interval_may_end_at_the_hour_but_not_cross_it() -> None:
    usage(NOON, NOON + timedelta(hours=1))
    with pytest.raises(ValidationError, match="cut it at the hour"):
        usage(NOON + timedelta(minutes=59), NOON + timedelta(hours=1, microseconds=1))
    with pytest.raises(ValidationError, match="must not be before"):
        usage(NOON, NOON - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("capacity", "valid"),
    [((1, 2, 1), True), ((0, 1, 0), True), ((2, 1, 1), False), ((1, 3, 4), False), ((2, 3, 1), False)],
)
def test_an_autoscale_capacity_is_ordered(capacity: tuple[int, int, int], valid: bool) -> None:
    names = ("minimum", "maximum", "default")
    setting = {"profiles": [{"name": "default", "capacity": dict(zip(names, capacity, strict=True))}]}
    if valid:
        AutoscaleSetting.model_validate(setting)
    else:
        with pytest.raises(ValidationError):
            AutoscaleSetting.model_validate(setting)


def test_an_autoscale_rule_reads_the_same_in_both_spellings() -> None:
    capacity = {"minimum": 1, "maximum": 2, "default": 1}
    azure = {
        "metricTrigger": {
            "metricName": "RequestsPerMinute",
            "timeGrain": "PT1M",
            "timeWindow": "PT5M",
            "operator": "GreaterThan",
            "threshold": 1,
        },
        "scaleAction": {"direction": "Increase", "value": 1, "cooldown": "PT1M"},
    }
    [ours] = AutoscaleSetting.model_validate(
        {"profiles": [{"name": "default", "capacity": capacity, "rules": [azure]}]}
    ).profiles
    assert ours.rules[0].metric_trigger.time_window == timedelta(minutes=5)
    assert ScaleProfile.model_validate_json(ours.model_dump_json()) == ours
    assert '"metric_trigger"' in ours.model_dump_json()


CATALOG = Catalog(
    currency="EUR",
    instance_types={"small": InstanceType(vcpus=1, memory_gib=1, price_per_hour=Decimal("0.10"))},
    price_per_million_requests=Decimal("0.30"),
)


@pytest.mark.parametrize(
    ("meter", "quantity", "cost"),
    [
        ("instance-time/small", 3_600_000_000, "0.100000000000"),
        ("instance-time/small", 1_000_000, "0.000027777778"),
        ("instance-time/small", 0, "0.000000000000"),
        ("requests", 1, "0.000000300000"),
        ("requests", 10_000_000, "3.000000000000"),
    ],
)
def test_a_cost_is_quantity_times_price_rounded_to_twelve_decimals(meter: str, quantity: int, cost: str) -> None:
    assert f"{CATALOG.cost(meter, quantity):f}" == cost


@pytest.mark.parametrize("meter", ["instance-time/huge", "gpu-time", ""])
def test_a_meter_without_a_price_is_an_error_not_zero(meter: str) -> None:
    with pytest.raises(KeyError):
        CATALOG.cost(meter, 1)


def test_the_catalogue_that_comes_along_has_the_default_instance_type() -> None:
    assert load_catalog().instance_types["Standard_DS1_v2"].vcpus == 1


def test_a_rollup_costs_the_sum_of_its_meters() -> None:
    costs = {"requests": Decimal("0.1"), "instance-time/small": Decimal("0.2")}
    rollup = UsageRollup(
        endpoint="diabetes", deployment="blue", hour=NOON, quantities={}, costs=costs, currency="EUR",
        sources={"s": Watermark(epoch=1, sequence=1)},
    )  # fmt: skip
    assert rollup.cost == Decimal("0.3")
    assert rollup.key() == "diabetes/blue/2026-11-01T12Z"
