"""What becomes of commands: the document that each makes, and what a replay of it makes (nothing)."""

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
    BatchEndpointSpec,
    Capacity,
    CodeConfiguration,
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegenerateKey,
    RegisterModel,
    RequestSettings,
    ScaleProfile,
    SetAutoscale,
    UpdateEndpoint,
)
from provisioner.core.commands import NO_GENERATION, REMEMBERED, decide
from provisioner.core.sources import sources_of
from provisioner.core.world import Command, Fact, Machine, World

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CATALOG = Catalog(
    currency="USD",
    instance_types={"Standard_DS1_v2": InstanceType(vcpus=1, memory_gib=3.5, price_per_hour=Decimal("0.073"))},
    price_per_million_requests=Decimal(0),
)


def keys(letter: str) -> EndpointKeys:
    return EndpointKeys(
        primary=EndpointKey(digest=letter * 64, sealed="p"), secondary=EndpointKey(digest=letter * 64, sealed="s")
    )


class Log:
    """The documents, as commands change them one after the other. Contents of paths are told by `content`."""

    def __init__(self) -> None:
        self.endpoints: dict[str, EndpointDesired] = {}
        self.assets: dict[str, AssetRegistered] = {}
        self.deleted: dict[str, str] = {}
        self.content: dict[str, str] = {}
        self.now = NOON
        self.count = 0

    def take(self, command: Command, id: str | None = None, new: EndpointKeys | None = None) -> Any:
        self.count += 1
        self.now += timedelta(seconds=1)
        facts = {
            source: Fact(
                is_folder=source.must_be != "file",
                files=frozenset(source.wants),
                texts=dict.fromkeys(source.reads, "dependencies: []"),
                artifact=source.artifact or Artifact(digest=self.content.get(source.path, "0") * 64, name=source.name),
            )
            for source in sources_of(command, self.assets)
        }
        world = World(self.endpoints, self.assets, CATALOG, Machine(8, 32), deleted=self.deleted, facts=facts)
        id = id or f"c{self.count}"
        outcome = decide(command, id, world, self.now, new or keys("e"))
        if isinstance(outcome.write, EndpointDesired):
            self.endpoints[outcome.write.endpoint] = outcome.write
            self.deleted.pop(outcome.write.endpoint, None)
        elif isinstance(outcome.write, AssetRegistered):
            self.assets[outcome.write.key()] = outcome.write
        if outcome.delete is not None:
            del self.endpoints[outcome.delete]
            self.deleted[outcome.delete] = id
        return outcome


@pytest.fixture
def log() -> Log:
    return Log()


def online(**settings: Any) -> OnlineDeploymentSpec:
    configuration = CodeConfiguration(code="/src", scoring_script="score.py")
    return OnlineDeploymentSpec(code_configuration=configuration, **settings)


def put(spec: OnlineDeploymentSpec, deployment: str = "blue") -> PutDeployment:
    return PutDeployment(endpoint="shop", deployment=deployment, spec=spec)


CREATE = CreateEndpoint(endpoint="shop", spec=OnlineEndpointSpec())


def test_an_online_endpoint_gets_two_keys_and_a_batch_endpoint_none(log: Log) -> None:
    made = log.take(CREATE, "c", keys("a"))
    assert made.reply == CommandAccepted(command_id="c", subject="shop", generation=1)
    assert made.write.keys == keys("a")
    assert made.write.created_at == made.write.updated_at == log.now
    batch = log.take(CreateEndpoint(endpoint="nightly", spec=BatchEndpointSpec()))
    assert batch.write.keys is None


def test_regenerating_a_key_leaves_the_other(log: Log) -> None:
    log.take(CREATE, new=keys("a"))
    after = log.take(RegenerateKey(endpoint="shop", key_type="secondary"), new=keys("b")).write
    assert after.keys.primary == keys("a").primary
    assert after.keys.secondary == keys("b").secondary


def test_an_update_changes_only_what_it_gives(log: Log) -> None:
    log.take(CREATE)
    log.take(put(online()))
    log.take(UpdateEndpoint(endpoint="shop", traffic={"blue": 100}, tags={"a": "b"}))
    after = log.take(UpdateEndpoint(endpoint="shop", description="new")).write
    assert (after.spec.description, after.spec.tags, after.traffic) == ("new", {"a": "b"}, {"blue": 100})
    assert after.generation == 4
    assert after.created_at < after.updated_at == log.now
    log.take(CreateEndpoint(endpoint="nightly", spec=BatchEndpointSpec()))
    batch = log.take(UpdateEndpoint(endpoint="nightly", defaults=BatchDefaults())).write
    assert batch.spec.defaults.deployment_name is None


