"""Small rules: counts, why an instance died, instance time."""

import errno
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.instance_time import InstanceTime
from contracts.messages import (
    Artifact,
    AutoscaleSetting,
    Capacity,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    EndpointDesired,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    ScaleDecision,
    ScaleProfile,
    UsageRecorded,
    hour_of,
)
from provisioner.core.counts import newer, wanted_instances
from provisioner.core.failures import (
    NEXT_STEPS,
    NOTHING_LISTENS,
    Exit,
    Status,
    never_ready,
    no_longer_alive,
    not_built,
    not_fetched,
    not_started,
    why_ended,
    why_not_started,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)


# Counts


def decision(instances: int, at: datetime = NOON) -> ScaleDecision:
    return ScaleDecision(
        endpoint="shop",
        deployment="blue",
        decided_at=at,
        previous=1,
        instances=instances,
        kind="ScaleOut",
        profile="default",
        reason="r",
    )


def endpoint(count: int, bounds: tuple[int, int] | None, enabled: bool = True) -> EndpointDesired:
    setting = None
    if bounds is not None:
        capacity = Capacity(minimum=bounds[0], maximum=bounds[1], default=bounds[0])
        setting = AutoscaleSetting(enabled=enabled, profiles=(ScaleProfile(name="p", capacity=capacity),))
    spec = OnlineDeploymentSpec(
        code_configuration=CodeConfiguration(code="/src", scoring_script="score.py"), instance_count=count
    )
    code = Artifact(digest="c" * 64, name="src")
    deployment = DeploymentDesired(generation=1, spec=spec, code=code, autoscale=setting)
    return EndpointDesired(
        endpoint="shop",
        generation=1,
        created_at=NOON,
        updated_at=NOON,
        spec=OnlineEndpointSpec(),
        deployments={"blue": deployment},
    )


@pytest.mark.parametrize(
    ("count", "bounds", "enabled", "decided", "expected"),
    [
        (2, None, True, None, 2),
        (2, None, True, decision(5), 2),  # without a setting, decisions mean nothing
        (2, (1, 4), False, decision(3), 2),  # nor with one that is switched off
        (2, (1, 4), True, None, 2),
        (0, (1, 4), True, None, 1),
        (9, (1, 4), True, None, 4),
        (2, (1, 4), True, decision(3), 3),
        (2, (1, 4), True, decision(9), 4),
        (2, (2, 4), True, decision(0), 2),
        (2, (1, 4), True, decision(3, NOON - timedelta(seconds=1)), 2),  # about an endpoint that was deleted
    ],
)
def test_the_number_of_instances(
    count: int, bounds: tuple[int, int] | None, enabled: bool, decided: ScaleDecision | None, expected: int
) -> None:
    decisions = {} if decided is None else {"shop/blue": decided}
    assert wanted_instances(endpoint(count, bounds, enabled), decisions) == {"blue": expected}


def test_an_older_decision_never_comes_back() -> None:
    old, new = decision(1), decision(2, NOON + timedelta(seconds=1))
    assert newer(old, None) == old
    assert newer(new, old) == new
    assert newer(old, new) == new


# Why an instance died

FAILED = Status(state="failed", code="UserScriptInitFailed", message="init() raised ValueError", pid=1)


@pytest.mark.parametrize(
    ("code", "status", "expected", "says"),
    [
        (3, FAILED, "UserScriptInitFailed", "init() raised ValueError"),
        (3, FAILED.model_copy(update={"message": None}), "UserScriptInitFailed", "cannot be served"),
        (3, None, "InternalServerError", "exit code 3"),
        (0, Status(state="ready", pid=1), "InternalServerError", "by itself with exit code 0"),
        (-9, Status(state="ready", pid=1), "InternalServerError", "SIGKILL: by hand, or because the machine's memory"),
        (-11, None, "InternalServerError", "SIGSEGV"),
        (-200, None, "InternalServerError", "signal 200"),
        (None, None, "InternalServerError", "how is not known"),
    ],
)
def test_why_an_instance_ended(code: int | None, status: Status | None, expected: str, says: str) -> None:
    error = why_ended(Exit(code), status, b"a\nb\n")
    assert error.code == expected
    assert says in error.message
    assert error.log_tail == ("a", "b")


