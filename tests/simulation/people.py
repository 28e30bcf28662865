"""Whoever sends commands: scripts for endpoints, each in order, together in any order."""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from contracts.messages import (
    AssetReference,
    AutoscaleSetting,
    BatchDefaults,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchInput,
    BatchOverrides,
    BatchResources,
    BatchSettings,
    CancelBatchJob,
    Capacity,
    CodeConfiguration,
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    EndpointCommand,
    EnvironmentReference,
    Message,
    MetricTrigger,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Probe,
    PutDeployment,
    RegenerateKey,
    RegisterModel,
    RequestSettings,
    RetrySettings,
    ScaleAction,
    ScaleProfile,
    ScaleRule,
    SetAutoscale,
    StartBatchJob,
    UpdateEndpoint,
)
from contracts.messages.specs import IDEMPOTENT

from .invariants import Invariants
from .machine import BROKEN, UNBUILDABLE, Turn
from .provisioning import MISSING
from .world import World

DEPLOYMENTS = ("blue", "green", "red")
_TALKATIVE = 0.2
_MUST = (None, None, None, None, "create", "update")
_SPLITS = ((100,), (90, 10), (50, 50), (33, 33, 34), (0,), (80, 10))
"""The last one sums to 90, which nobody may want."""


def _at_once(seen: Invariants) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Command:
    """What is sent under an id, as soon as `when` what is seen allows it."""

    id: str
    message: Message
    when: Callable[[Invariants], bool] = _at_once


Script = list[Command]


def deployment(rng: random.Random, *, registered: bool) -> OnlineDeploymentSpec:
    """A deployment of some kind, now and then one whose script is broken, whose environment cannot be built or whose
    code is nowhere; with `registered` perhaps of a registered model."""
    variables = {"VERSION": str(rng.randint(1, 3))}
    if rng.random() < 0.1:
        variables[BROKEN] = "true"
    code = f"/src/{MISSING if rng.random() < 0.1 else 'score'}"
    model = rng.choice((None, AssetReference(path="/models/diabetes"), AssetReference(id="azureml:diabetes:1")))
    file = f"/env/{UNBUILDABLE if rng.random() < 0.2 else 'conda.yml'}"
    return OnlineDeploymentSpec(
        environment=rng.choice((None, EnvironmentReference(conda_file=file))),
        properties={IDEMPOTENT: rng.choice(("true", "false"))},
        model=None if model is not None and model.id is not None and not registered else model,
        code_configuration=CodeConfiguration(code=code, scoring_script="score.py"),
        environment_variables=variables,
        instance_count=rng.choice((0, 1, 1, 2, 3)),
        request_settings=RequestSettings(max_concurrent_requests_per_instance=rng.choice((1, 2))),
        readiness_probe=Probe(initial_delay=0, period=1, failure_threshold=5),
    )


def autoscale(rng: random.Random) -> AutoscaleSetting:
    """Out when there is much to do, in when there is little, within seconds."""

    def rule(operator: str, threshold: float, direction: str) -> ScaleRule:
        trigger = MetricTrigger(
            metric_name="RequestsPerMinute",
            time_grain=timedelta(seconds=2),
            time_window=timedelta(seconds=6),
            operator=operator,
            threshold=threshold,
        )
        return ScaleRule(
            metric_trigger=trigger,
            scale_action=ScaleAction(direction=direction, value=1, cooldown=timedelta(seconds=5)),
        )

    capacity = Capacity(minimum=rng.randint(0, 1), default=1, maximum=rng.randint(2, 4))
    rules = (rule("GreaterThan", 200, "Increase"), rule("LessThan", 50, "Decrease"))
    return AutoscaleSetting(profiles=(ScaleProfile(name="load", capacity=capacity, rules=rules),))


def random_script(endpoint: str, length: int, rng: random.Random, *, deletes: bool) -> Script:
    """Commands about one endpoint; many make sense in their order, and some do not. With `deletes` the endpoint goes
    and comes back, and models are registered meanwhile: then what a command meets depends on how fast others are."""
    commands: Script = []

    def say(message: Message) -> None:
        commands.append(Command(f"{endpoint}-{len(commands)}", message))

    say(CreateEndpoint(endpoint=endpoint, spec=OnlineEndpointSpec()))
    there: set[str] = set()
    while len(commands) < length:
        name = rng.choice(sorted(there) if there and rng.random() < 0.7 else DEPLOYMENTS)
        match rng.choices(("put", "traffic", "autoscale", "delete", "key", "again", "end"), (8, 6, 3, 2, 1, 1, 1))[0]:
            case "put":
                spec = deployment(rng, registered=deletes)
                there.add(name)
                say(PutDeployment(endpoint=endpoint, deployment=name, spec=spec, must=rng.choice(_MUST)))
            case "traffic":
                say(UpdateEndpoint(endpoint=endpoint, traffic=_traffic(rng, there)))
            case "autoscale":
                setting = rng.choice((None, autoscale(rng), autoscale(rng)))
                say(SetAutoscale(endpoint=endpoint, deployment=name, autoscale=setting))
            case "delete":
                say(DeleteDeployment(endpoint=endpoint, deployment=name))
            case "key":
                say(RegenerateKey(endpoint=endpoint, key_type=rng.choice(("primary", "secondary"))))
            case "again":
                say(CreateEndpoint(endpoint=endpoint, spec=OnlineEndpointSpec()))
            case "end" if deletes:
                say(DeleteEndpoint(endpoint=endpoint))
                create = CreateEndpoint(endpoint=endpoint, spec=OnlineEndpointSpec())
                patient = rng.random() < 0.7
                gone = (lambda seen: endpoint not in seen.observed) if patient else _at_once
                commands.append(Command(f"{endpoint}-{len(commands)}", create, gone))
                there.clear()
    return commands