@pytest.mark.parametrize(
    ("change", "is_new_version"),
    [
        ({}, False),
        ({"instance_count": 3}, False),
        ({"description": "x", "tags": {"a": "b"}, "properties": {"endpunkt.idempotent": "true"}}, False),
        ({"liveness_probe": {"period": 1}}, False),
        ({"request_settings": RequestSettings(max_queue_wait_ms=1)}, False),
        ({"request_settings": RequestSettings(max_concurrent_requests_per_instance=2)}, True),
        ({"request_settings": RequestSettings(request_timeout_ms=1)}, True),
        ({"environment_variables": {"A": "1"}}, True),
        ({"code_configuration": CodeConfiguration(code="/src", scoring_script="other.py")}, True),
        ({"code_configuration": CodeConfiguration(code="/new", scoring_script="score.py")}, True),
        ({"model": AssetReference(path="/model")}, True),
    ],
)
def test_only_what_instances_are_made_of_makes_a_new_version(
    log: Log, change: dict[str, Any], is_new_version: bool
) -> None:
    log.take(CREATE)
    log.take(put(online()))
    spec = OnlineDeploymentSpec.model_validate({**dict(online()), **change})
    after = log.take(put(spec)).write
    assert after.generation == 3
    assert after.deployments["blue"].spec == spec
    assert after.deployments["blue"].generation == (3 if is_new_version else 2)


def test_new_contents_under_an_old_path_are_a_new_version(log: Log) -> None:
    log.take(CREATE)
    log.take(put(online()))
    log.content["/src"] = "1"
    assert log.take(put(online())).write.deployments["blue"].generation == 3


def test_latest_becomes_the_version_that_it_means_now(log: Log) -> None:
    log.take(CREATE)
    log.content["/m1"], log.content["/m2"] = "1", "2"
    log.take(RegisterModel(name="m", version="1", path="/m1"))
    latest = put(online(model=AssetReference(id="azureml:m@latest")))
    first = log.take(latest).write.deployments["blue"]
    assert first.spec.model == AssetReference(id="azureml:m:1")
    assert first.model == Artifact(digest="1" * 64, name="m1")
    log.take(RegisterModel(name="m", version="2", path="/m2"))
    second = log.take(latest).write.deployments["blue"]
    assert second.model == Artifact(digest="2" * 64, name="m2")
    assert second.generation > first.generation


def test_a_deployment_keeps_its_autoscale_setting_when_it_is_replaced(log: Log) -> None:
    profile = ScaleProfile(name="default", capacity=Capacity(minimum=1, maximum=2, default=1))
    setting = AutoscaleSetting(profiles=(profile,))
    log.take(CREATE)
    log.take(put(online()))
    scaled = log.take(SetAutoscale(endpoint="shop", deployment="blue", autoscale=setting)).write
    assert scaled.deployments["blue"].autoscale == setting
    assert scaled.deployments["blue"].generation == 2
    assert log.take(put(online(instance_count=2))).write.deployments["blue"].autoscale == setting
    removed = log.take(SetAutoscale(endpoint="shop", deployment="blue", autoscale=None)).write
    assert removed.deployments["blue"].autoscale is None


def test_a_deleted_deployment_leaves_the_traffic_too(log: Log) -> None:
    log.take(CREATE)
    log.take(put(online()))
    log.take(put(online(), "green"))
    log.take(UpdateEndpoint(endpoint="shop", traffic={"blue": 100, "green": 0}))
    after = log.take(DeleteDeployment(endpoint="shop", deployment="green")).write
    assert after.deployments.keys() == {"blue"}
    assert after.traffic == {"blue": 100}


def test_mirrored_traffic(log: Log) -> None:
    log.take(CREATE)
    log.take(put(online()))
    log.take(put(online(), "green"))
    after = log.take(UpdateEndpoint(endpoint="shop", traffic={"blue": 100}, mirror_traffic={"green": 50})).write
    assert (after.traffic, after.mirror_traffic) == ({"blue": 100}, {"green": 50})
    after = log.take(UpdateEndpoint(endpoint="shop", description="x")).write
    assert after.mirror_traffic == {"green": 50}
    refused = log.take(DeleteDeployment(endpoint="shop", deployment="green")).reply
    assert isinstance(refused, CommandRejected)
    assert "50 % of the traffic as a mirror" in refused.problems[0].message
    assert log.take(UpdateEndpoint(endpoint="shop", mirror_traffic={"green": 0})).write.mirror_traffic == {}
    assert log.take(DeleteDeployment(endpoint="shop", deployment="green")).write.deployments.keys() == {"blue"}


@pytest.mark.parametrize(
    ("traffic", "mirrored", "fields"),
    [
        (None, {"green": 51}, {"mirror_traffic.green"}),
        (None, {"ghost": 10}, {"mirror_traffic.ghost"}),
        (None, {"green": 10, "dark": 10}, {"mirror_traffic"}),
        (None, {"blue": 10}, {"mirror_traffic.blue"}),
        ({"blue": 90, "dark": 10}, None, {"traffic.dark"}),
        ({"blue": 90, "dark": 20}, {"ghost": 60, "dark": 5}, {
            "traffic", "mirror_traffic", "mirror_traffic.ghost", "mirror_traffic.dark"
        }),
    ],
)  # fmt: skip
def test_what_cannot_be_mirrored(
    log: Log, traffic: dict[str, int] | None, mirrored: dict[str, int] | None, fields: set[str]
) -> None:
    log.take(CREATE)
    for name in ("blue", "green", "dark"):
        log.take(put(online(), name))
    log.take(UpdateEndpoint(endpoint="shop", traffic={"blue": 100}, mirror_traffic={"dark": 5}))
    reply = log.take(UpdateEndpoint(endpoint="shop", traffic=traffic, mirror_traffic=mirrored)).reply
    assert isinstance(reply, CommandRejected)
    assert {problem.field for problem in reply.problems} == fields