@pytest.mark.parametrize(
    ("code", "step"),
    [
        ("UserScriptImportError", "conda_file names every package"),
        ("UserScriptFunctionNotFound", "Define init() and run(data)"),
        ("UserScriptInitFailed", "where init() failed"),
        ("BadArgument", "Correct the deployment's settings"),
    ],
)
def test_what_an_instance_says_of_itself_is_told_with_the_next_step(code: str, step: str) -> None:
    status = FAILED.model_copy(update={"code": code, "message": "it went wrong."})
    error = why_ended(Exit(3), status, b"")
    assert error.code == code
    assert error.message.startswith("it went wrong. ")
    assert step in error.message


def test_an_instance_that_used_up_its_memory_says_so_whatever_else_it_said() -> None:
    ended = Exit(-9, out_of_memory=True, limit_bytes=7 << 29, peak_bytes=7 << 29)
    error = why_ended(ended, FAILED, b"loading\n")
    assert error.code == "PodOutOfMemory"
    assert "the memory of 3.5 GiB that its instance type grants (at most 3.50 GiB were used)" in error.message
    assert "larger instance_type" in error.message
    assert error.log_tail == ("loading",)
    assert "used up the memory that" in why_ended(Exit(None, out_of_memory=True), None, b"").message


def test_an_instance_that_never_got_ready_is_told_by_what_its_port_did() -> None:
    silent, strange = never_ready(310, b"", NOTHING_LISTENS), never_ready(310, b"", "the answer was HTTP/1.1 500")
    assert (silent.code, strange.code) == ("ResourceNotReady", "ReadinessProbeFailed")
    assert "the port never opened: the process runs, but nothing listened within 310 s" in silent.message
    assert "listens, but did not answer GET / with 200 within 310 s" in strange.message
    assert "HTTP/1.1 500" in strange.message


def test_other_failures_say_what_to_look_at() -> None:
    dead = no_longer_alive(3, "no answer within 2 s", b"")
    assert dead.code == "LivenessProbeFailed"
    assert dead.message.endswith("3 times in a row, the last: no answer within 2 s")
    assert not_started("no space left").message == "the instance could not be started: no space left"
    built = not_built("there is no numpy 99", ("resolving", "no solution"))
    assert (built.code, built.log_tail) == ("ImageBuildFailure", ("resolving", "no solution"))
    assert built.message.startswith("the environment could not be built: there is no numpy 99. ")
    assert not_fetched("the disk is full").code == "InternalServerError"


def test_a_machine_without_room_is_told_apart_from_one_that_is_at_fault() -> None:
    full = not_started("no port is free", why_not_started(errno.EADDRINUSE))
    assert full.code == "PodUnschedulable"
    assert full.message.endswith("no port is free. This machine has no room for it: use fewer instances.")
    for number in (errno.EACCES, errno.ENOENT, None):
        assert why_not_started(number) == "InternalServerError"


def test_every_way_to_fail_that_a_person_mends_differently_has_a_code_of_its_own() -> None:
    """As far as Azure has one: out of memory, what the script does wrong, the port, either probe, room."""
    said = [why_ended(Exit(3), FAILED.model_copy(update={"code": code}), b"") for code in NEXT_STEPS]
    told = [
        *said,
        why_ended(Exit(-9, out_of_memory=True), None, b""),
        never_ready(310, b"", NOTHING_LISTENS),
        never_ready(310, b"", "the answer was HTTP/1.1 500"),
        no_longer_alive(3, "no answer", b""),
        not_started("x", why_not_started(errno.ENOMEM)),
        not_built("x", ()),
    ]
    assert len({error.code for error in told}) == len({error.message for error in told}) == len(told)


def test_what_user_code_says_is_bounded_and_printable() -> None:
    status = FAILED.model_copy(update={"message": "\x1b[31m" + "x" * 100_000})
    log = b"\n".join(b"%d \x00\xff" % number for number in range(1000)) + b"\n" + b"y" * 100_000
    error = why_ended(Exit(3), status, log)
    assert len(error.message) == 2000
    assert "\x1b" not in error.message
    assert len(error.log_tail) == 20
    assert error.log_tail[0] == "981 \ufffd\ufffd"
    assert len(error.log_tail[-1]) == 400


def test_the_model_tree_does_not_push_the_traceback_out() -> None:
    tree = b"\n".join(b"    file-%d" % number for number in range(200))
    log = b"Traceback (most recent call last):\nValueError: no\nModel Directory Contents:\nmodel/\n" + tree
    assert why_ended(Exit(3), FAILED, log).log_tail == ("Traceback (most recent call last):", "ValueError: no")


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"state": "failed", "code": "<b>", "pid": 1}', b"\xff"])
def test_a_status_without_sense_is_none(content: bytes | None) -> None:
    assert Status.read(content) is None


