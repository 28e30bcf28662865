"""What deployments are made of: which files are asked for, what is wrong with them, and what becomes of them."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest

from contracts.catalog import Catalog, InstanceType
from contracts.messages import (
    Artifact,
    AssetReference,
    AssetRegistered,
    AutoscaleSetting,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchSettings,
    Capacity,
    CodeConfiguration,
    CommandAccepted,
    DataCollector,
    DeploymentDesired,
    EndpointDesired,
    EndpointSpec,
    EnvironmentDesired,
    EnvironmentReference,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegisterCode,
    RegisterData,
    RegisterEnvironment,
    RegisterModel,
    RequestLogging,
    ScaleProfile,
    SetAutoscale,
)
from contracts.messages.assets import AssetKind
from contracts.messages.specs import Collection
from provisioner.core.commands import decide
from provisioner.core.sources import sources_of
from provisioner.core.validation import check
from provisioner.core.world import Command, Fact, Machine, World

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CATALOG = Catalog(
    currency="USD",
    instance_types={
        "small": InstanceType(vcpus=1, memory_gib=2, price_per_hour=Decimal(1)),
        "wide": InstanceType(vcpus=64, memory_gib=4, price_per_hour=Decimal(1)),
        "huge": InstanceType(vcpus=1, memory_gib=64, price_per_hour=Decimal(1)),
    },
    price_per_million_requests=Decimal(0),
)
MACHINE = Machine(cores=2, memory_gib=8)
CODE = CodeConfiguration(code="/src", scoring_script="score.py")
UPLOADED = f"artifact:{'a' * 64}/churn"


def artifact(digit: str, name: str = "thing") -> Artifact:
    return Artifact(digest=digit * 64, name=name)


def asset(kind: AssetKind, name: str, version: str, type: str, digit: str) -> AssetRegistered:
    return AssetRegistered(
        kind=kind,
        name=name,
        version=version,
        type=type,
        artifact=artifact(digit, name),
        command_id="r",
        registered_at=NOON,
    )


ASSETS = {
    each.key(): each
    for each in (
        asset("model", "churn", "1", "custom_model", "1"),
        asset("model", "flow", "1", "mlflow_model", "2"),
        asset("environment", "sklearn", "1", "conda", "3"),
        asset("environment", "sklearn", "2", "conda", "4"),
        asset("code", "scoring", "1", "code", "5"),
        asset("data", "churn", "1", "uri_file", "6"),
    )
}


def spec(**fields: Any) -> OnlineDeploymentSpec:
    return OnlineDeploymentSpec(**{"instance_type": "small", "code_configuration": CODE, **fields})


def put(*, must: Literal["create", "update"] | None = None, **fields: Any) -> PutDeployment:
    return PutDeployment(endpoint="shop", deployment="blue", spec=spec(**fields), must=must)


def endpoint(name: str, spec: EndpointSpec, **deployments: DeploymentDesired) -> EndpointDesired:
    return EndpointDesired(
        endpoint=name, generation=4, created_at=NOON, updated_at=NOON, spec=spec, deployments=deployments
    )


def deployed(count: int, **fields: Any) -> DeploymentDesired:
    return DeploymentDesired(generation=2, spec=spec(instance_count=count), code=artifact("c", "src"), **fields)


def world(command: Command, missing: tuple[str, ...] = (), **changes: Any) -> World:
    """Where every file is there but those that are `missing`; paths are stored as artifacts of digest f…."""
    assets = changes.get("assets", ASSETS)
    facts = {}
    for source in sources_of(command, assets):
        if source.problem is None:
            facts[source] = Fact(
                is_folder=source.must_be != "file",
                files=frozenset(set(source.wants) - set(missing)),
                texts={name: "dependencies: []" for name in source.reads if name not in missing},
                artifact=source.artifact or artifact("f", source.name),
            )
    endpoints = {
        "shop": endpoint("shop", OnlineEndpointSpec()),
        "night": endpoint("night", BatchEndpointSpec()),
    }
    given = {"endpoints": endpoints, "assets": assets, "catalog": CATALOG, "machine": MACHINE, "facts": facts}
    return World(**{**given, **changes})


def applied(command: Command, **changes: Any) -> Any:
    """What is written for a command that is accepted."""
    outcome = decide(command, repr(command), world(command, **changes), NOON, None)
    assert isinstance(outcome.reply, CommandAccepted), outcome.reply
    return outcome.write


def blue(command: PutDeployment, **changes: Any) -> DeploymentDesired:
    document = applied(command, **changes)
    assert isinstance(document, EndpointDesired)
    return document.deployments[command.deployment]


# What is accepted, and what becomes of it


def test_a_script_runs_in_the_environment_that_is_named() -> None:
    made = blue(put(environment=EnvironmentReference(conda_file="/env/conda.yml")))
    assert made.environment == EnvironmentDesired(artifact=artifact("f", "conda.yml"))


def test_what_was_uploaded_is_used_as_it_is() -> None:
    made = blue(put(model=AssetReference(path=UPLOADED), environment=EnvironmentReference(conda_file=UPLOADED)))
    assert made.model == artifact("a", "churn")
    assert made.environment == EnvironmentDesired(artifact=artifact("a", "churn"))


def test_what_is_registered_is_used_and_the_document_says_which_version_that_was() -> None:
    code = CodeConfiguration(code="azureml:scoring@latest", scoring_script="score.py")
    made = blue(
        put(
            model=AssetReference(id="azureml:churn@latest"),
            code_configuration=code,
            environment=EnvironmentReference(id="azureml:sklearn:2"),
        )
    )
    assert (made.model, made.model_type) == (artifact("1", "churn"), "custom_model")
    assert made.code == artifact("5", "scoring")
    assert made.environment == EnvironmentDesired(artifact=artifact("4", "sklearn"))
    assert isinstance(made.spec, OnlineDeploymentSpec)
    assert made.spec.code_configuration is not None
    assert made.spec.code_configuration.code == "azureml:scoring:1"
    assert made.spec.model == AssetReference(id="azureml:churn:1")


@pytest.mark.parametrize(
    ("missing", "file"),
    [((), "conda.yaml"), (("conda.yaml",), "requirements.txt"), (("requirements.txt",), "conda.yaml")],
)
@pytest.mark.parametrize(
    "model", [AssetReference(id="azureml:flow:1"), AssetReference(path="/models/flow", type="mlflow_model")]
)
def test_an_mlflow_model_needs_no_script_and_brings_its_environment(
    model: AssetReference, missing: tuple[str, ...], file: str
) -> None:
    made = blue(put(model=model, code_configuration=None), missing=missing)
    assert made.model_type == "mlflow_model"
    assert made.code is None
    assert made.model is not None
    assert made.environment == EnvironmentDesired(artifact=made.model, file=file)


def test_an_environment_that_is_named_comes_before_the_one_of_the_model() -> None:
    command = put(
        model=AssetReference(id="azureml:flow:1"),
        code_configuration=None,
        environment=EnvironmentReference(id="azureml:sklearn@latest"),
    )
    made = blue(command, missing=("conda.yaml", "requirements.txt"))
    assert made.environment == EnvironmentDesired(artifact=artifact("4", "sklearn"))


@pytest.mark.parametrize(
    ("changes", "replaced"),
    [
        ({}, False),
        ({"description": "words"}, False),
        ({"properties": {"team": "x"}}, False),
        ({"environment": EnvironmentReference(id="azureml:sklearn:1")}, True),
        ({"properties": {"endpunkt.protocol": "v2"}}, True),
        ({"properties": {"endpunkt.warmup_request": "sample.json"}}, True),
        ({"data_collector": DataCollector(collections={"request": Collection()})}, True),
    ],
)
def test_new_instances_are_made_when_what_they_are_made_of_changes(changes: dict[str, Any], replaced: bool) -> None:
    first = applied(put())
    again = blue(put(must="update", **changes), endpoints={"shop": first})
    assert (again.generation != first.deployments["blue"].generation) == replaced


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        (RegisterModel(name="new", version="1", path="/m", type="mlflow_model"), "model"),
        (RegisterEnvironment(name="new", version="1", path="/conda.yml"), "environment"),
        (RegisterCode(name="new", version="1", path=UPLOADED), "code"),
        (RegisterData(name="new", version="1", path="/rows.csv", type="uri_file"), "data"),
    ],
)
def test_every_kind_of_asset_is_registered_once_and_never_replaced(command: Command, kind: str) -> None:
    made = applied(command)
    assert isinstance(made, AssetRegistered)
    assert made.key() == f"{kind}:new:1"
    assets = {**ASSETS, made.key(): made}
    again = decide(command, "c2", world(command, assets=assets), NOON, None)
    assert isinstance(again.reply, CommandAccepted)
    assert again.write is None
    other = command.model_copy(update={"description": "another"})
    (problem,) = check(other, world(other, assets=assets))
    assert (problem.field, problem.code) == ("version", "BadArgument")


def test_assets_of_one_name_and_different_kinds_are_different_assets() -> None:
    made = applied(RegisterCode(name="churn", version="1", path="/src"))
    assert made.key() == "code:churn:1"


# What is refused


@pytest.mark.parametrize(
    ("command", "missing", "code", "field", "says"),
    [
        (
            put(code_configuration=None, model=AssetReference(path="/m")),
            (),
            "BadArgument",
            "spec.code_configuration",
            "a custom_model cannot score by itself",
        ),
        (put(code_configuration=None), (), "BadArgument", "spec.code_configuration", "there is nothing that scores"),
        (
            put(code_configuration=None, model=AssetReference(id="azureml:ghost:1")),
            (),
            "ResourceNotFound",
            "spec.model.id",
            "no model 'ghost' is registered",
        ),
        (
            put(code_configuration=None, model=AssetReference(path="/m", type="mlflow_model")),
            ("MLmodel",),
            "BadArgument",
            "spec.model.path",
            "is no MLflow model",
        ),
        (
            put(code_configuration=None, model=AssetReference(path="/m", type="mlflow_model")),
            ("conda.yaml", "requirements.txt"),
            "BadArgument",
            "spec.environment",
            "brings no conda.yaml or requirements.txt along: name an environment",
        ),
        (
            put(code_configuration=CodeConfiguration(code="azureml:scoring:7", scoring_script="score.py")),
            (),
            "ResourceNotFound",
            "spec.code_configuration.code",
            "'scoring' has version 1",
        ),
        (
            put(environment=EnvironmentReference(id="azureml:sklearn:7")),
            (),
            "ResourceNotFound",
            "spec.environment.id",
            "'sklearn' has version 1, 2",
        ),
        (
            put(environment=EnvironmentReference(conda_file="conda.yml")),
            (),
            "BadArgument",
            "spec.environment.conda_file",
            "relative path",
        ),
        (
            put(model=AssetReference(path="artifact:123/x")),
            (),
            "BadArgument",
            "spec.model.path",
            "artifact",
        ),
        (
            put(properties={"endpunkt.warmup_request": "sample.json"}),
            ("sample.json",),
            "BadArgument",
            "spec.properties.endpunkt.warmup_request",
            "has no file 'sample.json'",
        ),
        (
            put(properties={"endpunkt.warmup_request": "../sample.json"}),
            (),
            "BadArgument",
            "spec.properties.endpunkt.warmup_request",
            "relative path below",
        ),
        (
            put(properties={"endpunkt.protocol": "v1"}),
            (),
            "BadArgument",
            "spec.properties.endpunkt.protocol",
            'must be "v2"',
        ),
        (
            put(environment_variables={"KEY": "${{azureml://connections/vault/keys}}"}),
            (),
            "BadArgument",
            "spec.environment_variables.KEY",
            "credentials/KEY",
        ),
        (
            put(environment_variables={"IDENTITY_HEADER": "x"}),
            (),
            "BadArgument",
            "spec.environment_variables.IDENTITY_HEADER",
            "is set by Endpunkt",
        ),
        (put(data_collector=DataCollector()), (), "BadArgument", "spec.data_collector.collections", "add request"),
        (
            put(
                data_collector=DataCollector(
                    collections={"request": Collection()},
                    request_logging=RequestLogging(capture_headers=("x-id", "Authorization")),
                )
            ),
            (),
            "BadArgument",
            "spec.data_collector.request_logging.capture_headers.1",
            "not collected",
        ),
        (
            RegisterModel(name="new", version="1", path="/m", type="mlflow_model"),
            ("MLmodel",),
            "BadArgument",
            "path",
            "is no MLflow model",
        ),
        (
            RegisterEnvironment(name="sklearn", version="1", path="/other.yml"),
            (),
            "BadArgument",
            "version",
            "exists with another content",
        ),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(
    command: Command, missing: tuple[str, ...], code: str, field: str, says: str
) -> None:
    problems = check(command, world(command, missing))
    assert [(problem.code, problem.field) for problem in problems] == [(code, field)]
    assert says in problems[0].message


@pytest.mark.parametrize(
    ("command", "is_folder", "field", "says"),
    [
        (RegisterEnvironment(name="new", version="1", path="/env"), True, "path", "name the file itself"),
        (RegisterCode(name="new", version="1", path="/src"), False, "path", "name the folder"),
        (RegisterData(name="new", version="1", path="/rows"), False, "path", "name the folder"),
        (RegisterData(name="new", version="1", path="/rows", type="uri_file"), True, "path", "name the file itself"),
        (
            put(environment=EnvironmentReference(conda_file="/env")),
            True,
            "spec.environment.conda_file",
            "name the file itself",
        ),
    ],
)
def test_a_file_is_no_folder_and_a_folder_no_file(command: Command, is_folder: bool, field: str, says: str) -> None:
    met = world(command)
    facts = {
        source: replace(fact, is_folder=is_folder) if source.field == field else fact
        for source, fact in met.facts.items()
    }
    problems = check(command, replace(met, facts=facts))
    assert [problem.field for problem in problems] == [field]
    assert says in problems[0].message


def test_every_trouble_of_an_environment_is_told_beside_every_other_problem() -> None:
    command = put(environment=EnvironmentReference(conda_file="/conda.yml"), instance_type="moon")
    met = world(command, missing=("score.py",))
    troubles = ("line 2: no such Python", "line 7: no such package")
    facts = {source: replace(fact, troubles=troubles if source.reads else ()) for source, fact in met.facts.items()}
    problems = check(command, replace(met, facts=facts))
    assert [(problem.field, problem.message) for problem in problems if "conda_file" in problem.field] == [
        ("spec.environment.conda_file", trouble) for trouble in troubles
    ]
    assert {"spec.instance_type", "spec.code_configuration.scoring_script"} < {problem.field for problem in problems}


def test_a_trouble_of_the_models_own_environment_names_the_file() -> None:
    command = put(model=AssetReference(id="azureml:flow:1"), code_configuration=None)
    met = world(command)
    facts = {source: replace(fact, troubles=("line 3: no such Python",)) for source, fact in met.facts.items()}
    (problem,) = check(command, replace(met, facts=facts))
    assert (problem.field, problem.message) == ("spec.model.id", "conda.yaml line 3: no such Python")


def test_secrets_are_for_online_deployments_only() -> None:
    variables = {"KEY": "${{azureml://connections/vault/credentials/key}}"}
    settings = BatchSettings(environment_variables=variables)
    made = BatchDeploymentSpec(code_configuration=CODE, instance_type="small", settings=settings)
    command = PutDeployment(endpoint="night", deployment="main", spec=made)
    (problem,) = check(command, world(command))
    assert problem.field == "spec.settings.environment_variables.KEY"
    online = put(environment_variables=variables)
    assert check(online, world(online)) == ()


# What the machine may promise: 2 cores x 8 = 16 vCPUs, 8 GiB x 4 = 32 GiB


def autoscale(maximum: int, *, enabled: bool = True) -> AutoscaleSetting:
    capacity = Capacity(minimum=1, maximum=maximum, default=1)
    return AutoscaleSetting(enabled=enabled, profiles=(ScaleProfile(name="p", capacity=capacity),))


def promised(**deployments: DeploymentDesired) -> dict[str, EndpointDesired]:
    return {
        "shop": endpoint("shop", OnlineEndpointSpec(), **deployments),
        "bank": endpoint("bank", OnlineEndpointSpec(), teal=deployed(4)),
    }


@pytest.mark.parametrize(
    ("command", "deployments"),
    [
        (put(instance_count=12), {}),
        (put(instance_count=12), {"blue": deployed(12)}),
        (put(instance_count=13), {"blue": deployed(14)}),
        (put(instance_count=50), {"blue": deployed(1, autoscale=autoscale(12))}),
        (put(instance_type="wide", instance_count=0), {}),
        (SetAutoscale(endpoint="shop", deployment="blue", autoscale=autoscale(12)), {"blue": deployed(1)}),
        (SetAutoscale(endpoint="shop", deployment="blue", autoscale=None), {"blue": deployed(20)}),
    ],
)
def test_what_fits_the_machine_is_accepted(command: Command, deployments: dict[str, DeploymentDesired]) -> None:
    assert check(command, world(command, endpoints=promised(**deployments))) == ()


@pytest.mark.parametrize(
    ("command", "deployments", "field", "says"),
    [
        (
            put(instance_count=13),
            {},
            "spec.instance_count",
            "17 vCPUs of 16 (2 cores x 8, ENDPUNKT_OVERCOMMIT_CPU)",
        ),
        (
            put(instance_count=9),
            {"green": deployed(4, autoscale=autoscale(4, enabled=False)), "red": deployed(0, autoscale=autoscale(1))},
            "spec.instance_count",
            "18 vCPUs of 16",
        ),
        (
            SetAutoscale(endpoint="shop", deployment="blue", autoscale=autoscale(13)),
            {"blue": deployed(1)},
            "autoscale.profiles.0.capacity.maximum",
            "13 x small would promise 13 vCPUs",
        ),
        (
            put(instance_type="wide", instance_count=1),
            {},
            "spec.instance_count",
            "68 vCPUs of 16",
        ),
        (
            put(instance_type="huge", instance_count=0),
            {},
            "spec.instance_type",
            "has 64 GiB of memory, and this machine has 8.0 GiB",
        ),
    ],
)
def test_more_than_the_machine_may_promise_is_refused_with_all_numbers(
    command: Command, deployments: dict[str, DeploymentDesired], field: str, says: str
) -> None:
    problems = check(command, world(command, endpoints=promised(**deployments)))
    assert (problems[0].code, problems[0].field) == ("OutOfQuota", field)
    assert any(says in problem.message for problem in problems)


def test_memory_is_counted_as_cores_are() -> None:
    command = put(instance_count=13)
    met = world(command, endpoints=promised(), machine=Machine(cores=64, memory_gib=8))
    (problem,) = check(command, met)
    assert "34 GiB of memory of 32 (8.0 GiB x 4, ENDPUNKT_OVERCOMMIT_MEMORY)" in problem.message