def test_an_endpoints_rules_are_checked_when_it_is_made_and_when_it_changes(log: Log) -> None:
    wrong = {"endpunkt.connections": "none", "endpunkt.stcky": "header:a", "team": "health"}
    reply = log.take(CreateEndpoint(endpoint="shop", spec=OnlineEndpointSpec(properties=wrong))).reply
    assert isinstance(reply, CommandRejected)
    assert {problem.field for problem in reply.problems} == {
        "spec.properties.endpunkt.connections",
        "spec.properties.endpunkt.stcky",
    }
    log.take(CREATE)
    reply = log.take(UpdateEndpoint(endpoint="shop", properties=wrong)).reply
    assert isinstance(reply, CommandRejected)
    assert [problem.field for problem in reply.problems] == [
        "properties.endpunkt.connections",
        "properties.endpunkt.stcky",
    ]


def test_an_endpoint_that_takes_tokens_has_no_keys_and_network_access_can_change(log: Log) -> None:
    made = log.take(CreateEndpoint(endpoint="shop", spec=OnlineEndpointSpec(auth_mode="aml_token"))).write
    assert made.keys is None
    reply = log.take(RegenerateKey(endpoint="shop", key_type="primary"), new=keys("b")).reply
    assert isinstance(reply, CommandRejected)
    assert "aml_token" in reply.problems[0].message
    after = log.take(UpdateEndpoint(endpoint="shop", public_network_access="disabled")).write
    assert after.spec.public_network_access == "disabled"


def test_a_replay_gets_the_same_answer_and_changes_nothing(log: Log) -> None:
    commands: list[Command] = [
        CREATE,
        put(online()),
        UpdateEndpoint(endpoint="shop", traffic={"blue": 100}),
        RegenerateKey(endpoint="shop", key_type="primary"),
        UpdateEndpoint(endpoint="shop", traffic={"blue": 0}),
        DeleteDeployment(endpoint="shop", deployment="blue"),
    ]
    answers = [log.take(command, f"id-{at}", keys(str(at))).reply for at, command in enumerate(commands)]
    for at, command in enumerate(commands):
        again = log.take(command, f"id-{at}", keys("f"))
        assert (again.reply, again.write, again.delete) == (answers[at], None, None)


def test_a_replayed_deletion_is_known_by_the_tombstone_and_then_by_the_new_document(log: Log) -> None:
    log.take(CREATE)
    first = log.take(DeleteEndpoint(endpoint="shop"), "bye")
    assert first.reply == CommandAccepted(command_id="bye", subject="shop", generation=NO_GENERATION)
    assert first.delete == "shop"
    again = log.take(DeleteEndpoint(endpoint="shop"), "bye")
    assert (again.reply, again.delete) == (first.reply, None)
    assert isinstance(log.take(DeleteEndpoint(endpoint="shop"), "another").reply, CommandRejected)
    log.take(CREATE)
    again = log.take(DeleteEndpoint(endpoint="shop"), "bye")
    assert (again.reply, again.delete) == (first.reply, None)
    assert log.take(DeleteEndpoint(endpoint="shop")).delete == "shop"


def test_the_latest_64_commands_are_remembered(log: Log) -> None:
    log.take(CREATE, "first")
    for at in range(REMEMBERED):
        log.take(UpdateEndpoint(endpoint="shop", description=str(at)), f"u{at}")
    applied = [each.command_id for each in log.endpoints["shop"].applied]
    assert applied == [f"u{at}" for at in range(REMEMBERED)]
    assert isinstance(log.take(CREATE, "first").reply, CommandRejected)


def test_a_version_of_a_model_is_never_replaced(log: Log) -> None:
    command = RegisterModel(name="m", version="1", path="/m", description="d", tags={"a": "b"})
    first = log.take(command, "reg")
    assert first.reply == CommandAccepted(command_id="reg", subject="model:m:1", generation=1)
    assert first.write.artifact == Artifact(digest="0" * 64, name="m")
    assert first.write.registered_at == log.now
    # The same again, by the same command or by a script that runs twice, is no mistake and changes nothing.
    for id in ("reg", "other"):
        again = log.take(command, id)
        assert (again.reply.generation, again.write) == (1, None)
    log.content["/m"] = "1"
    rejected = log.take(command, "third").reply
    assert isinstance(rejected, CommandRejected)
    assert rejected.subject == "model:m:1"
    assert "another content" in rejected.problems[0].message


def test_a_rejection_changes_nothing(log: Log) -> None:
    log.take(CREATE)
    outcome = log.take(UpdateEndpoint(endpoint="shop", traffic={"ghost": 50}), "bad")
    assert outcome.write is None
    assert outcome.reply.command_id == "bad"
    assert {problem.field for problem in outcome.reply.problems} == {"traffic", "traffic.ghost"}
    assert log.endpoints["shop"].generation == 1
