"""Deployment folders as people bring them from Azure: what is taken unchanged, and what is told about the rest."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from endpunkt_cli.files import BadFile, load, overlaid
from endpunkt_cli.forms import Resource, read

AZURE = Path(__file__).with_name("azure")
HEAD = "name: blue\nendpoint_name: triage\n"
SCRIPT = "code_configuration: {code: src, scoring_script: score.py}\n"


def resource(text: str, form: str = "online-deployment", local_environment: bool = False) -> Resource:
    return read(form, load(text, "a.yml"), "/home/ana/yaml", local_environment)


def from_azure(name: str, form: str) -> Resource:
    return read(form, load((AZURE / name).read_text(), name), "/home/ana/deploy/yaml")


def troubles(act: Callable[[], Any]) -> list[str]:
    with pytest.raises(BadFile) as refused:
        act()
    return [str(trouble) for trouble in refused.value.troubles]


def test_a_model_a_script_and_packages_that_lie_in_folders() -> None:
    made = from_azure("online-conda.yml", "online-deployment")
    assert made.body["model"] == {"path": "file:///home/ana/models/triage"}
    assert made.body["environment"] == {
        "image": "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu20.04:latest",
        "conda_file": "file:///home/ana/models/environment/conda.yml",
    }
    assert made.body["environment_variables"] == {
        "AML_MODEL_DC_STORAGE_ENABLED": "false",
        "ROUNDS": "07",
        "STORAGE_CONTAINER_NAME": "samples",
    }
    assert [note.field for note in made.notes] == ["app_insights_enabled"]
    assert "app_insights_enabled" not in made.body


def test_registered_assets() -> None:
    made = from_azure("online-registered.yml", "online-deployment")
    assert made.body["model"] == {"id": "azureml:triage@latest"}
    assert made.body["code_configuration"] == {
        "code": "azureml:triage-scoring:4",
        "scoring_script": "online/score.py",
    }
    assert made.body["environment"] == {"id": "azureml:triage-packages:12"}
    assert made.body["tags"] == {"release": "2.10", "canary": "true"}
    assert made.notes == ()


def test_an_mlflow_model_needs_no_script_and_is_registered_under_its_name() -> None:
    made = from_azure("online-mlflow.yml", "online-deployment")
    assert made.body["model"] == {"path": "file:///home/ana/deploy/yaml/triage/model", "type": "mlflow_model"}
    assert made.register == {"name": "triage-mlflow", "version": "1"}
    assert "code_configuration" not in made.body


def test_collected_data_and_an_environment_that_stands_in_the_file() -> None:
    made = from_azure("online-collector.yml", "online-deployment")
    packages = yaml.safe_load(made.texts["environment.conda_file"])
    assert packages["dependencies"][:2] == ["python=3.11", "pip"]
    assert made.body["environment"]["conda_file"] == "file:///conda.yml"
    collections = made.body["data_collector"]["collections"]
    assert collections["model_outputs"]["data"] == {"name": "triage-outputs", "version": "1"}
    assert collections["model_inputs"]["data"]["version"] == "1"
    assert [(note.field, note.message.rpartition(" ")[2]) for note in made.notes] == [
        (f"data_collector.collections.{name}.data", f"data/triage/watched/{name}")
        for name in ("model_inputs", "model_outputs")
    ]
    assert all(note.message.startswith("has no effect: ") for note in made.notes)


@pytest.mark.parametrize("name", ["endpoint-identity.yml", "endpoint-old.yml"])
def test_endpoints_with_an_identity(name: str) -> None:
    made = from_azure(name, "online-endpoint")
    assert made.body["identity"]["type"] in ("user_assigned", "system_assigned")
    assert "type" not in made.body


def test_batch_deployments() -> None:
    older = from_azure("batch-older.yml", "batch-deployment")
    assert older.body["model"] == {"path": "file:///home/ana/deploy/yaml/triage/model"}
    assert older.register is None
    assert older.body["settings"]["mini_batch_size"] == 10
    assert [note.field for note in older.notes] == ["compute"]
    named = from_azure("batch-named.yml", "batch-deployment")
    assert named.body["environment"]["conda_file"] == "file:///home/ana/deploy/yaml/environment/conda.yaml"
    assert named.body["code_configuration"]["code"] == "azureml:triage-batch-code:1"
    assert named.body["settings"]["environment_variables"] == {"THREADS": "2"}
    assert [note.field for note in named.notes] == ["compute", "settings.logging_level"]


def test_the_services_own_environment_stands_in_for_any() -> None:
    for environment in ("azureml://registries/azureml/environments/sklearn-1.5/labels/latest", "{image: x}"):
        made = resource(f"{HEAD}{SCRIPT}environment: {environment}\n", local_environment=True)
        assert "environment" not in made.body


@pytest.mark.parametrize(
    ("line", "field", "told"),
    [
        ("environment: azureml://registries/azureml/environments/sklearn-1.5/labels/latest", "environment",
         "it lies in a registry of Azure"),
        ("environment: sklearn", "environment", "name the packages with `environment: {conda_file: PATH}`"),
        ("environment: {image: x}", "environment.image", "what the image holds is named with `conda_file`"),
        ("environment: {build: {path: docker}}", "environment.build", "not as containers"),
        ("environment: {image: x, conda_file: c.yml, inference_config: {}}", None, ""),
        ("environment: {image: x, conda_file: c.yml, inference_config: {scoring_route: {port: 1}}}",
         "environment.inference_config", "not as containers"),
        ("environment: {conda_file: azureml://datastores/d/paths/p}", "environment.conda_file", "takes a local file"),
        ("model: azureml://registries/hub/models/m/versions/1", "model", "cannot be reached from here: download it"),
        ("model: m", "model", "write azureml:NAME:VERSION"),
        ("model: {path: m, type: triton_model}", "model.type", "there is no Triton server here"),
        ("model: {path: m, version: 1}", "model.version", "a model without a name"),
        ("model: {path: azureml:m:1}", "model.path", "takes a local file"),
        ("model_mount_path: /var/tmp", "model_mount_path", "models lie below AZUREML_MODEL_DIR"),
        ("model_mount_path:", None, ""),
        ("egress_public_network_access: disabled", "egress_public_network_access", "knows only enabled"),
        ("scale_settings: {type: target_utilization}", "scale_settings", "knows only default"),
        ("type: kubernetes", "type", "knows only managed"),
        ("data_collector: {collections: {request: {enabled: perhaps}}}",
         "data_collector.collections.request.enabled", "valid boolean"),
    ],
)  # fmt: skip
def test_what_has_no_meaning_here_is_refused_with_the_next_step(line: str, field: str | None, told: str) -> None:
    text = f"{line}\n{HEAD}{SCRIPT}"
    if field is None:
        assert resource(text)
        return
    (trouble,) = troubles(lambda: resource(text))
    assert trouble.startswith(f"a.yml:1: {field}: "), trouble
    assert told in trouble


def test_code_of_azures_registry_is_refused() -> None:
    text = f"{HEAD}code_configuration: {{code: 'azureml://registries/r/codes/c/versions/1', scoring_script: s.py}}\n"
    (trouble,) = troubles(lambda: resource(text))
    assert trouble.startswith("a.yml:3: code_configuration.code: it lies in a registry of Azure")


def test_an_asset_by_the_id_of_its_workspace() -> None:
    workspace = "azureml:/subscriptions/1/resourceGroups/g/providers/Microsoft.MachineLearningServices/workspaces/w"
    made = resource(f"{HEAD}{SCRIPT}model: {workspace}/models/triage/versions/3\n")
    assert made.body["model"] == {"id": "azureml:triage:3"}


def test_a_named_model_without_a_version_is_an_inline_one() -> None:
    made = resource(f"{HEAD}{SCRIPT}model: {{name: triage, path: m}}\n")
    assert (made.body["model"], made.register) == ({"path": "file:///home/ana/yaml/m"}, None)


def test_a_deployment_as_the_api_shows_it_can_be_changed() -> None:
    shown = {
        "name": "blue",
        "endpoint_name": "triage",
        "model": {"path": None, "type": "custom_model", "id": "azureml:triage:1"},
        "code_configuration": {"code": "artifact:ab/src", "scoring_script": "score.py"},
        "environment": {"conda_file": "artifact:cd/conda.yml", "image": None, "id": None},
    }
    source = overlaid(load(HEAD, "a.yml"), [])
    made = read("online-deployment", type(source)(shown), "/")
    assert made.body["code_configuration"]["code"] == "artifact:ab/src"
    assert made.body["environment"] == {"conda_file": "artifact:cd/conda.yml", "image": None}
    shown["environment"] = {"conda_file": None, "image": None, "id": "azureml:packages:2"}
    made = read("online-deployment", type(source)(shown), "/")
    assert made.body["environment"] == {"id": "azureml:packages:2"}