def _traffic(rng: random.Random, there: set[str]) -> dict[str, int]:
    names = sorted(there) if there and rng.random() < 0.8 else DEPLOYMENTS
    shares = rng.choice([shares for shares in _SPLITS if len(shares) <= len(names)])
    return dict(zip(rng.sample(names, len(shares)), shares, strict=True))


def models() -> Script:
    """A model, registered twice by different people, and once with another content under the same version."""
    paths = ("/models/diabetes", "/models/diabetes", "/models/other", f"/models/{MISSING}")
    return [
        Command(f"model-{number}", RegisterModel(name="diabetes", version="1", path=path))
        for number, path in enumerate(paths)
    ]


def batch_endpoint(endpoint: str, rng: random.Random) -> Script:
    """An endpoint with a deployment that jobs run on."""
    settings = BatchSettings(
        mini_batch_size=rng.randint(2, 4),
        error_threshold=rng.choice((-1, 0, 5)),
        retry_settings=RetrySettings(max_retries=rng.randint(0, 2)),
    )
    spec = BatchDeploymentSpec(
        code_configuration=CodeConfiguration(code="/src/batch", scoring_script="batch.py"),
        resources=BatchResources(instance_count=rng.randint(1, 3)),
        settings=settings,
    )
    messages = (
        CreateEndpoint(endpoint=endpoint, spec=BatchEndpointSpec()),
        PutDeployment(endpoint=endpoint, deployment="nightly", spec=spec),
        UpdateEndpoint(endpoint=endpoint, defaults=BatchDefaults(deployment_name="nightly")),
    )
    return [Command(f"{endpoint}-{number}", message) for number, message in enumerate(messages)]


def jobs(endpoint: str, count: int, rng: random.Random) -> dict[str, Script]:
    """Jobs on a batch endpoint, some before it is complete; some are canceled, some ask for too many workers."""

    def complete(seen: Invariants) -> bool:
        spec = seen.desired[endpoint].spec if endpoint in seen.desired else None
        return isinstance(spec, BatchEndpointSpec) and spec.defaults.deployment_name is not None

    scripts: dict[str, Script] = {}
    for number in range(count):
        job = f"job-{number}"
        overrides = BatchOverrides(instance_count=rng.choice((None, None, None, 40)))
        start = StartBatchJob(job=job, endpoint=endpoint, input=BatchInput(uri="file:///in"), overrides=overrides)
        script = scripts[job] = [Command(f"{job}-start", start, complete if rng.random() < 0.8 else _at_once)]
        if rng.random() < 0.3:
            script.append(Command(f"{job}-cancel", CancelBatchJob(job=job)))
    return scripts


class People:
    """Sends the scripts."""

    name = "people"

    def __init__(self, world: World, scripts: Mapping[str, Sequence[Command]]):
        self._world = world
        self._left: dict[str, Iterator[Command]] = {name: iter(script) for name, script in scripts.items()}
        self._next: dict[str, Command] = {}
        self._strays = 0
        for name in scripts:
            self._advance(name)

    def turns(self) -> list[Turn]:
        """Something to say, now and then, if there is anything and its time has come."""
        if not self._next or self._world.rng.random() > _TALKATIVE:
            return []
        ready = [name for name, command in self._next.items() if command.when(self._world.watch)]
        return [partial(self._send, ready)] if ready else []

    def done(self) -> bool:
        """Whether everything is sent."""
        return not self._next

    def _send(self, ready: Sequence[str]) -> str:
        world = self._world
        if world.happens(world.chaos.stray):
            self._strays += 1
            headers = {"ce_id": f"stray-{self._strays}", "ce_type": "endpunkt.UpdateEndpoint.v1"}
            world.bus.append_raw(EndpointCommand.TOPIC, "shop", b'{"endpoint": "shop", "trafic": {}}', headers)
            return "sent what is no command"
        name = world.rng.choice(ready)
        command = self._next[name]
        self._advance(name)
        for _ in range(2 if world.happens(world.chaos.repeat) else 1):
            world.bus.publish(command.message, id=command.id, source=name, now=world.now)
        return f"sent {type(command.message).__name__} {command.id}"

    def _advance(self, name: str) -> None:
        command = next(self._left[name], None)
        if command is None:
            self._next.pop(name, None)
        else:
            self._next[name] = command
