"""Whether a job can run, its settings and its mini-batches."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from batch_runner.plan import Found, Plan, effective, in_order, make_plan, told, workers
from contracts.messages import (
    Artifact,
    BatchDefaults,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchInput,
    BatchOverrides,
    BatchResources,
    BatchSettings,
    CodeConfiguration,
    DeploymentDesired,
    EndpointDesired,
    EnvironmentDesired,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Problem,
    RetrySettings,
    StartBatchJob,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CODE = Artifact(digest="c" * 64, name="src")
CONFIGURATION = CodeConfiguration(code="src", scoring_script="score.py")
SPEC = BatchDeploymentSpec(
    code_configuration=CONFIGURATION,
    resources=BatchResources(instance_count=2),
    settings=BatchSettings(max_concurrency_per_instance=2, retry_settings=RetrySettings(max_retries=5, timeout=60)),
)
FOUND = Found("/data", ("a", "b"), "/out")


def command(**fields: Any) -> StartBatchJob:
    return StartBatchJob(job="job-1", endpoint="diabetes", input=BatchInput(uri="file:///data"), **fields)


def endpoint(default: str | None = "blue", **deployments: Any) -> EndpointDesired:
    specs = deployments or {"blue": SPEC}
    return EndpointDesired(
        endpoint="diabetes",
        generation=1,
        created_at=NOON,
        updated_at=NOON,
        spec=BatchEndpointSpec(defaults=BatchDefaults(deployment_name=default)),
        deployments={name: DeploymentDesired(generation=1, spec=spec, code=CODE) for name, spec in specs.items()},
    )


def planned(command: StartBatchJob, endpoint: EndpointDesired | None, found: Found = FOUND) -> Plan:
    plan = make_plan(command, NOON, endpoint, found, 4)
    assert isinstance(plan, Plan), plan
    return plan


@pytest.mark.parametrize(
    ("files", "size", "expected"), [(7, 2, [2, 2, 2, 1]), (7, 10, [7]), (6, 3, [3, 3]), (1, 1, [1])]
)
def test_files_are_cut_into_full_mini_batches_and_a_rest(files: int, size: int, expected: list[int]) -> None:
    found = Found("/in", tuple(map(str, range(files))), "/o")
    plan = planned(command(overrides=BatchOverrides(mini_batch_size=size)), endpoint(), found)
    assert [plan.size(index) for index in range(plan.mini_batches)] == expected
    assert [len(plan.mini_batch(index)) for index in range(plan.mini_batches)] == expected


def test_mini_batches_hold_every_file_once_in_order() -> None:
    plan = planned(command(overrides=BatchOverrides(mini_batch_size=2)), endpoint(), Found("/in", tuple("abcde"), "/o"))
    batches = [plan.mini_batch(index) for index in range(plan.mini_batches)]
    assert batches == [["/in/a", "/in/b"], ["/in/c", "/in/d"], ["/in/e"]]


def test_the_order_is_that_of_the_names_bytes() -> None:
    names = [b"b", b"B", b"a/z", b"a b", "ä".encode(), b"\xe4", b"a\nb", b"10", b"9"]
    assert [os.fsencode(name) for name in in_order([os.fsdecode(name) for name in names])] == sorted(names)


def test_an_invocation_sets_over_the_deployment_only_what_it_names() -> None:
    assert effective(SPEC, BatchOverrides()) == SPEC
    spec = effective(
        SPEC,
        BatchOverrides(
            instance_count=1, mini_batch_size=3, max_retries=0, timeout=7, error_threshold=0, output_file_name="x.csv"
        ),
    )
    assert (spec.resources.instance_count, workers(spec)) == (1, 2)
    settings = spec.settings
    assert (settings.mini_batch_size, settings.error_threshold, settings.output_file_name) == (3, 0, "x.csv")
    assert settings.retry_settings == RetrySettings(max_retries=0, timeout=7)
    assert settings.max_concurrency_per_instance == 2


def test_the_deployment_is_the_named_one_or_the_default() -> None:
    both = endpoint(blue=SPEC, green=SPEC)
    assert planned(command(), both).deployment == "blue"
    assert planned(command(deployment="green"), both).deployment == "green"


ONLINE = OnlineDeploymentSpec(code_configuration=CONFIGURATION)
LOST = Problem(code="BadArgument", field="input.uri", message="lost")


@pytest.mark.parametrize(
    ("order", "where", "found", "texts"),
    [
        (command(), None, FOUND, ["ResourceNotFound: endpoint: there is no endpoint 'diabetes'"]),
        (command(), endpoint().replace(spec=OnlineEndpointSpec()), FOUND, ["endpoint: 'diabetes' is an online"]),
        (command(), endpoint(default=None), FOUND, ["deployment: none is named and the endpoint has no default"]),
        (command(deployment="red"), endpoint(), FOUND, ["has no deployment 'red'; it has blue"]),
        (command(), endpoint(blue=ONLINE), FOUND, ["deployment: 'blue' is no batch deployment"]),
        (
            command(overrides=BatchOverrides(instance_count=3)),
            endpoint(),
            FOUND,
            ["OutOfQuota: overrides.instance_count: the job asks for 6 workers (3 instances x 2", "room for 4 in all"],
        ),
        (command(overrides=BatchOverrides(output_file_name="..")), endpoint(), FOUND, ["output_file_name: is no name"]),
        (command(overrides=BatchOverrides(output_file_name="ä" * 128)), endpoint(), FOUND, ["is no name of a file"]),
        (
            command(overrides=BatchOverrides(instance_count=9, output_file_name=".")),
            endpoint(),
            replace(FOUND, problems=(LOST,)),
            ["BadArgument: input.uri: lost", "OutOfQuota", "output_file_name"],
        ),
        (command(), None, replace(FOUND, problems=(LOST,)), ["no endpoint", "lost"]),
    ],
)
def test_everything_that_is_wrong_is_told_at_once(
    order: StartBatchJob, where: EndpointDesired | None, found: Found, texts: list[str]
) -> None:
    problems = make_plan(order, NOON, where, found, 4)
    assert not isinstance(problems, Plan)
    for text in texts:
        assert text in told(problems)


def test_a_plan_survives_its_file_with_names_that_are_no_unicode() -> None:
    files = tuple(os.fsdecode(name) for name in (b"caf\xe9", b"line\nbreak", "日本".encode()))
    plan = replace(planned(command(), endpoint(), Found("/in", files, "/o")), output_id=(1, 2), failure="so it is")
    assert Plan.from_json(plan.to_json()) == plan
    modelled = replace(plan, model=Artifact(digest="a" * 64, name="m"))
    assert Plan.from_json(modelled.to_json()) == modelled
    environment = EnvironmentDesired(artifact=Artifact(digest="e" * 64, name="conda.yml"))
    assert Plan.from_json(replace(plan, environment=environment).to_json()).environment == environment


def test_a_plan_of_the_version_before_environments_is_read() -> None:
    plan = planned(command(), endpoint())
    document = json.loads(plan.to_json())
    del document["environment"]
    assert Plan.from_json(json.dumps(document).encode()) == plan


def test_a_deployment_without_a_script_is_refused() -> None:
    document = endpoint()
    blue = document.deployments["blue"].model_copy(update={"code": None})
    problems = make_plan(command(), NOON, document.replace(deployments={"blue": blue}), FOUND, 4)
    assert not isinstance(problems, Plan)
    assert told(problems) == (
        "BadArgument: deployment: 'blue' has no script to run: put it again with code_configuration"
    )


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"submitted_at": 5}', b"null", b"\xff"])
def test_what_is_no_plan_raises(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        Plan.from_json(text)


def test_a_plan_with_a_field_that_this_version_does_not_know_raises() -> None:
    document = json.loads(planned(command(), endpoint()).to_json()) | {"newer": 1}
    with pytest.raises(TypeError):
        Plan.from_json(json.dumps(document).encode())
