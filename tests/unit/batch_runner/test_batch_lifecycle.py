"""A job's life as a table, and what is next from every state of log and disk."""

from itertools import product
from typing import get_args

import pytest

from batch_runner.lifecycle import ENDED, TRANSITIONS, Disk, Event, IllegalEventError, Step, after, next_step
from contracts.messages import JobStatus

LEGAL = {
    ("Queued", "begin"): "Provisioning",
    ("Provisioning", "ready"): "Running",
    ("Running", "finalize"): "Finalizing",
    ("Finalizing", "complete"): "Completed",
    **{(status, "fail"): "Failed" for status in ("Queued", "Provisioning", "Running", "Finalizing")},
    **{(status, "cancel"): "CancelRequested" for status in ("Queued", "Provisioning", "Running", "Finalizing")},
    **{("CancelRequested", event): "CancelRequested" for event in get_args(Event)},
    ("CancelRequested", "canceled"): "Canceled",
}


@pytest.mark.parametrize(("status", "event"), list(product(get_args(JobStatus), get_args(Event))))
def test_an_event_leads_where_the_table_says_or_raises(status: JobStatus, event: Event) -> None:
    if (status, event) in LEGAL:
        assert after(status, event) == LEGAL[status, event]
    else:
        with pytest.raises(IllegalEventError, match=rf"{status} knows no '{event}'"):
            after(status, event)


def test_the_table_has_every_status_and_an_ended_job_stays_ended() -> None:
    assert set(TRANSITIONS) == set(get_args(JobStatus))
    assert sorted(ENDED) == ["Canceled", "Completed", "Failed"]


PLANNED = Disk(planned=True, left=3)
SCORED = Disk(planned=True, left=0)
IN_PLACE = Disk(planned=True, left=0, committed=True)
TIDIED = Disk(planned=True, left=3, committed=True)
FAILING = Disk(planned=True, failing=True, left=1)


@pytest.mark.parametrize(
    ("status", "disk", "step"),
    [
        ("Queued", Disk(), "plan"),
        ("Queued", Disk(failing=True), "fail"),
        ("Queued", PLANNED, "begin"),
        ("Provisioning", PLANNED, "score"),
        ("Running", PLANNED, "score"),
        ("Running", SCORED, "finalize"),
        ("Running", FAILING, "fail"),
        ("Finalizing", SCORED, "write"),
        ("Finalizing", IN_PLACE, "complete"),
        ("Finalizing", TIDIED, "complete"),
        ("Finalizing", FAILING, "fail"),
        # The folder is gone: the job begins anew.
        ("Running", Disk(), "plan"),
        ("Finalizing", PLANNED, "score"),
        ("CancelRequested", Disk(), "cancel"),
        ("CancelRequested", IN_PLACE, "cancel"),
        ("CancelRequested", FAILING, "cancel"),
        *((status, disk, None) for status in ENDED for disk in (Disk(), PLANNED, FAILING)),
    ],
)
def test_what_is_next(status: JobStatus, disk: Disk, step: Step | None) -> None:
    assert next_step(status, disk) == step
