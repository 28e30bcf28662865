"""Replays change nothing: whatever is repeated, however it is cut into batches, wherever metering is killed."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from contracts.catalog import load_catalog
from contracts.envelope import Record, Undecodable
from contracts.messages import INSTANCE_TIME, Message, UsageRecorded, UsageRollup
from metering.ledger import UsageLedger

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CATALOG = load_catalog()
DEPLOYMENTS = ("blue", "green")
SOURCES = ("router-1", "provisioner-1")
METERS = ("requests", f"{INSTANCE_TIME}Standard_DS1_v2", f"{INSTANCE_TIME}Standard_F2s_v2")


step = st.tuples(
    st.sampled_from((0, 0, 0, 1)),  # epochs on: a restart
    st.sampled_from((1, 1, 1, 2, 4)),  # numbers on: more than one is a loss
    st.sampled_from((0, 20, 60)),  # minutes on
    st.dictionaries(st.sampled_from(METERS), st.integers(0, 10**12), min_size=1),
    st.booleans(),  # whether more follows, if it is not killed
)


def series(
    deployment: str, source: str, steps: Sequence[tuple[int, int, int, dict[str, int], bool]]
) -> list[UsageRecorded]:
    """One source's records of one deployment, in order."""
    events = []
    epoch, sequence, at = 1, 0, NOON
    for restarts, numbers, minutes, quantities, open in steps:
        epoch, sequence = epoch + restarts, (0 if restarts else sequence) + numbers
        at += timedelta(minutes=minutes)
        events.append(
            UsageRecorded(
                source=source,
                epoch=epoch,
                sequence=sequence,
                endpoint="diabetes",
                deployment=deployment,
                started_at=at,
                ended_at=at + timedelta(seconds=1),
                quantities=quantities,
                open=open,
            )
        )
    return events


@st.composite
def logs(draw: st.DrawFn) -> list[UsageRecorded]:
    """All series in one log: each in its own order, otherwise mixed, and records repeated any time later."""
    waiting = {
        (deployment, source): series(deployment, source, draw(st.lists(step, max_size=6)))
        for deployment in DEPLOYMENTS
        for source in SOURCES
    }
    turns = draw(st.permutations([name for name, events in waiting.items() for _ in events]))
    log = [waiting[name].pop(0) for name in turns]
    for first, later in draw(st.lists(st.tuples(st.integers(0), st.integers(0)), max_size=6)) if log else []:
        index = first % len(log)
        log.insert(index + 1 + later % (len(log) - index), log[index])
    return log


class Bus:
    """What the processor does for a ledger: batches, transactions, and a crash before any of them is committed."""

    def __init__(self, log: list[UsageRecorded]):
        self.log = log
        self.offset = 0
        self.state: list[bytes] = []
        self.ledger = self._restored()

    def _restored(self) -> UsageLedger:
        ledger = UsageLedger(CATALOG, NOON)
        for value in self.state:
            ledger.restore(UsageRollup.model_validate_json(value))
        return ledger

    def turn(self, size: int, crash: bool, restart: bool) -> None:
        """One batch of at most `size` records; after a crash nothing of it was written."""
        events = self.log[self.offset : self.offset + size]
        batch: list[tuple[Record, Message]] = [
            (Record("usage.events", 0, self.offset + index, event.key(), None), event)
            for index, event in enumerate(events)
        ]
        results = self.ledger.process(batch, NOON)
        if not crash:
            assert not [result for result in results if isinstance(result, Undecodable)]
            written = [result for result in results if isinstance(result, UsageRollup)]
            assert len({rollup.key() for rollup in written}) == len(written)
            self.state += [rollup.model_dump_json().encode() for rollup in written]
            self.offset += len(events)
        if crash or restart:
            self.ledger = self._restored()

    def rollups(self) -> dict[str, UsageRollup]:
        rollups = [UsageRollup.model_validate_json(value) for value in self.state]
        return {rollup.key(): rollup for rollup in rollups}


def expected(log: list[UsageRecorded]) -> dict[str, tuple[dict[str, int], int]]:
    """Quantities and lost records of each rollup, counted in the plainest way."""
    quantities: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    lost: dict[str, int] = defaultdict(int)
    last: dict[tuple[str, str], tuple[int, int, bool]] = defaultdict(lambda: (0, 0, False))
    for event in dict.fromkeys(event.model_dump_json() for event in log):
        once = UsageRecorded.model_validate_json(event)
        key = f"diabetes/{once.deployment}/{once.started_at:%Y-%m-%dT%HZ}"
        for meter, quantity in once.quantities.items():
            quantities[key][meter] += quantity
        epoch, sequence, open = last[once.deployment, once.source]
        lost[key] += once.sequence - 1 - (sequence if once.epoch == epoch else -open)
        last[once.deployment, once.source] = once.epoch, once.sequence, once.open
    return {key: (dict(meters), lost[key]) for key, meters in quantities.items()}


@given(
    log=logs(), turns=st.lists(st.tuples(st.integers(1, 6), st.sampled_from(("go on", "crash", "restart"))), min_size=1)
)
def test_any_mixture_repetition_batching_and_crash_gives_the_same_rollups(
    log: list[UsageRecorded], turns: list[tuple[int, str]]
) -> None:
    bus = Bus(log)
    for size, event in turns:
        bus.turn(size, crash=event == "crash", restart=event == "restart")
    bus.turn(len(log), crash=False, restart=True)
    # The group's offset is set back to the beginning, and everything comes again.
    bus.offset = 0
    again = len(bus.state)
    bus.turn(len(log), crash=False, restart=False)
    assert len(bus.state) == again

    rollups = bus.rollups()
    assert {key: (rollup.quantities, rollup.lost) for key, rollup in rollups.items()} == expected(log)
    # Parts add up to the whole, to the last digit, whichever way they are added.
    whole = sum((rollup.cost for rollup in rollups.values()), Decimal(0))
    by_deployment = [
        sum((rollup.cost for rollup in rollups.values() if rollup.deployment == name), Decimal(0))
        for name in DEPLOYMENTS
    ]
    by_meter = [
        sum((rollup.costs.get(meter, Decimal(0)) for rollup in rollups.values()), Decimal(0)) for meter in METERS
    ]
    assert whole == sum(by_deployment, Decimal(0)) == sum(by_meter, Decimal(0))
    for rollup in rollups.values():
        assert rollup.costs == {meter: CATALOG.cost(meter, amount) for meter, amount in rollup.quantities.items()}
