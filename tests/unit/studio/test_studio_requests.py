"""What people send, as commands; and what is wrong with it, all of it at once."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from contracts.messages import BatchEndpointSpec, OnlineDeploymentSpec, OnlineEndpointSpec, Problem
from studio import requests
from studio.replies import Refused, rejection, target_of

CODE = {"code": "file:///code", "scoring_script": "score.py"}


def refusal(act: Callable[[], Any]) -> tuple[int, str, list[str]]:
    """Status, code and targets of what `act` raises."""
    with pytest.raises(Refused) as refused:
        act()
    error = refused.value.document["error"]
    return refused.value.status, error["code"], [detail["target"] for detail in error["details"]]


def test_an_endpoint_is_of_the_kind_of_its_address() -> None:
    assert requests.create_endpoint("online", "diabetes", {"tags": {"a": "b"}}).spec == OnlineEndpointSpec(
        tags={"a": "b"}
    )
    assert isinstance(requests.create_endpoint("batch", "diabetes", {"kind": "batch"}).spec, BatchEndpointSpec)
    refused = refusal(lambda: requests.create_endpoint("online", "diabetes", {"kind": "batch"}))
    assert refused == (400, "BadArgument", ["kind"])


def test_a_deployment_is_put_with_a_condition() -> None:
    command = requests.put_deployment("online", "diabetes", "blue", {"code_configuration": CODE}, "create")
    assert isinstance(command.spec, OnlineDeploymentSpec)
    assert (command.endpoint, command.deployment, command.must) == ("diabetes", "blue", "create")


@pytest.mark.parametrize(
    ("if_match", "if_none_match", "must"), [(None, None, None), ("*", None, "update"), (None, "*", "create")]
)
def test_conditions(if_match: str | None, if_none_match: str | None, must: str | None) -> None:
    assert requests.precondition(if_match, if_none_match) == must


@pytest.mark.parametrize(("if_match", "if_none_match"), [("*", "*"), ('"7"', None), (None, '"7"')])
def test_conditions_that_are_refused(if_match: str | None, if_none_match: str | None) -> None:
    assert refusal(lambda: requests.precondition(if_match, if_none_match))[0] == 400


def test_every_problem_is_told_with_its_path_in_the_body() -> None:
    body = {
        "model": {"id": "m:1"},
        "instance_count": -1,
        "enviroment": {},
        "request_settings": {"max_queue_wait_ms": -1},
    }
    status, code, targets = refusal(lambda: requests.put_deployment("online", "x", "1x", body, None))
    assert (status, code) == (400, "BadArgument")
    assert sorted(targets) == [
        "deployment",
        "endpoint",
        "enviroment",
        "instance_count",
        "model.id",
        "request_settings.max_queue_wait_ms",
    ]


def test_logs_are_asked_for_in_azures_words() -> None:
    command = requests.get_logs("diabetes", "blue", {"tail": 20, "containerType": "StorageInitializer"})
    assert (command.endpoint, command.deployment, command.lines) == ("diabetes", "blue", 20)
    assert command.container == "storage-initializer"
    assert requests.get_logs("diabetes", "blue", {"instance": "i1"}).instance == "i1"
    default = requests.get_logs("diabetes", "blue", {})
    assert (default.container, default.lines) == ("inference-server", 5000)
    wrong = {"tail": "20", "containerType": "model", "instance": 1, "lines": 2}
    assert refusal(lambda: requests.get_logs("diabetes", "blue", wrong)) == (
        400, "BadArgument", ["lines", "tail", "containerType", "instance"],
    )  # fmt: skip


def test_autoscale_problems_are_told_in_the_spelling_of_the_body() -> None:
    profile = {
        "name": "default",
        "capacity": {"minimum": 1, "maximum": -1, "default": 1},
        "rules": [{"metricTrigger": 1}],
    }
    targets = refusal(lambda: requests.set_autoscale("diabetes", "blue", {"profiles": [profile]}))[2]
    assert targets == [
        "profiles.0.capacity.maximum",
        "profiles.0.rules.0.metricTrigger",
        "profiles.0.rules.0.scaleAction",
        "profiles",
    ]


def test_the_body_may_not_repeat_what_the_address_says() -> None:
    body = {"endpoint": "other", "traffic": {"blue": 101}}
    assert refusal(lambda: requests.update_endpoint("diabetes", body))[2] == ["endpoint", "traffic.blue"]


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b'"text"', b'{"a": NaN}', b"\xff{}", b"[" * 100_000, b'{"a": 1} x'], ids=range(8)
)
def test_a_body_that_is_no_json_object(raw: bytes) -> None:
    assert refusal(lambda: requests.body_of(raw)) == (400, "BadArgument", ["body"])


@pytest.mark.parametrize(("given", "id"), [(None, "made"), ("a-Z_9", "a-Z_9"), ("x" * 40, "x" * 40)])
def test_command_ids(given: str | None, id: str) -> None:
    assert requests.command_id(given, "made") == id


@pytest.mark.parametrize("given", ["", "x" * 41, "a b", "ä", "a\n"])
def test_command_ids_that_are_refused(given: str) -> None:
    assert refusal(lambda: requests.command_id(given, "made"))[2] == ["x-ms-client-request-id"]


@pytest.mark.parametrize(("given", "key_type"), [("Primary", "primary"), ("Secondary", "secondary")])
def test_keys_to_regenerate(given: str, key_type: str) -> None:
    assert requests.regenerate_key("diabetes", {"keyType": given}).key_type == key_type


@pytest.mark.parametrize("body", [{}, {"keyType": "primary"}, {"keyType": "Both"}])
def test_keys_that_there_are_not(body: dict[str, Any]) -> None:
    assert refusal(lambda: requests.regenerate_key("diabetes", body))[2] == ["keyType"]
    assert refusal(lambda: requests.regenerate_key("diabetes", {**body, "key": 1}))[2] == ["key", "keyType"]


def test_a_job_has_the_id_that_is_given_or_made() -> None:
    body = {"input": {"uri": "file:///data"}, "overrides": {"mini_batch_size": 2}}
    assert requests.start_job("diabetes", body, "made").job == "made"
    assert requests.start_job("diabetes", {**body, "job": "mine"}, "made").job == "mine"
    assert refusal(lambda: requests.start_job("diabetes", {"job": "/"}, "made"))[2] == ["job", "input"]


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-11-01", datetime(2026, 11, 1, tzinfo=UTC)),
        ("2026-11-01T12:00Z", datetime(2026, 11, 1, 12, tzinfo=UTC)),
        ("2026-11-01T13:00+01:00", datetime(2026, 11, 1, 12, tzinfo=UTC)),
    ],
)
def test_periods(text: str, instant: datetime) -> None:
    assert requests.period({"from": text}) == (instant, None)
    assert requests.period({"to": text}) == (None, instant)


def test_periods_that_are_refused() -> None:
    assert refusal(lambda: requests.period({"from": "noon", "to": "2026-11-01T12:00"}))[2] == ["from", "to"]


@pytest.mark.parametrize(
    ("codes", "status", "code"),
    [
        (["BadArgument"], 400, "BadArgument"),
        (["InvalidDeploymentSpec"], 400, "InvalidDeploymentSpec"),
        (["ResourceNotFound"], 404, "ResourceNotFound"),
        (["ResourceNotFound", "BadArgument"], 400, "BadArgument"),
        (["EndpointAlreadyExists"], 409, "EndpointAlreadyExists"),
        (["ResourceNotReady"], 409, "ResourceNotReady"),
        (["BadArgument", "EndpointAlreadyExists"], 409, "EndpointAlreadyExists"),
    ],
)
def test_the_status_of_a_rejection(codes: list[str], status: int, code: str) -> None:
    problems = [Problem(code=each, field="spec.model", message=f"m{n}") for n, each in enumerate(codes)]
    refused = rejection(problems)
    assert (refused.status, refused.document["error"]["code"]) == (status, code)
    assert refused.document["error"]["details"] == [
        {"code": each, "target": "model", "message": f"m{n}"} for n, each in enumerate(codes)
    ]


@pytest.mark.parametrize(
    ("field", "target"),
    [
        ("spec.online.model.id", "model.id"),
        ("spec.batch", "body"),
        ("spec.model", "model"),
        ("spec", "body"),
        ("autoscale.profiles.0.name", "profiles.0.name"),
        ("traffic.blue", "traffic.blue"),
        ("specification", "specification"),
    ],
)
def test_targets_are_paths_in_the_body(field: str, target: str) -> None:
    assert target_of(field) == target
