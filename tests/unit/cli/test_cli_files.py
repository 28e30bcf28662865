"""Azure's YAML files to requests: what is taken, and what is told about the rest, line by line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from endpunkt_cli.asset_form import read_asset
from endpunkt_cli.autoscale_form import read_autoscale
from endpunkt_cli.files import BadFile, load, overlaid
from endpunkt_cli.forms import Resource, read
from endpunkt_cli.references import file_uri

EXAMPLES = Path(__file__).parents[3] / "examples" / "diabetes"

DEPLOYMENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: diabetes
model: azureml:linear:1
code_configuration:
  code: ../src
  scoring_script: score.py
"""


def resource(form: str, text: str, folder: str = "/home/ana/yaml") -> Resource:
    return read(form, load(text, "a.yml"), folder)


def troubles(act: Callable[[], Any]) -> list[str]:
    with pytest.raises(BadFile) as refused:
        act()
    return [str(trouble) for trouble in refused.value.troubles]


def test_an_online_deployment() -> None:
    made = resource("online-deployment", DEPLOYMENT)
    assert made.address == {"name": "blue", "endpoint_name": "diabetes"}
    assert made.body == {
        "model": {"id": "azureml:linear:1"},
        "code_configuration": {"code": "file:///home/ana/src", "scoring_script": "score.py"},
    }


@pytest.mark.parametrize(
    ("form", "file"),
    [
        ("online-endpoint", "endpoint.yml"),
        ("online-deployment", "blue.yml"),
        ("online-deployment", "green.yml"),
        ("online-deployment", "teal.yml"),
        ("batch-endpoint", "batch-endpoint.yml"),
        ("batch-deployment", "batch-deployment.yml"),
    ],
)
def test_the_examples_parse_unchanged(form: str, file: str) -> None:
    made = read(form, load((EXAMPLES / file).read_text(), file), "/examples")
    assert "$schema" not in made.body
    assert made.address["name"]


def test_the_autoscale_example_parses_unchanged() -> None:
    source = load((EXAMPLES / "autoscale.yml").read_text(), "autoscale.yml")
    assert read_autoscale(source, "diabetes", "blue").body == source.value


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("model", "file:///home/ana/yaml/model"),
        ("./model/", "file:///home/ana/yaml/model"),
        ("../a b/c", "file:///home/ana/a%20b/c"),
        ("../../../../x", "file:///x"),
        ("/data", "file:///data"),
        ("file:///elsewhere/x", "file:///elsewhere/x"),
    ],
)
def test_paths_are_relative_to_the_file(path: str, uri: str) -> None:
    assert file_uri(path, "/home/ana/yaml") == uri


@pytest.mark.parametrize("path", ["https://host/model", "wasbs://c@a/p"])
def test_paths_to_other_places_are_refused(path: str) -> None:
    text = DEPLOYMENT.replace("../src", path)
    assert troubles(lambda: resource("online-deployment", text)) == [
        "a.yml:6: code_configuration.code: this version takes a local file or folder: write its path"
    ]


def test_every_problem_is_told_with_its_line() -> None:
    text = (
        DEPLOYMENT.replace("blue", "1x")
        + """\
environment: azureml:env
instance_cuont: 2
instance_count: -1
egress_public_network_access: disabled
environment_variables: {WORKERS: [2]}
request_settings:
  request_timeout_ms: 5000
  max_queue_wait_ms: -1
"""
    )
    told = troubles(lambda: resource("online-deployment", text))
    assert told == [
        "a.yml:8: environment: name the packages with `environment: {conda_file: PATH}`, or register them "
        "(endpunkt environment create), or give --local-environment to run in the services' own environment",
        "a.yml:11: egress_public_network_access: this version knows only enabled: "
        "remove `egress_public_network_access`",
        "a.yml:12: environment_variables.WORKERS: Input should be a valid string: put it in quotes",
        "a.yml:10: instance_count: Input should be greater than or equal to 0",
        "a.yml:15: request_settings.max_queue_wait_ms: Input should be greater than or equal to 0",
        "a.yml:2: name: String should have at least 3 characters",
        "a.yml:9: instance_cuont: unknown field; check its spelling and its place",
    ]


