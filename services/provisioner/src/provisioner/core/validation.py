"""What is wrong with a command: every problem at once, each with its field, Azure's code and the next step.

PURE, see the package. `contracts` has checked forms already (names, ranges, unknown fields); here a command meets the
state that it would change.
"""

import re
from collections.abc import Iterator, Mapping

from contracts.messages import (
    IDEMPOTENT,
    Artifact,
    AssetRegistered,
    AutoscaleSetting,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    CreateEndpoint,
    DeleteDeployment,
    DeleteEndpoint,
    DeploymentSpec,
    EndpointDesired,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Problem,
    PutDeployment,
    RegenerateKey,
    RegisterModel,
    SetAutoscale,
    Traffic,
    UpdateEndpoint,
)
from provisioner.core.world import Command, Source, World, sources_of, stays_inside

METRICS = (
    "RequestsPerMinute",
    "RequestLatency",
    "CpuUtilizationPercentage",
    "CpuMemoryUtilizationPercentage",
)
"""The metrics that signals are published for, by Azure's names."""

RESERVED = frozenset({"AZUREML_MODEL_DIR", "AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "SCORING_TIMEOUT_MS"})
RESERVED_PREFIX = "ENDPUNKT_"
RESERVED_FOR_BATCH = RESERVED | {"AZUREML_BI_OUTPUT_PATH"}
_VARIABLE = re.compile(r"[^=\x00]+")


def check(command: Command, world: World) -> tuple[Problem, ...]:
    """Every reason not to apply `command`; none when it can be applied."""
    match command:
        case CreateEndpoint():
            return tuple(_create_endpoint(command, world))
        case UpdateEndpoint():
            return tuple(_update_endpoint(command, world))
        case DeleteEndpoint():
            return tuple(_missing(command.endpoint, world))
        case RegenerateKey():
            return tuple(_regenerate_key(command, world))
        case PutDeployment():
            return tuple(_put_deployment(command, world))
        case DeleteDeployment():
            return tuple(_delete_deployment(command, world))
        case SetAutoscale():
            return tuple(_set_autoscale(command, world))
        case RegisterModel():
            return tuple(_register_model(command, world))
    raise TypeError(f"{type(command).__name__} is not a command of the provisioner")


# Endpoints


def _create_endpoint(command: CreateEndpoint, world: World) -> Iterator[Problem]:
    name = command.endpoint
    if name in world.endpoints:
        yield _problem("EndpointAlreadyExists", "endpoint", f"'{name}' exists: update it, or choose another name")
    elif name in world.deleting:
        yield _problem("ResourceNotReady", "endpoint", f"'{name}' is still being deleted: try again when it is gone")
    if len(world.endpoints) >= world.quotas.endpoints:
        yield _quota("endpoint", "endpoints", len(world.endpoints) + 1, world.quotas.endpoints)
    if isinstance(command.spec, BatchEndpointSpec) and (default := command.spec.defaults.deployment_name):
        message = f"a new endpoint has no deployment '{default}' yet: create it, then update the endpoint's default"
        yield _problem("ResourceNotFound", "spec.defaults.deployment_name", message)


def _update_endpoint(command: UpdateEndpoint, world: World) -> Iterator[Problem]:
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from _missing(command.endpoint, world)
        if command.traffic is not None:
            yield from _sum(command.traffic)
        return
    if command.traffic is not None:
        if isinstance(endpoint.spec, OnlineEndpointSpec):
            yield from _sum(command.traffic)
            yield from _unknown_targets(command.traffic, endpoint)
        else:
            message = f"'{endpoint.endpoint}' is a batch endpoint and has no traffic: set defaults.deployment_name"
            yield _problem("BadArgument", "traffic", message)
    if command.defaults is not None:
        if isinstance(endpoint.spec, OnlineEndpointSpec):
            message = f"'{endpoint.endpoint}' is an online endpoint and has no default deployment: set its traffic"
            yield _problem("BadArgument", "defaults", message)
        elif (default := command.defaults.deployment_name) and default not in endpoint.deployments:
            yield _no_deployment("defaults.deployment_name", default, endpoint)


def _sum(traffic: Traffic) -> Iterator[Problem]:
    total = sum(traffic.values())
    if total not in (0, 100):
        yield _problem("BadArgument", "traffic", f"the percentages sum to {total}: they must sum to 100, or all be 0")


def _unknown_targets(traffic: Traffic, endpoint: EndpointDesired) -> Iterator[Problem]:
    for name in traffic:
        if name not in endpoint.deployments:
            yield _no_deployment(f"traffic.{name}", name, endpoint)


def _regenerate_key(command: RegenerateKey, world: World) -> Iterator[Problem]:
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from _missing(command.endpoint, world)
    elif endpoint.keys is None:
        message = f"'{command.endpoint}' is a batch endpoint, which takes tokens and has no keys"
        yield _problem("BadArgument", "endpoint", message)


# Deployments


def _put_deployment(command: PutDeployment, world: World) -> Iterator[Problem]:
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from _missing(command.endpoint, world)
    else:
        yield from _place(command, endpoint, world)
    yield from _spec(command.spec, world)
    yield from _model(command, world)
    script = command.spec.code_configuration.scoring_script
    if not stays_inside(script):
        message = f"'{script}' must be a relative path below the code folder"
        yield _problem("BadArgument", "spec.code_configuration.scoring_script", message)
    for source in sources_of(command):
        yield from _source(source, world)


def _place(command: PutDeployment, endpoint: EndpointDesired, world: World) -> Iterator[Problem]:
    """Whether this kind of deployment, under this name, has a place on the endpoint."""
    name, exists = command.deployment, command.deployment in endpoint.deployments
    if command.spec.kind != endpoint.spec.kind:
        message = f"'{endpoint.endpoint}' is a {endpoint.spec.kind} endpoint: it takes {endpoint.spec.kind} deployments"
        yield _problem("BadArgument", "spec.kind", message)
    if command.must == "create" and exists:
        yield _problem("BadArgument", "deployment", f"'{name}' exists on '{endpoint.endpoint}': update it instead")
    if command.must == "update" and not exists:
        yield _no_deployment("deployment", name, endpoint)
    if exists:
        return
    here, limit = len(endpoint.deployments), world.quotas.deployments_per_endpoint
    if here >= limit:
        yield _quota("deployment", f"deployments on '{endpoint.endpoint}'", here + 1, limit)
    everywhere = sum(len(each.deployments) for each in world.endpoints.values())
    if everywhere >= world.quotas.deployments:
        yield _quota("deployment", "deployments", everywhere + 1, world.quotas.deployments)


def _spec(spec: DeploymentSpec, world: World) -> Iterator[Problem]:
    if spec.instance_type not in world.catalog.instance_types:
        known = ", ".join(sorted(world.catalog.instance_types))
        yield _problem("BadArgument", "spec.instance_type", f"'{spec.instance_type}' is unknown: use one of {known}")
    if isinstance(spec, OnlineDeploymentSpec):
        yield from _instances("spec.instance_count", spec.instance_count, world)
        yield from _environment("spec.environment_variables", spec.environment_variables, RESERVED)
        if spec.properties.get(IDEMPOTENT, "true") not in ("true", "false"):
            message = 'must be "true" or "false": may a request whose instance died be scored a second time?'
            yield _problem("BadArgument", f"spec.properties.{IDEMPOTENT}", message)
        if spec.liveness_probe.success_threshold != 1:
            message = "must be 1: an instance that fails its liveness probe is replaced"
            yield _problem("BadArgument", "spec.liveness_probe.success_threshold", message)
    else:
        yield from _batch_spec(spec, world)


def _batch_spec(spec: BatchDeploymentSpec, world: World) -> Iterator[Problem]:
    yield from _instances("spec.resources.instance_count", spec.resources.instance_count, world)
    variables = spec.settings.environment_variables
    yield from _environment("spec.settings.environment_variables", variables, RESERVED_FOR_BATCH)


def _instances(field: str, count: int, world: World) -> Iterator[Problem]:
    if count > world.quotas.instances_per_deployment:
        yield _quota(field, "instances of a deployment", count, world.quotas.instances_per_deployment)


def _environment(field: str, variables: Mapping[str, str], reserved: frozenset[str]) -> Iterator[Problem]:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\x00" in value:
            yield _problem("BadArgument", f"{field}.{name}", "is no environment variable: no '=' in names, and no NUL")
        elif name in reserved or name.startswith(RESERVED_PREFIX):
            hint = " (set request_settings.request_timeout_ms)" if name == "SCORING_TIMEOUT_MS" else ""
            yield _problem("BadArgument", f"{field}.{name}", f"is set by Endpunkt{hint}: choose another name")


def _model(command: PutDeployment, world: World) -> Iterator[Problem]:
    model = command.spec.model
    if model is not None and model.id is not None and resolve(model.id, world.assets) is None:
        name = re.split("[:@]", model.id.removeprefix("azureml:"))[0]
        versions = ", ".join(sorted(each.version for each in world.assets.values() if each.name == name))
        has = f"'{name}' has version {versions}" if versions else f"no model '{name}' is registered"
        message = f"'{model.id}' does not exist ({has}): register it first, or name a path"
        yield _problem("ResourceNotFound", "spec.model.id", message)


def resolve(id: str, assets: Mapping[str, AssetRegistered]) -> AssetRegistered | None:
    """The model that `azureml:name:version` or `azureml:name@latest` (the one registered last) means."""
    reference = id.removeprefix("azureml:")
    if not reference.endswith("@latest"):
        return assets.get(f"model:{reference}")
    name = reference.removesuffix("@latest")
    versions = [asset for asset in assets.values() if asset.name == name]
    return max(versions, key=lambda asset: (asset.registered_at, asset.version), default=None)


def _source(source: Source, world: World) -> Iterator[Problem]:
    if source.problem is not None:
        yield _problem("BadArgument", source.field, source.problem)
        return
    fact = world.facts[source]
    if fact.problem is not None:
        yield _problem("BadArgument", source.field, fact.problem)
    elif source.must_be_folder and not fact.is_folder:
        yield _problem("BadArgument", source.field, f"'{source.path}' is a file: name the folder that holds the script")
    elif source.script is not None and not fact.has_script:
        field = source.field.removesuffix("code") + "scoring_script"
        yield _problem("BadArgument", field, f"'{source.path}' has no file '{source.script}'")


def _delete_deployment(command: DeleteDeployment, world: World) -> Iterator[Problem]:
    name, endpoint = command.deployment, world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from _missing(command.endpoint, world)
    elif name not in endpoint.deployments:
        yield _no_deployment("deployment", name, endpoint)
    else:
        if share := endpoint.traffic.get(name, 0):
            message = f"'{name}' gets {share} % of the traffic: move it to another deployment first"
            yield _problem("BadArgument", "deployment", message)
        if isinstance(endpoint.spec, BatchEndpointSpec) and endpoint.spec.defaults.deployment_name == name:
            message = f"'{name}' is the default of '{endpoint.endpoint}': set another default first, or none"
            yield _problem("BadArgument", "deployment", message)


def _set_autoscale(command: SetAutoscale, world: World) -> Iterator[Problem]:
    endpoint = world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from _missing(command.endpoint, world)
    elif (deployment := endpoint.deployments.get(command.deployment)) is None:
        yield _no_deployment("deployment", command.deployment, endpoint)
    elif not isinstance(deployment.spec, OnlineDeploymentSpec):
        message = f"'{command.deployment}' is a batch deployment: only online deployments scale by rules"
        yield _problem("BadArgument", "deployment", message)
    if command.autoscale is not None:
        yield from _autoscale(command.autoscale, world)


def _autoscale(autoscale: AutoscaleSetting, world: World) -> Iterator[Problem]:
    for at, profile in enumerate(autoscale.profiles):
        where = f"autoscale.profiles.{at}"
        yield from _instances(f"{where}.capacity.maximum", profile.capacity.maximum, world)
        for index, rule in enumerate(profile.rules):
            metric = rule.metric_trigger.metric_name
            if metric not in METRICS:
                field = f"{where}.rules.{index}.metric_trigger.metric_name"
                yield _problem("BadArgument", field, f"'{metric}' is unknown: use one of {', '.join(METRICS)}")


# Assets


def _register_model(command: RegisterModel, world: World) -> Iterator[Problem]:
    yield from (problem for source in sources_of(command) for problem in _source(source, world))
    registered = world.assets.get(f"{command.key()}:{command.version}")
    if registered is None:
        return
    artifact = next((fact.artifact for source in sources_of(command) if (fact := world.facts.get(source))), None)
    if changed := _differences(command, artifact, registered):
        message = f"version {command.version} of '{command.name}' exists with another {', '.join(changed)}, and a "
        yield _problem("BadArgument", "version", message + "version is never replaced: register a new one")


def _differences(command: RegisterModel, artifact: Artifact | None, registered: AssetRegistered) -> list[str]:
    """The fields in which a registered version is not what the command asks for. Content counts once it is known."""
    different = [
        name for name in ("type", "description", "tags") if getattr(command, name) != getattr(registered, name)
    ]
    return different if artifact is None or artifact == registered.artifact else ["content", *different]


def _missing(endpoint: str, world: World) -> Iterator[Problem]:
    if endpoint not in world.endpoints:
        message = f"there is no endpoint '{endpoint}': create it first, or check the name"
        yield _problem("ResourceNotFound", "endpoint", message)


def _no_deployment(field: str, name: str, endpoint: EndpointDesired) -> Problem:
    known = ", ".join(sorted(endpoint.deployments)) or "no deployment"
    return _problem("ResourceNotFound", field, f"'{name}' is not on '{endpoint.endpoint}', which has {known}")


def _quota(field: str, what: str, asked: int, limit: int) -> Problem:
    return _problem("OutOfQuota", field, f"{asked} {what} would be over the quota of {limit}: delete some, or raise it")


def _problem(code: str, field: str, message: str) -> Problem:
    return Problem(code=code, field=field, message=message)
