"""A command and the state it meets -> the new state and the answer.

PURE, see the package. An accepted command makes exactly one document; a command that is already in the state is
answered as it was the first time and changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime

from contracts.messages import (
    Applied,
    Artifact,
    AssetReference,
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
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegenerateKey,
    RegisterModel,
    SetAutoscale,
    UpdateEndpoint,
)
from provisioner.core.validation import check, resolve
from provisioner.core.world import Command, World, sources_of

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
    if isinstance(command, RegisterModel):
        asset = world.assets.get(f"{command.key()}:{command.version}")
        applied = asset is not None and asset.command_id == command_id
        return _accepted(command_id, f"{command.key()}:{command.version}", 1) if applied else None
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
        case RegisterModel():
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
    return f"{command.key()}:{command.version}" if isinstance(command, RegisterModel) else command.endpoint


def _accepted(command_id: str, subject: str, generation: int) -> CommandAccepted:
    return CommandAccepted(command_id=command_id, subject=subject, generation=generation)


def _register(command: RegisterModel, command_id: str, world: World, now: datetime) -> Outcome:
    reply = _accepted(command_id, _subject(command), 1)
    if _subject(command) in world.assets:
        # `check` saw that it is the same in every field, so somebody only ran their script again.
        return Outcome(reply)
    asset = AssetRegistered(
        name=command.name,
        version=command.version,
        type=command.type,
        description=command.description,
        tags=command.tags,
        artifact=_artifact(command, "path", world),
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
        keys=new_keys if isinstance(command.spec, OnlineEndpointSpec) else None,
        applied=() if deletion is None else (Applied(command_id=deletion, generation=NO_GENERATION),),
    )


def _change(command: Command, world: World, now: datetime, new_keys: EndpointKeys | None) -> EndpointDesired:
    """The endpoint's document after a command that changes a part of it."""
    assert not isinstance(command, RegisterModel)
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
            )
        case SetAutoscale():
            deployment = after.deployments[command.deployment].model_copy(update={"autoscale": command.autoscale})
            return after.replace(deployments={**after.deployments, command.deployment: deployment})
    raise TypeError(f"{type(command).__name__} is not a command of the provisioner")


def _update(command: UpdateEndpoint, after: EndpointDesired) -> EndpointDesired:
    given = {
        name: value for name in ("description", "tags", "properties") if (value := getattr(command, name)) is not None
    }
    if command.defaults is not None:
        assert isinstance(after.spec, BatchEndpointSpec)
        given["defaults"] = command.defaults
    traffic = after.traffic if command.traffic is None else command.traffic
    return after.replace(spec=after.spec.model_copy(update=given), traffic=traffic)


def _put(command: PutDeployment, after: EndpointDesired, world: World) -> EndpointDesired:
    spec, model = command.spec, None
    if spec.model is not None and spec.model.id is not None:
        asset = resolve(spec.model.id, world.assets)
        assert asset is not None
        # `@latest` means the latest one now: the document says which that was.
        model = asset.artifact
        exact = AssetReference(id=f"azureml:{asset.name}:{asset.version}")
        spec = spec.model_copy(update={"model": exact})
    elif spec.model is not None:
        model = _artifact(command, "spec.model.path", world)
    before = after.deployments.get(command.deployment)
    deployment = DeploymentDesired(
        generation=after.generation,
        spec=spec,
        model=model,
        code=_artifact(command, "spec.code_configuration.code", world),
        autoscale=before.autoscale if before else None,
    )
    if before is not None and template(before) == template(deployment):
        # Its instances are already what is asked for; a new count or description replaces none of them.
        deployment = deployment.model_copy(update={"generation": before.generation})
    return after.replace(deployments={**after.deployments, command.deployment: deployment})


def template(deployment: DeploymentDesired) -> tuple[object, ...]:
    """What an instance is made of: deployments with equal templates can keep their instances."""
    return (deployment.model, deployment.code, *_template(deployment.spec))


def _template(spec: DeploymentSpec) -> tuple[object, ...]:
    common = (spec.kind, spec.code_configuration.scoring_script, spec.instance_type)
    if isinstance(spec, OnlineDeploymentSpec):
        settings = spec.request_settings
        limits = (settings.request_timeout_ms, settings.max_concurrent_requests_per_instance)
        return (*common, spec.environment_variables, *limits)
    return (*common, spec.resources, spec.settings)


def _artifact(command: Command, field: str, world: World) -> Artifact:
    """The stored artifact of one of the command's sources."""
    source = next(source for source in sources_of(command) if source.field == field)
    artifact = world.facts[source].artifact
    assert artifact is not None, "a source is stored before it is decided on"
    return artifact