def test_what_is_missing_is_told_at_what_surrounds_it() -> None:
    text = "name: blue\nendpoint_name: diabetes\ncode_configuration:\n  code: ../src\n"
    told = troubles(lambda: resource("online-deployment", text))
    assert told == ["a.yml:3: code_configuration.scoring_script: Field required"]
    assert troubles(lambda: read_asset("model", load("type: custom_model\n", "a.yml"), "/")) == [
        "a.yml:1: name: Field required",
        "a.yml:1: path: Field required",
    ]


@pytest.mark.parametrize(
    ("form", "line", "field"),
    [
        ("online-endpoint", "compute: azureml:aks", "compute"),
        ("online-deployment", "model_mount_path: /m", "model_mount_path"),
        ("online-deployment", "scale_settings: {type: target_utilization}", "scale_settings"),
        ("online-deployment", "type: kubernetes", "type"),
        ("batch-deployment", "type: pipeline", "type"),
    ],
)
def test_what_azure_has_and_this_version_does_not_do_is_refused_by_name(form: str, line: str, field: str) -> None:
    text = f"{line}\nname: blue\n"
    if form.endswith("deployment"):
        text += "endpoint_name: diabetes\ncode_configuration: {code: src, scoring_script: score.py}\n"
    (told,) = troubles(lambda: resource(form, text))
    assert told.startswith(f"a.yml:1: {field}: ")


@pytest.mark.parametrize(
    "line",
    ["app_insights_enabled: false", "scale_settings: {type: default}", "type: managed",
     "egress_public_network_access: enabled"],
)  # fmt: skip
def test_azures_own_defaults_are_taken(line: str) -> None:
    assert resource("online-deployment", f"{DEPLOYMENT}{line}\n").body == resource("online-deployment", DEPLOYMENT).body


def test_the_traffic_of_an_endpoint_is_checked() -> None:
    text = "name: diabetes\ntraffic:\n  blue: 90\n  green: 101\n"
    assert troubles(lambda: resource("online-endpoint", text)) == [
        "a.yml:4: traffic.green: Input should be less than or equal to 100"
    ]


def test_older_batch_files_have_their_settings_at_the_root() -> None:
    code = "code_configuration: {code: src, scoring_script: score.py}\n"
    text = f"name: linear\nendpoint_name: diabetes\n{code}mini_batch_size: 2\nretry_settings:\n  timeout: 0\n"
    assert troubles(lambda: resource("batch-deployment", text)) == [
        "a.yml:6: settings.retry_settings.timeout: Input should be greater than or equal to 1"
    ]
    body = resource("batch-deployment", text.replace("timeout: 0", "timeout: 60")).body
    assert body["settings"] == {"mini_batch_size": 2, "retry_settings": {"timeout": 60}}
    assert "mini_batch_size" not in body
    assert troubles(lambda: resource("batch-deployment", text + "settings: {mini_batch_size: 3}\n"))[0] == (
        "a.yml:4: mini_batch_size: is also in `settings`, at a.yml:7: remove one of them"
    )


def test_a_version_is_a_name_and_a_date_is_text() -> None:
    made = read_asset(
        "model", load("name: linear\nversion: 1.10\npath: m\ntags: {trained: 2026-11-01}\n", "a.yml"), "/"
    )
    assert made.address == {"name": "linear", "version": "1.10"}
    assert made.body["tags"] == {"trained": "2026-11-01"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [", "a.yml:1:8: is no YAML: while parsing a flow node expected the node content"),
        ("a: 1\n\tb: 2\n", "a.yml:2:1: is no YAML: while scanning for the next token found character"),
        ("", "a.yml:1: must hold fields"),
        ("- a\n- b\n", "a.yml:1: must hold fields"),
        ("name: a\nname: b\n", "a.yml:2: name: is also in line 1: remove one of them"),
        ("a: {b: 1, b: 2}\n", "a.yml:1: a.b: is also in line 1"),
        ("a: &x {b: *x}\n", "a.yml:1: a.b: contains itself"),
        ("? [a]\n: b\n", "a.yml:1: a field's name must be text"),
        ("a: !!python/object:os.system x\n", "a.yml:1:4: is no YAML: could not determine a constructor"),
        ("a: 1\n---\nb: 2\n", "a.yml:2:1: is no YAML: expected a single document"),
        ("a: \x07\n", "a.yml: is no YAML: unacceptable character"),
    ],
)
def test_what_is_no_document_is_told_with_its_place(text: str, told: str) -> None:
    (trouble,) = troubles(lambda: load(text, "a.yml"))
    assert trouble.startswith(told)


