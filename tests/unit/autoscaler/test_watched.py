"""Which deployments are watched, and what becomes of their samples."""

from datetime import UTC, datetime, timedelta

from autoscaler.watched import REPLAY_SECONDS, Deployments
from contracts.messages import (
    Artifact,
    AutoscaleSetting,
    BatchDeploymentSpec,
    Capacity,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentSpec,
    EndpointDesired,
    LoadSample,
    MetricTrigger,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    ScaleAction,
    ScaleProfile,
    ScaleRule,
)

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CODE = CodeConfiguration(code="file:///code", scoring_script="score.py")
ONLINE = OnlineDeploymentSpec(code_configuration=CODE, instance_count=3)


def setting(window: int = 60, *, enabled: bool = True, maximum: int = 5) -> AutoscaleSetting:
    rule = ScaleRule(
        metric_trigger=MetricTrigger(
            metric_name="RequestsPerMinute",
            time_grain=timedelta(seconds=1),
            time_window=timedelta(seconds=window),
            operator="GreaterThan",
            threshold=600,
        ),
        scale_action=ScaleAction(direction="Increase", value=1, cooldown=timedelta(minutes=1)),
    )
    capacity = Capacity(minimum=1, maximum=maximum, default=1)
    return AutoscaleSetting(enabled=enabled, profiles=(ScaleProfile(name="default", capacity=capacity, rules=(rule,)),))


def desired(autoscale: AutoscaleSetting | None, spec: DeploymentSpec = ONLINE) -> EndpointDesired:
    deployment = DeploymentDesired(
        generation=1, spec=spec, code=Artifact(digest="0" * 64, name="code"), autoscale=autoscale
    )
    return EndpointDesired(
        endpoint="diabetes",
        generation=1,
        created_at=NOON,
        updated_at=NOON,
        spec=OnlineEndpointSpec(),
        deployments={"blue": deployment},
    )


def load(second: int = 0, deployment: str = "blue") -> LoadSample:
    return LoadSample(
        endpoint="diabetes",
        deployment=deployment,
        source="router-1",
        at=NOON + timedelta(seconds=second),
        requests=1,
        failures=0,
        in_flight=0,
        latency_ms_sum=0,
        latency_ms_max=0,
    )


def held(deployments: Deployments, key: str = "diabetes/blue") -> int:
    """How many seconds of samples are there."""
    return sum(1 for ring in deployments.by_key[key].window.load.values() for _ in ring.items())


def test_only_online_deployments_with_a_setting_are_watched() -> None:
    deployments = Deployments()
    deployments.change("diabetes", desired(None), NOON)
    deployments.change("batches", desired(setting(), BatchDeploymentSpec(code_configuration=CODE)), NOON)
    assert deployments.by_key == {}
    deployments.change("diabetes", desired(setting()), NOON)
    watched = deployments.by_key["diabetes/blue"]
    assert (watched.endpoint, watched.deployment, watched.declared) == ("diabetes", "blue", 3)
    assert watched.profile == setting().profiles[0]


def test_a_setting_that_is_switched_off_is_known_and_not_evaluated() -> None:
    deployments = Deployments()
    deployments.change("diabetes", desired(setting(enabled=False)), NOON)
    assert deployments.by_key["diabetes/blue"].profile is None


def test_a_removed_setting_a_removed_deployment_and_a_deleted_endpoint_are_forgotten() -> None:
    for gone in (desired(None), desired(setting()).replace(deployments={}), None):
        deployments = Deployments()
        deployments.change("diabetes", desired(setting()), NOON)
        deployments.change("diabetes", gone, NOON)
        assert deployments.by_key == {}


def test_a_changed_profile_keeps_the_samples_and_how_long_it_was_watched() -> None:
    deployments = Deployments()
    deployments.change("diabetes", desired(setting()), NOON)
    deployments.caught_up()
    for second in range(30):
        deployments.add(load(second), NOON)
    deployments.change("diabetes", desired(setting(window=2 * REPLAY_SECONDS, maximum=9)), NOON + timedelta(hours=1))
    watched = deployments.by_key["diabetes/blue"]
    assert watched.profile is not None
    assert watched.profile.capacity.maximum == 9
    assert watched.window.since == NOON
    assert watched.window.seconds > 2 * REPLAY_SECONDS
    assert held(deployments) == 30


def test_samples_that_are_read_before_their_deployment_are_kept_until_all_is_read() -> None:
    deployments = Deployments()
    deployments.add(load(), NOON)
    deployments.add(load(deployment="green"), NOON)
    deployments.change("diabetes", desired(setting()), NOON)
    assert held(deployments) == 1
    deployments.caught_up()
    deployments.add(load(1), NOON)
    deployments.add(load(1, deployment="green"), NOON)
    assert held(deployments) == 2
    assert set(deployments.by_key) == {"diabetes/blue"}
