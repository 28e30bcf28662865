"""The ledger as tables: what counts, what is a duplicate, what is lost, what is late, and what it costs."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from contracts.catalog import Catalog, InstanceType
from contracts.envelope import Record, Undecodable
from contracts.messages import INSTANCE_TIME, UsageRecorded, UsageRollup, Watermark
from metering.ledger import HORIZON, UsageLedger

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DS1 = f"{INSTANCE_TIME}Standard_DS1_v2"
CATALOG = Catalog(
    currency="EUR",
    instance_types={"Standard_DS1_v2": InstanceType(vcpus=1, memory_gib=3.5, price_per_hour=Decimal("0.073"))},
    price_per_million_requests=Decimal("0.2"),
)


def used(
    sequence: int,
    quantities: Mapping[str, int] | None = None,
    *,
    at: datetime = NOON,
    epoch: int = 1,
    source: str = "router-1",
    deployment: str = "blue",
    open: bool = False,
) -> UsageRecorded:
    return UsageRecorded(
        source=source,
        epoch=epoch,
        sequence=sequence,
        endpoint="diabetes",
        deployment=deployment,
        started_at=at,
        ended_at=at + timedelta(seconds=5),
        quantities=dict(quantities or {"requests": 1}),
        open=open,
    )


def ledger(now: datetime = NOON, catalog: Catalog = CATALOG) -> UsageLedger:
    return UsageLedger(catalog, now)


def process(ledger: UsageLedger, *events: UsageRecorded, now: datetime = NOON) -> list[UsageRollup | Undecodable]:
    batch = [
        (Record(event.TOPIC, 0, offset, event.key(), event.model_dump_json().encode()), event)
        for offset, event in enumerate(events)
    ]
    results: list[UsageRollup | Undecodable] = []
    for result in ledger.process(batch, now):
        assert isinstance(result, UsageRollup | Undecodable)
        results.append(result)
    return results


def only_rollup(ledger: UsageLedger, *events: UsageRecorded, now: datetime = NOON) -> UsageRollup:
    [rollup] = process(ledger, *events, now=now)
    assert isinstance(rollup, UsageRollup)
    return rollup


def test_a_batch_makes_one_rollup_for_each_deployment_and_hour_that_it_touches() -> None:
    rollups = process(
        ledger(),
        used(1, {"requests": 3}),
        used(2, {"requests": 4, DS1: 5_000_000}),
        used(1, {"requests": 7}, deployment="green"),
        used(3, {"requests": 1}, at=NOON + HOUR),
    )
    assert {rollup.key(): rollup.quantities for rollup in rollups if isinstance(rollup, UsageRollup)} == {
        "diabetes/blue/2026-11-01T12Z": {"requests": 7, DS1: 5_000_000},
        "diabetes/green/2026-11-01T12Z": {"requests": 7},
        "diabetes/blue/2026-11-01T13Z": {"requests": 1},
    }


def test_a_later_batch_adds_to_the_same_rollup_and_untouched_ones_are_not_written_again() -> None:
    books = ledger()
    process(books, used(1), used(1, deployment="green"))
    assert only_rollup(books, used(2)).quantities == {"requests": 2}


@pytest.mark.parametrize(
    ("arrivals", "requests", "lost"),
    [
        ([(1, 1), (1, 2), (1, 3)], 3, 0),
        ([(1, 1), (1, 2), (1, 2), (1, 1)], 2, 0),  # repeated
        ([(1, 1), (1, 4)], 2, 2),  # 2 and 3 are missing
        ([(1, 3)], 1, 2),  # the first two are missing
        ([(1, 1), (1, 2), (7, 1), (7, 2)], 4, 0),  # the restart of a source that stopped is no loss
        ([(1, 1), (7, 3)], 2, 2),  # but its first records may be lost
        ([(1, 1), (7, 1), (1, 1), (1, 2)], 2, 0),  # what is not beyond the watermark counts no second time
        ([(1, 1), (1, 3), (1, 2)], 2, 1),  # 2 was told as lost, and stays so
    ],
)
def test_records_of_one_source_in_one_hour(arrivals: list[tuple[int, int]], requests: int, lost: int) -> None:
    rollup = only_rollup(ledger(), *(used(sequence, epoch=epoch) for epoch, sequence in arrivals))
    assert (rollup.quantities["requests"], rollup.lost) == (requests, lost)
    assert rollup.sources == {
        "router-1": Watermark(epoch=max(arrivals)[0], sequence=max(arrivals)[1]),
    }


@pytest.mark.parametrize(
    ("arrivals", "lost"),
    [
        ([(1, 1, True), (1, 2, False), (7, 1, True)], 0),  # it was stopped
        ([(1, 1, True), (1, 2, True)], 0),  # it goes on
        ([(1, 1, True), (7, 1, True)], 1),  # it was killed
        ([(1, 1, True), (7, 3, True)], 3),  # and what came next is lost as well
        ([(1, 1, True), (7, 1, True), (9, 1, True)], 2),  # it was killed twice
        ([(1, 1, True), (7, 1, True), (1, 2, False)], 1),  # its last word came too late
        ([(1, 1, True), (7, 1, True), (1, 1, True), (7, 1, True)], 1),  # repeated
        ([(1, 2, True), (1, 1, True), (7, 1, False)], 2),
    ],
)
@pytest.mark.parametrize("restarts", [False, True])
def test_a_source_that_was_killed_is_one_interval_that_is_missing(
    arrivals: list[tuple[int, int, bool]], lost: int, restarts: bool
) -> None:
    books, rollup = ledger(), None
    for epoch, sequence, open in arrivals:
        if rollup is not None and restarts:
            books = ledger()
            books.restore(UsageRollup.model_validate_json(rollup.model_dump_json()))
        told = process(books, used(sequence, epoch=epoch, open=open))
        rollup = told[0] if told else rollup
    assert isinstance(rollup, UsageRollup)
    assert rollup.lost == lost


def test_a_kill_shows_in_the_hour_in_which_the_source_is_heard_again() -> None:
    books = ledger()
    before = only_rollup(books, used(1, open=True), used(1, source="other", open=True))
    after = only_rollup(
        books, used(1, epoch=7, at=NOON + HOUR), used(2, source="other", at=NOON + HOUR), now=NOON + HOUR
    )
    assert (before.lost, after.lost, books.tally.lost) == (0, 1, 1)


def test_sources_do_not_disturb_each_other() -> None:
    rollup = only_rollup(ledger(), used(1), used(1, source="router-2"), used(2, source="router-2"), used(2))
    assert (rollup.quantities["requests"], rollup.lost) == (4, 0)
    assert set(rollup.sources) == {"router-1", "router-2"}


def test_sequences_go_on_across_hours_and_a_gap_is_told_by_the_rollup_of_the_record_that_shows_it() -> None:
    first, second, third = process(
        ledger(), used(1), used(2, at=NOON + HOUR), used(5, at=NOON + 2 * HOUR), now=NOON + 2 * HOUR
    )
    assert isinstance(first, UsageRollup)
    assert isinstance(second, UsageRollup)
    assert isinstance(third, UsageRollup)
    assert (first.lost, second.lost, third.lost) == (0, 0, 2)


def test_a_record_of_an_earlier_hour_that_was_not_counted_yet_counts_there() -> None:
    books = ledger()
    process(books, used(1), used(3, at=NOON + HOUR))
    rollup = only_rollup(books, used(2))
    assert (rollup.hour, rollup.quantities["requests"], rollup.lost) == (NOON, 2, 0)


def test_a_restored_ledger_goes_on_where_the_other_one_was() -> None:
    books = ledger()
    written = process(books, used(1), used(2), used(3, at=NOON + HOUR))
    restored = ledger()
    for rollup in written:
        assert isinstance(rollup, UsageRollup)
        restored.restore(UsageRollup.model_validate_json(rollup.model_dump_json()))
    following = [used(2), used(3, at=NOON + HOUR), used(6, at=NOON + HOUR)]
    assert process(restored, *following) == process(books, *following)


def test_a_deleted_rollup_begins_anew_and_its_sources_are_not_thought_to_have_lost_anything() -> None:
    books = ledger()
    process(books, used(1), used(2))
    books.forget("diabetes/blue/2026-11-01T12Z")
    rollup = only_rollup(books, used(3))
    assert (rollup.quantities["requests"], rollup.lost) == (1, 0)


@pytest.mark.parametrize("key", ["", "diabetes", "a/b/c", "a/b/c/d", "diabetes/green/2026-11-01T12Z"])
def test_deleting_what_is_no_rollup_changes_nothing(key: str) -> None:
    books = ledger()
    process(books, used(1))
    books.forget(key)
    assert only_rollup(books, used(2)).quantities == {"requests": 2}


def test_usage_older_than_the_horizon_is_parked_with_the_reason_and_a_duplicate_of_old_usage_is_dropped() -> None:
    books = ledger()
    process(books, used(1), used(2))
    later = NOON + HORIZON + HOUR
    assert only_rollup(books, used(3, at=later), now=later).quantities == {"requests": 1}
    [late] = process(books, used(2), used(4), now=later)
    assert isinstance(late, Undecodable)
    assert late.record.offset == 1
    [problem] = late.problems
    assert problem.field == "started_at"
    assert "older than 3 days" in problem.message
    assert (books.tally.duplicate, books.tally.late) == (1, 1)


def test_usage_at_the_horizon_still_counts() -> None:
    books = ledger()
    process(books, used(1))
    process(books, used(1, at=NOON + HORIZON, deployment="green"), now=NOON + HORIZON)
    assert only_rollup(books, used(2), now=NOON + HORIZON).quantities == {"requests": 2}


def test_after_an_outage_longer_than_the_horizon_nothing_is_late() -> None:
    books = ledger(now=NOON + 4 * HORIZON)
    rollups = process(
        books, *(used(number + 1, at=NOON + number * HOUR) for number in range(5)), now=NOON + 4 * HORIZON
    )
    assert [rollup.quantities for rollup in rollups if isinstance(rollup, UsageRollup)] == [{"requests": 1}] * 5


def test_a_clock_that_is_years_ahead_makes_nobody_elses_usage_late() -> None:
    books = ledger()
    process(books, used(1, at=NOON + timedelta(days=4000), source="wrong-clock"))
    assert only_rollup(books, used(1)).quantities == {"requests": 1}


def test_closed_hours_leave_the_memory_while_restoring_too() -> None:
    books = ledger(now=NOON + 400 * HORIZON)
    for day in range(400):
        rollup = only_rollup(ledger(), used(day + 1, at=NOON + day * timedelta(days=1)))
        books.restore(rollup)
    assert len(books._hours) == HORIZON.days + 1
    # The last number of the source is known all the same.
    assert only_rollup(books, used(401, at=NOON + timedelta(days=400)), now=NOON + timedelta(days=400)).lost == 0


def test_a_cost_is_quantity_times_price_rounded_once() -> None:
    rollup = only_rollup(ledger(), used(1, {"requests": 3, DS1: 1}), used(2, {"requests": 4, DS1: 1}))
    assert rollup.currency == "EUR"
    assert rollup.costs == {"requests": Decimal("0.000001400000"), DS1: Decimal("0.000000000041")}
    assert rollup.cost == Decimal("0.000001400041")


def test_a_meter_without_a_price_keeps_its_quantity_and_is_priced_when_the_catalogue_knows_it() -> None:
    books = ledger()
    gpu = f"{INSTANCE_TIME}Standard_NC6"
    rollup = only_rollup(books, used(1, {gpu: 3_600_000_000, "requests": 1_000_000, "bytes": 5}))
    assert rollup.quantities == {gpu: 3_600_000_000, "requests": 1_000_000, "bytes": 5}
    assert rollup.costs == {"requests": Decimal("0.2")}
    assert books.tally.unpriced == {gpu, "bytes"}

    types = {**CATALOG.instance_types, "Standard_NC6": InstanceType(vcpus=6, memory_gib=56, price_per_hour=Decimal(1))}
    restored = ledger(catalog=CATALOG.model_copy(update={"instance_types": types}))
    restored.restore(rollup)
    assert only_rollup(restored, used(2)).costs[gpu] == Decimal(1)


def test_the_largest_quantities_are_priced_exactly() -> None:
    books = ledger()
    most = 2**53 - 1
    rollup = only_rollup(books, *(used(number, {DS1: most}) for number in range(1, 2001)))
    exact = Decimal(2000 * most) * 73  # thousandths per 3.6e9 microseconds
    assert abs(rollup.costs[DS1] * 3_600_000_000_000 - exact) <= Decimal("1.8")
    assert rollup.cost.as_tuple().exponent == -12
