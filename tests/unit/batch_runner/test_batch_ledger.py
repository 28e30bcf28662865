"""Commands and reports, through the one place where a job's document changes."""

from datetime import UTC, datetime, timedelta

import pytest

from batch_runner.ledger import JobLedger, overview
from batch_runner.lifecycle import Event, IllegalEventError
from contracts.envelope import Record
from contracts.messages import BatchInput, BatchJob, CancelBatchJob, ComputeInstance, FileCounts, Message, StartBatchJob

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
START = StartBatchJob(job="job-1", endpoint="diabetes", input=BatchInput(uri="file:///data"))
CANCEL = CancelBatchJob(job="job-1")


def feed(ledger: JobLedger, *commands: Message, minute: int = 0) -> list[tuple[str, str]]:
    batch = [(Record("batch.commands", 0, offset, "job-1", b""), command) for offset, command in enumerate(commands)]
    documents = ledger.process(batch, NOON + timedelta(minutes=minute))
    assert all(isinstance(document, BatchJob) for document in documents)
    return [(document.job, document.status) for document in documents if isinstance(document, BatchJob)]


def queued() -> JobLedger:
    ledger = JobLedger()
    feed(ledger, START)
    return ledger


def restored(ledger: JobLedger) -> JobLedger:
    again = JobLedger()
    for document in ledger.open.values():
        again.restore(document)
    return again


def test_a_start_is_queued_once_and_its_repetition_changes_nothing() -> None:
    ledger = JobLedger()
    other = START.replace(input=BatchInput(uri="file:///elsewhere"))
    assert feed(ledger, START, other, START) == [("job-1", "Queued")]
    assert ledger.open["job-1"].command == START
    assert ledger.open["job-1"].submitted_at == NOON
    assert feed(restored(ledger), other) == []


def test_the_id_of_an_ended_job_is_not_run_again_also_after_a_restart_until_it_is_deleted() -> None:
    ledger = queued()
    ended = ledger.report("job-1", NOON, "fail", message="no")
    assert (ended.status, ended.ended_at, ledger.open) == ("Failed", NOON, {})
    assert feed(ledger, START, CANCEL) == []
    again = JobLedger()
    again.restore(ended)
    assert feed(again, START) == []
    again.forget("job-1")
    assert feed(again, START) == [("job-1", "Queued")]


@pytest.mark.parametrize("events", [[], ["begin"], ["begin", "ready"], ["begin", "ready", "finalize"]])
def test_a_cancel_is_taken_at_any_time_and_outlasts_the_progress_that_crosses_it(events: list[Event]) -> None:
    ledger = queued()
    for event in events:
        ledger.report("job-1", NOON, event)
    assert feed(ledger, CANCEL) == [("job-1", "CancelRequested")]
    ledger = restored(ledger)
    crossing: tuple[Event, ...] = ("begin", "ready", "finalize", "complete", "fail")
    for late in crossing:
        assert ledger.report("job-1", NOON, late, rows=5).status == "CancelRequested"
    ended = ledger.report("job-1", NOON, "canceled", message="canceled on request")
    assert (ended.status, ended.rows, ended.message) == ("Canceled", 5, "canceled on request")


def test_a_cancel_of_an_unknown_job_changes_nothing() -> None:
    assert feed(JobLedger(), CANCEL) == []
    assert feed(JobLedger(), CANCEL, START) == [("job-1", "Queued")]


def test_a_report_tells_times_and_an_illegal_one_changes_nothing() -> None:
    ledger = queued()
    before = ledger.open["job-1"]
    with pytest.raises(IllegalEventError):
        ledger.report("job-1", NOON, "complete", rows=5)
    assert ledger.open["job-1"] is before
    later = NOON + timedelta(minutes=1)
    assert ledger.report("job-1", later, "begin", deployment="blue").started_at == later
    assert ledger.report("job-1", later, None, rows=3).status == "Provisioning"
    assert ledger.report("job-1", later, "ready").ended_at is None


def test_the_overview_tells_how_far_the_job_is() -> None:
    ledger = queued()
    ledger.report("job-1", NOON, "begin", mini_batches=4)
    compute = (
        ComputeInstance(id="job-1-0", pids=(1,), started_at=NOON, stopped_at=NOON),
        ComputeInstance(id="job-1-1", pids=(2,), started_at=NOON),
    )
    files = FileCounts(total=7, succeeded=2)
    document = ledger.report("job-1", NOON, "ready", rows=20, mini_batches_done=1, files=files, compute=compute)
    assert overview(document, NOON).splitlines() == [
        "job: job-1",
        "status: Running at 2026-11-01T12:00:00Z",
        "message: -",
        "mini-batches: 1 of 4",
        "files: 7 in all, 2 succeeded, 0 failed",
        "rows: 20",
        "instances: 1 running, 1 stopped",
    ]
