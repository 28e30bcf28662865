"""A command and the state it meets -> the new state and the answer.

PURE, see the package. An accepted command makes exactly one document; a command that is already in the state is
answered as it was the first time and changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from contracts.messages import (
    PROTOCOL,
    WARMUP_REQUEST,
    Applied,
    Artifact,
    AssetRegistered,
    BatchEndpointSpec,
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    DeploymentDesired,
    DeploymentSpec,
    EndpointDesired,
    EndpointKeys,
    EnvironmentDesired,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegenerateKey,
    RegisterAsset,
    SetAutoscale,
    UpdateEndpoint,
)
from provisioner.core.sources import CODE, MODEL, exact, is_registered, model_type, sources_of
from provisioner.core.validation import check
from provisioner.core.world import Command, Fact, Source, World

REMEMBERED = 64
"""How many applied commands an endpoint's document remembers."""

NO_GENERATION = 0
"""The generation that answers for a deletion: no document holds it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer, and what is written before it is given: one document, or the deletion of an endpoint's."""

    reply: CommandAccepted | CommandRejected
    write: EndpointDesired | AssetRegistered | None = None
    delete: str | None = None


def known(command: Command, command_id: str, world: World) -> CommandAccepted | None:
    """The answer to a command that was applied before."""
    if isinstance(command, RegisterAsset):
        asset = world.assets.get(command.subject)
        applied = asset is not None and asset.command_id == command_id
        return _accepted(command_id, command.subject, 1) if applied else None
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is not None:
        generations = {each.command_id: each.generation for each in endpoint.applied}
        generation = generations.get(command_id)
        return None if generation is None else _accepted(command_id, command.endpoint, generation)
    if isinstance(command, DeleteEndpoint) and world.deleted.get(command.endpoint) == command_id:
        return _accepted(command_id, command.endpoint, NO_GENERATION)
    return None


def decide(command: Command, command_id: str, world: World, now: datetime, new_keys: EndpointKeys | None) -> Outcome:
    """What becomes of `command`. `new_keys` are those that a CreateEndpoint or RegenerateKey uses.

    Facts about each of the command's sources must be in `world`, with the stored artifact where it can be used.
    """
    if answer := known(command, command_id, world):
        return Outcome(answer)
    if problems := check(command, world):
        return Outcome(CommandRejected(command_id=command_id, subject=_subject(command), problems=problems))
    match command:
        case RegisterAsset():
            return _register(command, command_id, world, now)
        case DeleteEndpoint():
            return Outcome(_accepted(command_id, command.endpoint, NO_GENERATION), delete=command.endpoint)
        case CreateEndpoint():
            document = _create(command, world, now, new_keys)
        case _:
            document = _change(command, world, now, new_keys)
    applied = Applied(command_id=command_id, generation=document.generation)
    document = document.replace(applied=(*document.applied, applied)[-REMEMBERED:])
    return Outcome(_accepted(command_id, document.endpoint, document.generation), write=document)


def _subject(command: Command) -> str:
    return command.subject if isinstance(command, RegisterAsset) else command.endpoint


def _accepted(command_id: str, subject: str, generation: int) -> CommandAccepted:
    return CommandAccepted(command_id=command_id, subject=subject, generation=generation)


def _register(command: RegisterAsset, command_id: str, world: World, now: datetime) -> Outcome:
    reply = _accepted(command_id, command.subject, 1)
    if command.subject in world.assets:
        # `check` saw that it is the same in every field, so somebody only ran their script again.
        return Outcome(reply)
    asset = AssetRegistered(
        kind=command.KIND,
        name=command.name,
        version=command.version,
        type=command.type,
        description=command.description,
        tags=command.tags,
        artifact=_artifact(*_stored(command, world)["path"]),
        command_id=command_id,
        registered_at=now,
    )
    return Outcome(reply, write=asset)


def _create(command: CreateEndpoint, world: World, now: datetime, new_keys: EndpointKeys | None) -> EndpointDesired:
    # The document takes the place of a tombstone: a replay of the deletion before it must not delete this endpoint.
    deletion = world.deleted.get(command.endpoint)
    return EndpointDesired(
        endpoint=command.endpoint,
        generation=1,
        created_at=now,
        updated_at=now,
        spec=command.spec,
        keys=new_keys if isinstance(command.spec, OnlineEndpointSpec) and command.spec.auth_mode == "key" else None,
        applied=() if deletion is None else (Applied(command_id=deletion, generation=NO_GENERATION),),
    )