def test_a_status_is_read() -> None:
    assert Status.read(b'{"state": "ready", "code": null, "message": null, "pid": 7, "new": 1}') == Status(
        state="ready", pid=7
    )


def test_errors_are_messages() -> None:
    assert DeploymentError.model_validate(dict(not_started("x")))


# Instance time

METER = "instance-time/Standard_DS1_v2"


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def told(records: list[UsageRecorded]) -> list[tuple[str, int, float, float, dict[str, int]]]:
    return [
        (
            each.deployment,
            each.sequence,
            (each.started_at - NOON).total_seconds(),
            (each.ended_at - NOON).total_seconds(),
            dict(each.quantities),
        )
        for each in records
    ]


def test_instance_time_as_a_timeline() -> None:
    ledger = InstanceTime("p", 1)
    assert not ledger
    assert ledger.flush(at(0)) == []
    ledger.begin("a", "shop", "blue", "Standard_DS1_v2", at(1))
    assert told(ledger.flush(at(5))) == [("blue", 1, 1, 5, {METER: 4_000_000})]
    ledger.begin("b", "shop", "blue", "Standard_DS1_v2", at(7))
    ledger.begin("c", "shop", "green", "Standard_DS2_v2", at(8.5))
    assert told(ledger.flush(at(10))) == [
        ("blue", 2, 5, 10, {METER: 8_000_000}),
        ("green", 1, 8.5, 10, {"instance-time/Standard_DS2_v2": 1_500_000}),
    ]
    ledger.end("a", at(12))
    ledger.end("c", at(10.000001))
    assert told(ledger.flush(at(15))) == [
        ("blue", 3, 10, 15, {METER: 7_000_000}),
        ("green", 2, 10, 10.000001, {"instance-time/Standard_DS2_v2": 1}),
    ]
    ledger.end("b", at(15))
    assert told(ledger.flush(at(20))) == []
    assert not ledger


def test_instance_time_is_cut_at_the_hour() -> None:
    ledger = InstanceTime("p", 1)
    ledger.begin("a", "shop", "blue", "Standard_DS1_v2", at(3590))
    ledger.end("a", at(7201))
    assert told(ledger.flush(at(7210))) == [
        ("blue", 1, 3590, 3600, {METER: 10_000_000}),
        ("blue", 2, 3600, 7200, {METER: 3_600_000_000}),
        ("blue", 3, 7200, 7201, {METER: 1_000_000}),
    ]


def test_a_clock_that_steps_back_tells_nothing_twice() -> None:
    ledger = InstanceTime("p", 1)
    ledger.begin("a", "shop", "blue", "Standard_DS1_v2", at(0))
    assert told(ledger.flush(at(10))) == [("blue", 1, 0, 10, {METER: 10_000_000})]
    assert told(ledger.flush(at(5))) == []
    assert told(ledger.flush(at(12))) == [("blue", 2, 10, 12, {METER: 2_000_000})]


@given(
    st.lists(st.tuples(st.integers(0, 9000), st.integers(0, 9000)), min_size=1, max_size=6),
    st.lists(st.integers(0, 9000), max_size=12),
)
def test_whatever_the_rhythm_every_microsecond_is_told_once(lives: list[tuple[int, int]], flushes: list[int]) -> None:
    ledger, records = InstanceTime("p", 1), []
    spans = [(min(life), max(life)) for life in lives]
    events = [(begin, 0, f"i{number}") for number, (begin, _) in enumerate(spans)]
    events += [(end, 1, f"i{number}") for number, (_, end) in enumerate(spans)]
    events += [(flush, 2, "") for flush in [*flushes, 9001]]
    for second, kind, id in sorted(events):
        if kind == 0:
            ledger.begin(id, "shop", "blue", "Standard_DS1_v2", at(second))
        elif kind == 1:
            ledger.end(id, at(second))
        else:
            records += ledger.flush(at(second))
    assert sum(each.quantities[METER] for each in records) == sum(end - begin for begin, end in spans) * 1_000_000
    assert [each.sequence for each in records] == list(range(1, len(records) + 1))
    assert all(before.ended_at <= after.started_at for before, after in pairwise(records))
    assert all(each.ended_at <= hour_of(each.started_at) + timedelta(hours=1) for each in records)
