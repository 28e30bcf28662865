"""Every reason for which a command is refused: which field is named, under which code, and what to do."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from contracts.catalog import Catalog, InstanceType
from contracts.messages import (
    Artifact,
    AssetReference,
    AssetRegistered,
    AutoscaleSetting,
    BatchDefaults,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchSettings,
    Capacity,
    CodeConfiguration,
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    DeploymentDesired,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    MetricTrigger,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Probe,
    PutDeployment,
    RegenerateKey,
    RegisterModel,
    ScaleAction,
    ScaleProfile,
    ScaleRule,
    SetAutoscale,
    UpdateEndpoint,
)
from provisioner.core.sources import resolve, sources_of
from provisioner.core.validation import check
from provisioner.core.world import Command, Fact, Machine, Quotas, World

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CATALOG = Catalog(
    currency="USD",
    instance_types={"Standard_DS1_v2": InstanceType(vcpus=1, memory_gib=3.5, price_per_hour=Decimal("0.073"))},
    price_per_million_requests=Decimal(0),
)
MACHINE = Machine(cores=8, memory_gib=32)
PLATFORMS = ("AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "AZUREML_MODEL_DIR")
KEY = EndpointKey(digest="a" * 64, sealed="c2VhbGVk")
CODE = Artifact(digest="c" * 64, name="src")
MODEL = Artifact(digest="d" * 64, name="model")


def online(code: str = "/src", script: str = "score.py", **settings: Any) -> OnlineDeploymentSpec:
    return OnlineDeploymentSpec(code_configuration=CodeConfiguration(code=code, scoring_script=script), **settings)


def batch(code: str = "/src", **settings: Any) -> BatchDeploymentSpec:
    return BatchDeploymentSpec(code_configuration=CodeConfiguration(code=code, scoring_script="score.py"), **settings)


def document(name: str, kind: str = "online", deployments: tuple[str, ...] = (), **fields: Any) -> EndpointDesired:
    spec, keys = (OnlineEndpointSpec(), EndpointKeys(primary=KEY, secondary=KEY)), None
    made = online() if kind == "online" else batch()
    return EndpointDesired(
        endpoint=name,
        generation=5,
        created_at=NOON,
        updated_at=NOON,
        spec=fields.pop("spec", spec[0] if kind == "online" else BatchEndpointSpec()),
        keys=spec[1] if kind == "online" else keys,
        deployments={each: DeploymentDesired(generation=2, spec=made, code=CODE) for each in deployments},
        **fields,
    )


def model(name: str, version: str, at: datetime = NOON, **fields: Any) -> AssetRegistered:
    return AssetRegistered(
        name=name, version=version, type="custom_model", artifact=MODEL, command_id="r", registered_at=at, **fields
    )


ENDPOINTS = {
    each.endpoint: each
    for each in (
        document("shop", deployments=("blue", "green"), traffic={"blue": 90, "green": 10}),
        document("empty"),
        document(
            "nightly",
            "batch",
            deployments=("main", "other"),
            spec=BatchEndpointSpec(defaults=BatchDefaults(deployment_name="main")),
        ),
    )
}
ASSETS = {each.key(): each for each in (model("churn", "1"), model("churn", "2", tags={"a": "b"}))}


def world(command: Command, fact: Fact | None = None, **changes: Any) -> World:
    facts = {
        source: fact or Fact(is_folder=source.must_be != "file", files=frozenset(source.wants), artifact=CODE)
        for source in sources_of(command, changes.get("assets", ASSETS))
        if source.problem is None
    }
    given = {"endpoints": ENDPOINTS, "assets": ASSETS, "catalog": CATALOG, "machine": MACHINE, "facts": facts}
    return World(**{**given, **changes})


def put(spec: Any, endpoint: str = "shop", deployment: str = "blue", **fields: Any) -> PutDeployment:
    return PutDeployment(endpoint=endpoint, deployment=deployment, spec=spec, **fields)


def autoscale(metric: str = "RequestsPerMinute", maximum: int = 3) -> AutoscaleSetting:
    trigger = MetricTrigger(
        metric_name=metric,
        time_grain=timedelta(minutes=1),
        time_window=timedelta(minutes=5),
        operator="GreaterThan",
        threshold=1,
    )
    rule = ScaleRule(
        metric_trigger=trigger, scale_action=ScaleAction(direction="Increase", value=1, cooldown=timedelta(minutes=5))
    )
    capacity = Capacity(minimum=1, maximum=maximum, default=1)
    return AutoscaleSetting(profiles=(ScaleProfile(name="default", capacity=capacity, rules=(rule,)),))


def scale(endpoint: str, deployment: str, **fields: Any) -> SetAutoscale:
    return SetAutoscale(endpoint=endpoint, deployment=deployment, autoscale=autoscale(**fields))


def register(path: str = "/models/churn", version: str = "9", **fields: Any) -> RegisterModel:
    return RegisterModel(name="churn", version=version, path=path, **fields)


@pytest.mark.parametrize(
    "command",
    [
        CreateEndpoint(endpoint="new", spec=OnlineEndpointSpec()),
        UpdateEndpoint(endpoint="shop", traffic={"blue": 0}),
        UpdateEndpoint(endpoint="shop", traffic={}),
        UpdateEndpoint(endpoint="nightly", defaults=BatchDefaults(deployment_name="other")),
        DeleteEndpoint(endpoint="shop"),
        RegenerateKey(endpoint="shop", key_type="primary"),
        put(online(model=AssetReference(id="azureml:churn@latest"))),
        put(online("file:///src", model=AssetReference(path="file:///models/x"), environment_variables={"PATH": "/x"})),
        put(online(script="sub/score.py"), must="update"),
        put(online(), deployment="red", must="create"),
        put(batch(), "nightly"),
        DeleteDeployment(endpoint="nightly", deployment="other"),
        scale("shop", "blue"),
        SetAutoscale(endpoint="shop", deployment="blue", autoscale=None),
        register(),
        # What Azure takes, and sets itself as well
        put(online(environment_variables=dict.fromkeys(PLATFORMS, "/x") | {"SCORING_TIMEOUT_MS": "60000"})),
        put(
            batch(
                settings=BatchSettings(environment_variables=dict.fromkeys([*PLATFORMS, "AZUREML_BI_OUTPUT_PATH"], "/"))
            ),
            "nightly",
        ),
    ],
    ids=repr,
)
def test_a_good_command_has_no_problem(command: Command) -> None:
    assert check(command, world(command)) == ()


@pytest.mark.parametrize(
    ("command", "changes", "code", "field", "says"),
    [
        # Endpoints
        (CreateEndpoint(endpoint="shop", spec=OnlineEndpointSpec()), {}, "EndpointAlreadyExists", "endpoint", "update"),
        (
            CreateEndpoint(endpoint="old", spec=OnlineEndpointSpec()),
            {"deleting": {"old"}},
            "ResourceNotReady",
            "endpoint",
            "try again",
        ),
        (
            CreateEndpoint(endpoint="new", spec=OnlineEndpointSpec()),
            {"quotas": Quotas(endpoints=3)},
            "OutOfQuota",
            "endpoint",
            "4 endpoints would be over the quota of 3 (ENDPUNKT_QUOTA_ENDPOINTS)",
        ),
        (
            CreateEndpoint(endpoint="new", spec=BatchEndpointSpec(defaults=BatchDefaults(deployment_name="main"))),
            {},
            "ResourceNotFound",
            "spec.defaults.deployment_name",
            "create it, then",
        ),
        (UpdateEndpoint(endpoint="nowhere"), {}, "ResourceNotFound", "endpoint", "create it first"),
        (UpdateEndpoint(endpoint="shop", traffic={"blue": 90}), {}, "BadArgument", "traffic", "sum to 90"),
        (UpdateEndpoint(endpoint="shop", traffic={"red": 100}), {}, "ResourceNotFound", "traffic.red", "blue, green"),
        (UpdateEndpoint(endpoint="empty", traffic={"red": 0}), {}, "ResourceNotFound", "traffic.red", "no deployment"),
        (UpdateEndpoint(endpoint="nightly", traffic={"main": 100}), {}, "BadArgument", "traffic", "batch endpoint"),
        (UpdateEndpoint(endpoint="shop", defaults=BatchDefaults()), {}, "BadArgument", "defaults", "online endpoint"),
        (
            UpdateEndpoint(endpoint="nightly", defaults=BatchDefaults(deployment_name="ghost")),
            {},
            "ResourceNotFound",
            "defaults.deployment_name",
            "main, other",
        ),
        (DeleteEndpoint(endpoint="nowhere"), {}, "ResourceNotFound", "endpoint", "check the name"),
        (RegenerateKey(endpoint="nowhere", key_type="primary"), {}, "ResourceNotFound", "endpoint", "check the name"),
        (RegenerateKey(endpoint="nightly", key_type="primary"), {}, "BadArgument", "endpoint", "no keys"),
        # Deployments
        (put(online(), "nowhere"), {}, "ResourceNotFound", "endpoint", "create it first"),
        (put(online(), "nightly"), {}, "BadArgument", "spec.kind", "batch endpoint"),
        (put(batch()), {}, "BadArgument", "spec.kind", "online endpoint"),
        (put(online(), must="create"), {}, "BadArgument", "deployment", "update it instead"),
        (put(online(), deployment="red", must="update"), {}, "ResourceNotFound", "deployment", "blue, green"),
        (
            put(online(), deployment="red"),
            {"quotas": Quotas(deployments_per_endpoint=2)},
            "OutOfQuota",
            "deployment",
            "3 deployments on 'shop' would be over the quota of 2 (ENDPUNKT_QUOTA_DEPLOYMENTS_PER_ENDPOINT)",
        ),
        (
            put(online(), deployment="red"),
            {"quotas": Quotas(deployments=4)},
            "OutOfQuota",
            "deployment",
            "5 deployments would be over the quota of 4 (ENDPUNKT_QUOTA_DEPLOYMENTS)",
        ),
        (put(online(instance_type="Moon")), {}, "BadArgument", "spec.instance_type", "Standard_DS1_v2"),
        (
            put(online(instance_count=9)),
            {"quotas": Quotas(instances_per_deployment=8)},
            "OutOfQuota",
            "spec.instance_count",
            "9 instances of a deployment would be over the quota of 8 (ENDPUNKT_QUOTA_INSTANCES_PER_DEPLOYMENT)",
        ),
        (
            put(batch(resources={"instance_count": 9}), "nightly"),
            {"quotas": Quotas(instances_per_deployment=8)},
            "OutOfQuota",
            "spec.resources.instance_count",
            "9 instances",
        ),
        # Azure's own number is the default, and the message names it
        (
            put(online(instance_count=51)),
            {"machine": Machine(cores=1000, memory_gib=1000)},
            "OutOfQuota",
            "spec.instance_count",
            "51 instances of a deployment would be over the quota of 50",
        ),
        (
            put(batch(resources={"instance_count": 51}), "nightly"),
            {},
            "OutOfQuota",
            "spec.resources.instance_count",
            "51 instances of a deployment would be over the quota of 50",
        ),
        *(
            (
                put(online(environment_variables={name: "x"})),
                {},
                "BadArgument",
                f"spec.environment_variables.{name}",
                says,
            )
            for name, says in [
                ("ENDPUNKT_ANYTHING", "is set by Endpunkt"),
                ("SCORING_TIMEOUT_MS", "'x' must be a whole number of milliseconds"),
                ("AZUREML_DEBUG_PORT", "--local --vscode-debug"),
                ("A=B", "no '=' in names"),
                ("", "no environment variable"),
            ]
        ),
        (
            put(online(environment_variables={"A": "x\x00"})),
            {},
            "BadArgument",
            "spec.environment_variables.A",
            "no NUL",
        ),
        (
            put(batch(settings=BatchSettings(environment_variables={"ENDPUNKT_X": "/"})), "nightly"),
            {},
            "BadArgument",
            "spec.settings.environment_variables.ENDPUNKT_X",
            "is set by Endpunkt",
        ),
        (
            put(online(properties={"endpunkt.idempotent": "True"})),
            {},
            "BadArgument",
            "spec.properties.endpunkt.idempotent",
            '"true" or "false"',
        ),
        (
            put(online(liveness_probe=Probe(success_threshold=2))),
            {},
            "BadArgument",
            "spec.liveness_probe.success_threshold",
            "must be 1",
        ),
        (
            put(online(model=AssetReference(id="azureml:churn:7"))),
            {},
            "ResourceNotFound",
            "spec.model.id",
            "'churn' has version 1, 2",
        ),
        (
            put(online(model=AssetReference(id="azureml:ghost@latest"))),
            {},
            "ResourceNotFound",
            "spec.model.id",
            "no model 'ghost' is registered",
        ),
        *(
            (put(online(model=AssetReference(path=path))), {}, "BadArgument", "spec.model.path", says)
            for path, says in [
                ("model", "relative path"),
                ("https://x/model", "not a local path"),
                ("azureml://datastores/d/paths/p", "not a local path"),
                ("file://host/model", "another machine"),
                ("/model\x00", "NUL"),
            ]
        ),
        *(
            (put(online(script=script)), {}, "BadArgument", "spec.code_configuration.scoring_script", "relative path")
            for script in ("../score.py", "/score.py", "a/../../score.py", ".", "")
        ),
        (
            DeleteDeployment(endpoint="shop", deployment="green"),
            {},
            "BadArgument",
            "deployment",
            "10 % of the traffic",
        ),
        (DeleteDeployment(endpoint="nightly", deployment="main"), {}, "BadArgument", "deployment", "is the default"),
        (DeleteDeployment(endpoint="shop", deployment="red"), {}, "ResourceNotFound", "deployment", "blue, green"),
        (DeleteDeployment(endpoint="nowhere", deployment="red"), {}, "ResourceNotFound", "endpoint", "check the name"),
        # Autoscale
        (scale("nowhere", "blue"), {}, "ResourceNotFound", "endpoint", "check the name"),
        (scale("shop", "red"), {}, "ResourceNotFound", "deployment", "blue, green"),
        (scale("nightly", "main"), {}, "BadArgument", "deployment", "batch deployment"),
        (
            scale("shop", "blue", metric="Vibes"),
            {},
            "BadArgument",
            "autoscale.profiles.0.rules.0.metric_trigger.metric_name",
            "RequestsPerMinute",
        ),
        (
            scale("shop", "blue", maximum=9),
            {"quotas": Quotas(instances_per_deployment=8)},
            "OutOfQuota",
            "autoscale.profiles.0.capacity.maximum",
            "would be over the quota of",
        ),
        # Assets
        (register("relative"), {}, "BadArgument", "path", "absolute path"),
        (register(version="2"), {}, "BadArgument", "version", "exists with another content, tags"),
    ],
)
def test_a_bad_command_is_refused_with_its_field_code_and_next_step(
    command: Command, changes: dict[str, Any], code: str, field: str, says: str
) -> None:
    problems = check(command, world(command, **changes))
    assert [(problem.code, problem.field) for problem in problems] == [(code, field)]
    assert says in problems[0].message


@pytest.mark.parametrize(
    ("fact", "field", "says"),
    [
        (Fact(problem="'/src' does not exist"), "spec.code_configuration.code", "does not exist"),
        (Fact(is_folder=False), "spec.code_configuration.code", "is a file"),
        (Fact(is_folder=True), "spec.code_configuration.scoring_script", "has no file 'score.py'"),
    ],
)
def test_what_the_disk_says_is_told_at_the_field_that_named_it(fact: Fact, field: str, says: str) -> None:
    command = put(online())
    problems = check(command, world(command, fact))
    assert [problem.field for problem in problems] == [field]
    assert says in problems[0].message


def test_every_problem_of_a_command_is_told_at_once() -> None:
    spec = online(
        "src",
        "../x.py",
        model=AssetReference(id="azureml:ghost:1"),
        instance_type="Moon",
        instance_count=50,
        environment_variables={"ENDPUNKT_X": "1"},
    )
    command = put(spec, "nightly", must="create", deployment="main")
    problems = check(command, world(command, quotas=Quotas(instances_per_deployment=8)))
    assert {problem.field for problem in problems} == {
        "deployment",
        "spec.kind",
        "spec.instance_type",
        "spec.instance_count",
        "spec.environment_variables.ENDPUNKT_X",
        "spec.model.id",
        "spec.code_configuration.scoring_script",
        "spec.code_configuration.code",
    }


def test_latest_is_what_was_registered_last() -> None:
    versions = [model("m", "10", NOON), model("m", "9", NOON + timedelta(seconds=1)), model("n", "11")]
    assets = {each.key(): each for each in versions}
    assert resolve("azureml:m@latest", "model", assets) == versions[1]
    assert resolve("azureml:m:10", "model", assets) == versions[0]
    assert resolve("azureml:o@latest", "model", assets) is None


def test_file_uris_are_unquoted_and_paths_made_normal() -> None:
    sources = sources_of(put(online("file:///my%20src/", model=AssetReference(path="/models/../models/x/"))), {})
    assert [source.path for source in sources] == ["/models/x", "/my src"]
