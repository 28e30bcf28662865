"""What must hold of usage and cost: all that was used is told once, all that is told is metered once.

Nothing here calls a core: what a core says is compared with what was seen, counted in the plainest way.
"""

from collections import Counter, defaultdict
from datetime import datetime, timedelta
from decimal import Decimal

from contracts.catalog import Catalog
from contracts.messages import INSTANCE_TIME, REQUESTS, UsageRecorded, UsageRollup, hour_of

from .machine import Machine

Key = tuple[str, str]
"""Endpoint and deployment."""

_MICROSECOND = timedelta(microseconds=1)


class Accounts:
    """Looks on; its checks raise AssertionError."""

    def __init__(self, catalog: Catalog):
        self.usage: dict[tuple[str, int, str, int], UsageRecorded] = {}
        """Distinct usage records by source, epoch, key and number."""
        self.rollups: dict[str, UsageRollup] = {}
        self.dropped = 0
        """Usage records that were dropped on purpose."""
        self.handed: Counter[tuple[int, str]] = Counter()
        """Requests that a model got, by the router's epoch and the deployment's key."""
        self.jobs_lived: Counter[Key] = Counter()
        """Microseconds that instances of batch jobs existed."""
        self.runner_restarted = False
        self._catalog = catalog
        self._ends: dict[str, tuple[datetime, datetime]] = {}
        self._perhaps_twice: Counter[Key] = Counter()

    def told(self, record: UsageRecorded) -> None:
        """A usage record was written, for the first time or again."""
        number = record.source, record.epoch, record.key(), record.sequence
        once = self.usage.setdefault(number, record)
        assert once == record, f"two usage records have one number: {once} and {record}"

    def rolled_up(self, rollup: UsageRollup) -> None:
        """A rollup was written."""
        before = self.rollups.get(rollup.key())
        if before is not None:
            shrunk = [meter for meter, n in before.quantities.items() if rollup.quantities.get(meter, 0) < n]
            assert not shrunk, f"{rollup.key()}: {shrunk} shrank from {before.quantities} to {rollup.quantities}"
            assert rollup.lost >= before.lost, f"{rollup.key()}: lost records were found again"
        costs = {meter: self._catalog.cost(meter, quantity) for meter, quantity in rollup.quantities.items()}
        assert rollup.costs == costs, f"{rollup.key()} costs {rollup.costs}, not {costs}"
        self.rollups[rollup.key()] = rollup

    def provisioner_restarted(self, machine: Machine, unnoted: list[UsageRecorded], now: datetime) -> None:
        """Of what has ended since the provisioner last noted what it told, it may have told nothing; what it had told
        and not noted yet, it may tell again."""
        for process in machine.processes.values():
            if not process.alive and process.id not in self._ends:
                end = process.noticed_at or now
                self._ends[process.id] = min(machine.told_to or process.started_at, end), end
        for record in unnoted:
            self._perhaps_twice[record.endpoint, record.deployment] += _microseconds(record)

    # At rest

    def check(self, machine: Machine, epoch: int) -> None:
        """Everything is told and metered; `epoch` is that of the router which runs."""
        self._check_metering()
        self._check_costs()
        if not self.dropped:
            self._check_requests(epoch)
            self._check_instance_time(machine)
            self._check_job_time()

    def _check_metering(self) -> None:
        quantities: dict[str, Counter[str]] = defaultdict(Counter)
        for (_, _, key, _), record in self.usage.items():
            quantities[f"{key}/{hour_of(record.started_at):%Y-%m-%dT%HZ}"].update(record.quantities)
        metered = {key: Counter(rollup.quantities) for key, rollup in self.rollups.items()}
        assert metered == quantities, f"metered {metered}, told {dict(quantities)}"
        lost = sum(rollup.lost for rollup in self.rollups.values())
        skipped, cut = self._missing()
        assert lost == skipped + cut, f"{lost} records are called lost, {skipped} are missing and {cut} ends"
        assert skipped <= self.dropped, f"{skipped} records are missing, {self.dropped} were dropped"

    def _missing(self) -> tuple[int, int]:
        """How many numbers nobody told, and how many epochs ended without a last word and were followed by another."""
        told: dict[tuple[str, str], dict[int, dict[int, bool]]] = defaultdict(lambda: defaultdict(dict))
        for (source, epoch, key, number), record in self.usage.items():
            told[source, key][epoch][number] = record.open
        skipped = sum(max(numbers) - len(numbers) for epochs in told.values() for numbers in epochs.values())
        cut = sum(epochs[each][max(epochs[each])] for epochs in told.values() for each in sorted(epochs)[:-1])
        return skipped, cut

    def _check_costs(self) -> None:
        """The parts are the whole, to the last digit."""
        whole = sum((rollup.cost for rollup in self.rollups.values()), Decimal(0))
        parts: dict[Key, Decimal] = defaultdict(Decimal)
        for rollup in self.rollups.values():
            for cost in rollup.costs.values():
                parts[rollup.endpoint, rollup.deployment] += cost
        assert sum(parts.values(), Decimal(0)) == whole, f"{dict(parts)} do not sum to {whole}"

    def _check_requests(self, epoch: int) -> None:
        """Each request that a model got is told once; a router that is killed takes its last interval with it, and
        whoever hears the next one can tell."""
        told: Counter[tuple[int, str]] = Counter()
        for (_, of_epoch, key, _), record in self.usage.items():
            told[of_epoch, key] += record.quantities.get(REQUESTS, 0)
        for at in self.handed | told:
            exact = at[0] == epoch
            assert told[at] == self.handed[at] if exact else told[at] <= self.handed[at], (
                f"{at}: models got {self.handed[at]} requests, {told[at]} are told"
            )
            heard_again = any(key == at[1] and later > at[0] and told[later, key] for later, key in tuple(told))
            if 0 < told[at] < self.handed[at] and heard_again:
                lost = sum(each.lost for each in self.rollups.values() if each.key().startswith(f"{at[1]}/"))
                assert lost, f"{at}: {self.handed[at] - told[at]} requests were lost unseen"

    def _check_instance_time(self, machine: Machine) -> None:
        """Every microsecond of an instance's life is told once."""
        least: Counter[Key] = Counter()
        most = self._perhaps_twice.copy()
        for process in machine.processes.values():
            told_to = machine.told_to or process.started_at
            exactly = min(process.noticed_at or told_to, told_to)
            for sums, end in zip((least, most), self._ends.get(process.id, (exactly, exactly)), strict=True):
                sums[process.place[:2]] += max(timedelta(0), end - process.started_at) // _MICROSECOND
        told = self._told_by("provisioner-1")
        for key in most | told:
            assert least[key] <= told[key] <= most[key], (
                f"{key}: instances lived {least[key]} to {most[key]} µs, {told[key]} µs are told"
            )

    def _check_job_time(self) -> None:
        """The same of batch jobs' instances; a batch-runner that is killed takes its last interval with it."""
        told = self._told_by("batch-runner-1")
        for key in self.jobs_lived | told:
            lived = self.jobs_lived[key]
            assert told[key] <= lived if self.runner_restarted else told[key] == lived, (
                f"{key}: instances of jobs lived {lived} µs, {told[key]} µs are told"
            )

    def _told_by(self, source: str) -> Counter[Key]:
        told: Counter[Key] = Counter()
        for record in self.usage.values():
            if record.source == source:
                told[record.endpoint, record.deployment] += _microseconds(record)
        return told


def _microseconds(record: UsageRecorded) -> int:
    return sum(quantity for meter, quantity in record.quantities.items() if meter.startswith(INSTANCE_TIME))