def _change(command: Command, world: World, now: datetime, new_keys: EndpointKeys | None) -> EndpointDesired:
    """The endpoint's document after a command that changes a part of it."""
    assert not isinstance(command, RegisterAsset)
    before = world.endpoints[command.endpoint]
    after = before.replace(generation=before.generation + 1, updated_at=now)
    match command:
        case UpdateEndpoint():
            return _update(command, after)
        case RegenerateKey():
            assert after.keys is not None
            assert new_keys is not None
            return after.replace(
                keys=after.keys.model_copy(update={command.key_type: getattr(new_keys, command.key_type)})
            )
        case PutDeployment():
            return _put(command, after, world)
        case DeleteDeployment():
            return after.replace(
                deployments={name: each for name, each in after.deployments.items() if name != command.deployment},
                traffic={name: share for name, share in after.traffic.items() if name != command.deployment},
                mirror_traffic={name: at for name, at in after.mirror_traffic.items() if name != command.deployment},
            )
        case SetAutoscale():
            deployment = after.deployments[command.deployment].model_copy(update={"autoscale": command.autoscale})
            return after.replace(deployments={**after.deployments, command.deployment: deployment})
    raise TypeError(f"{type(command).__name__} is not a command of the provisioner")


def _update(command: UpdateEndpoint, after: EndpointDesired) -> EndpointDesired:
    fields = ("description", "tags", "properties", "public_network_access")
    given = {name: value for name in fields if (value := getattr(command, name)) is not None}
    if command.defaults is not None:
        assert isinstance(after.spec, BatchEndpointSpec)
        given["defaults"] = command.defaults
    traffic = after.traffic if command.traffic is None else command.traffic
    mirrored = after.mirror_traffic if command.mirror_traffic is None else command.mirror_traffic
    mirrored = {name: share for name, share in mirrored.items() if share}
    return after.replace(spec=after.spec.model_copy(update=given), traffic=traffic, mirror_traffic=mirrored)


def _put(command: PutDeployment, after: EndpointDesired, world: World) -> EndpointDesired:
    spec, stored = command.spec, _stored(command, world)
    artifacts = {field: _artifact(*each) for field, each in stored.items()}
    before = after.deployments.get(command.deployment)
    deployment = DeploymentDesired(
        generation=after.generation,
        spec=_exact(spec, world),
        model=artifacts.get(f"{MODEL}.path") or artifacts.get(f"{MODEL}.id"),
        model_type=model_type(spec, world.assets),
        code=artifacts.get(CODE),
        environment=_environment(stored),
        autoscale=before.autoscale if before else None,
    )
    if before is not None and template(before) == template(deployment):
        # Its instances are already what is asked for; a new count or description replaces none of them.
        deployment = deployment.model_copy(update={"generation": before.generation})
    return after.replace(deployments={**after.deployments, command.deployment: deployment})


def _exact(spec: DeploymentSpec, world: World) -> DeploymentSpec:
    """`@latest` means the latest one now: the document says which that was."""
    given: dict[str, object] = {}
    if spec.model is not None and spec.model.id is not None:
        given["model"] = spec.model.model_copy(update={"id": exact(spec.model.id, "model", world.assets)})
    if spec.environment is not None and spec.environment.id is not None:
        id = exact(spec.environment.id, "environment", world.assets)
        given["environment"] = spec.environment.model_copy(update={"id": id})
    if spec.code_configuration is not None and is_registered(spec.code_configuration.code):
        code = exact(spec.code_configuration.code, "code", world.assets)
        given["code_configuration"] = spec.code_configuration.model_copy(update={"code": code})
    return spec.model_copy(update=given)


def _environment(stored: Mapping[str, tuple[Source, Fact]]) -> EnvironmentDesired | None:
    """The environment that is named, or the one that an MLflow model brings along."""
    for source, fact in stored.values():
        if (file := fact.environment_file(source)) is not None:
            return EnvironmentDesired(artifact=_artifact(source, fact), file=file)
    return None


def template(deployment: DeploymentDesired) -> tuple[object, ...]:
    """What an instance is made of: deployments with equal templates can keep their instances."""
    made_of = (deployment.model, deployment.model_type, deployment.code, deployment.environment)
    return (*made_of, *_template(deployment.spec))


def _template(spec: DeploymentSpec) -> tuple[object, ...]:
    script = spec.code_configuration.scoring_script if spec.code_configuration is not None else None
    common = (spec.kind, script, spec.instance_type)
    if isinstance(spec, OnlineDeploymentSpec):
        settings = spec.request_settings
        limits = (settings.request_timeout_ms, settings.max_concurrent_requests_per_instance)
        properties = (spec.properties.get(WARMUP_REQUEST), spec.properties.get(PROTOCOL))
        return (*common, spec.environment_variables, *limits, *properties, spec.data_collector)
    return (*common, spec.resources, spec.settings)


def _stored(command: Command, world: World) -> dict[str, tuple[Source, Fact]]:
    """The command's sources with what was found, by field."""
    return {source.field: (source, world.facts[source]) for source in sources_of(command, world.assets)}


def _artifact(source: Source, fact: Fact) -> Artifact:
    assert fact.artifact is not None, f"{source.field} is stored before it is decided on"
    return fact.artifact