def test_anchors_and_merges_keep_their_lines() -> None:
    text = "name: blue\nendpoint_name: diabetes\n.x: &x\n  code: src\n  scoring: s\ncode_configuration:\n  <<: *x\n"
    told = troubles(lambda: resource("online-deployment", text))
    assert "a.yml:5: code_configuration.scoring: unknown field; check its spelling and its place" in told


def test_settings_go_over_the_file() -> None:
    source = overlaid(
        load(DEPLOYMENT, "a.yml"),
        ["instance_count=2", "request_settings.max_queue_wait_ms=0", "properties.endpunkt.idempotent=true", "tags.n=1"],
    )
    body = read("online-deployment", source, "/home/ana/yaml").body
    assert body["instance_count"] == 2
    assert body["request_settings"] == {"max_queue_wait_ms": 0}
    assert body["properties"] == {"endpunkt.idempotent": "true"}
    assert body["tags"] == {"n": "1"}


def test_settings_that_are_wrong_are_told_as_they_were_given() -> None:
    source = load(DEPLOYMENT, "a.yml")
    assert troubles(lambda: overlaid(source, ["instance_count", "name.x=1", "a=["]))[:2] == [
        "--set instance_count: is not of the form path.to.field=value",
        "--set name.x=1: name.x: `name` has no fields: --set takes fields of mappings only",
    ]
    assert troubles(lambda: read("online-deployment", overlaid(source, ["instance_count=-1"]), "/")) == [
        "--set instance_count=-1: instance_count: Input should be greater than or equal to 0"
    ]


AUTOSCALE = """\
location: westeurope
properties:
  name: mine
  enabled: true
  targetResourceUri: /subscriptions/s/onlineEndpoints/Diabetes/deployments/blue
  notifications: []
  profiles:
    - name: default
      capacity: {minimum: "1", maximum: "2", default: "1"}
      rules:
        - metricTrigger:
            metricName: RequestsPerMinute
            metricResourceUri: /subscriptions/s/onlineEndpoints/diabetes/deployments/blue
            timeGrain: PT1M
            timeWindow: PT5M
            operator: GreaterThan
            threshold: 10
          scaleAction: {direction: Increase, value: 1, cooldown: PT5M}
"""


def test_an_autoscale_setting_as_azure_exports_it() -> None:
    body = read_autoscale(load(AUTOSCALE, "a.yml"), "diabetes", "blue").body
    assert sorted(body) == ["enabled", "profiles"]
    assert "metricResourceUri" not in body["profiles"][0]["rules"][0]["metricTrigger"]


def test_an_autoscale_setting_for_another_deployment_is_refused() -> None:
    text = AUTOSCALE.replace("PT5M}", "P5D, x: 1}").replace('"2"', '"0"')
    told = troubles(lambda: read_autoscale(load(text, "a.yml"), "diabetes", "green"))
    assert [trouble.split(": ")[:2] for trouble in told] == [
        ["a.yml:5", "targetResourceUri"],
        ["a.yml:13", "profiles.0.rules.0.metricTrigger.metricResourceUri"],
        ["a.yml:9", "profiles.0.capacity.maximum"],
        ["a.yml:18", "profiles.0.rules.0.scaleAction.x"],
        ["a.yml:7", "profiles"],
    ]
