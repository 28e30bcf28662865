"""The simulation bites: each of these mistakes, made in a core, is found within a few seeds."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

import pytest

from batch_runner import lifecycle
from batch_runner.ledger import JobLedger
from contracts.envelope import Record
from contracts.instance_time import InstanceTime
from contracts.messages import Message, ScaleDecision, StartBatchJob, UsageRollup
from metering.ledger import UsageLedger
from provisioner.core import commands, counts, observe, plan
from provisioner.core.lifecycle import Phase
from router import split, table
from router.usage import UsageMeter

from . import bus, reconciling
from .house import House
from .test_simulation import everything
from .world import STORM

_SEEDS = 30
_STEPS = 1000

Mistake = Callable[[pytest.MonkeyPatch], None]


def the_ledger_ignores_its_watermarks(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UsageLedger, "_is_duplicate", lambda *_: False)


def the_ledger_forgets_its_watermarks_at_a_restart(patch: pytest.MonkeyPatch) -> None:
    restore = UsageLedger.restore

    def forgetful(ledger: UsageLedger, message: Message) -> None:
        assert isinstance(message, UsageRollup)
        restore(ledger, message.replace(sources={}))

    patch.setattr(UsageLedger, "restore", forgetful)


def the_offset_is_committed_without_the_state(patch: pytest.MonkeyPatch) -> None:
    process = bus.Processor.process

    def torn(processor: bus.Processor[UsageLedger], partition: int, limit: int, now: datetime, *, fails: bool) -> None:
        before = processor._next(partition)
        process(processor, partition, limit, now, fails=fails)
        if fails:
            place = processor._group, processor._source, partition
            processor._bus.committed[place] = before + 1

    patch.setattr(bus.Processor, "process", torn)


def the_provisioner_ignores_what_is_applied(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(commands, "known", lambda *_: None)


def an_instance_is_stopped_before_its_drain_is_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconciling, "TIMING", plan.Timing(drain_seconds=0.0, stop_seconds=10.0))


def a_draining_instance_is_called_ready(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(observe, "_TOLD", {**observe._TOLD, Phase.DRAINING: "Ready"})


def older_decisions_win(patch: pytest.MonkeyPatch) -> None:
    def oldest(decision: ScaleDecision, known: ScaleDecision | None) -> ScaleDecision:
        return known or decision

    patch.setattr(counts, "newer", oldest)


def instance_time_is_told_from_the_start_every_time(patch: pytest.MonkeyPatch) -> None:
    flush = InstanceTime.flush

    def again(time: InstanceTime, now: datetime) -> object:
        since = {id: span.since for id, span in time._spans.items()}
        records = flush(time, now)
        for id, span in time._spans.items():
            span.since = since[id]
        return records

    patch.setattr(InstanceTime, "flush", again)


def the_split_serves_one_deployment_after_the_other(patch: pytest.MonkeyPatch) -> None:
    def blocks(traffic: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(name for name, weight in sorted(traffic.items()) for _ in range(weight))

    patch.setattr(split, "sequence", blocks)


def the_split_begins_anew_with_every_document(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(table, "_split", lambda route, before: split.Split(route.traffic))


def the_router_numbers_its_usage_anew(patch: pytest.MonkeyPatch) -> None:
    cut = UsageMeter.cut

    def anew(meter: UsageMeter, now: datetime, handed: Iterable[tuple[tuple[str, str], int]]) -> object:
        meter._sequences.clear()
        return cut(meter, now, handed)

    patch.setattr(UsageMeter, "cut", anew)


def a_canceled_job_is_completed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(lifecycle.TRANSITIONS["CancelRequested"], "canceled", "Completed")


def a_job_that_has_ended_is_started_again(patch: pytest.MonkeyPatch) -> None:
    process = JobLedger.process

    def forgetful(ledger: JobLedger, batch: list[tuple[Record, Message]], now: datetime) -> object:
        for _, command in batch:
            if isinstance(command, StartBatchJob):
                ledger.forget(command.job)
        return process(ledger, batch, now)

    patch.setattr(JobLedger, "process", forgetful)


MISTAKES: dict[Mistake, str] = {
    the_ledger_ignores_its_watermarks: "metered .*, told",
    the_ledger_forgets_its_watermarks_at_a_restart: "metered .*, told|are called lost",
    the_offset_is_committed_without_the_state: "metered .*, told",
    the_provisioner_ignores_what_is_applied: "was answered with|a command was applied twice",
    an_instance_is_stopped_before_its_drain_is_over: "is stopped .* s after the log said that it drains",
    a_draining_instance_is_called_ready: "never settles",
    older_decisions_win: "never settles",
    instance_time_is_told_from_the_start_every_time: "instances lived .* µs are told",
    the_split_serves_one_deployment_after_the_other: "turns of",
    the_split_begins_anew_with_every_document: "turns of",
    the_router_numbers_its_usage_anew: "two usage records have one number",
    a_canceled_job_is_completed: "was to be canceled and is Completed",
    a_job_that_has_ended_is_started_again: "had ended as|was submitted twice",
}


@pytest.mark.parametrize(("mistake", "found"), MISTAKES.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_mistake_is_found_and_the_way_to_it_told(
    mistake: Mistake, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mistake(monkeypatch)
    houses = (House(seed, everything(seed), STORM) for seed in range(_SEEDS))
    with pytest.raises(AssertionError, match=found) as failure:
        live_in(houses)
    assert re.search(r"\nSeed \d+, after step \d+\..*\n *\d+ [\d:.]+ [-\w]+: ", str(failure.value), re.DOTALL)


def live_in(houses: Iterable[House]) -> None:
    """One after the other, from the first command to rest."""
    for house in houses:
        house.run(_STEPS)
        house.settle()
