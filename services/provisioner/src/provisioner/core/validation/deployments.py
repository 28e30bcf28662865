"""What is wrong with commands about deployments.

PURE, see the package.
"""

from collections.abc import Iterator

from contracts.messages import (
    BatchDeploymentSpec,
    BatchEndpointSpec,
    DeleteDeployment,
    DeploymentSpec,
    EndpointDesired,
    GetLogs,
    OnlineDeploymentSpec,
    Problem,
    PutDeployment,
)
from provisioner.core.sources import (
    CODE,
    MLFLOW_ENVIRONMENTS,
    MODEL,
    model_type,
    resolve,
    sources_of,
    stays_inside,
    warmup_file,
)
from provisioner.core.validation import assets, quotas, settings
from provisioner.core.validation.endpoints import missing, no_deployment
from provisioner.core.validation.quotas import over_quota
from provisioner.core.world import Fact, Source, World

SCRIPT = "spec.code_configuration.scoring_script"


def put(command: PutDeployment, world: World) -> Iterator[Problem]:
    """Every reason not to put the deployment."""
    endpoint, spec = world.endpoints.get(command.endpoint), command.spec
    if endpoint is None:
        yield from missing(command.endpoint, world)
    else:
        yield from _place(command, endpoint, world)
    yield from _instances(command, world)
    yield from settings.check(spec)
    yield from _script(spec, world)
    for source in sources_of(command, world.assets):
        fact = world.facts.get(source)
        problems = tuple(assets.source(source, fact))
        yield from problems
        if not problems and fact is not None:
            yield from _files(spec, source, fact, world)


def _place(command: PutDeployment, endpoint: EndpointDesired, world: World) -> Iterator[Problem]:
    """Whether this kind of deployment, under this name, has a place on the endpoint."""
    name, exists = command.deployment, command.deployment in endpoint.deployments
    if command.spec.kind != endpoint.spec.kind:
        message = f"'{endpoint.endpoint}' is a {endpoint.spec.kind} endpoint: it takes {endpoint.spec.kind} deployments"
        yield Problem(code="BadArgument", field="spec.kind", message=message)
    if command.must == "create" and exists:
        message = f"'{name}' exists on '{endpoint.endpoint}': update it instead"
        yield Problem(code="BadArgument", field="deployment", message=message)
    if command.must == "update" and not exists:
        yield no_deployment("deployment", name, endpoint)
    if exists:
        return
    here, limit = len(endpoint.deployments), world.quotas.deployments_per_endpoint
    if here >= limit:
        what = f"deployments on '{endpoint.endpoint}'"
        yield over_quota("deployment", what, here + 1, limit, "deployments_per_endpoint")
    everywhere = sum(len(each.deployments) for each in world.endpoints.values())
    if everywhere >= world.quotas.deployments:
        yield over_quota("deployment", "deployments", everywhere + 1, world.quotas.deployments, "deployments")


def _instances(command: PutDeployment, world: World) -> Iterator[Problem]:
    """Whether there is such an instance type, and room for so many."""
    spec = command.spec
    if spec.instance_type not in world.catalog.instance_types:
        known = ", ".join(sorted(world.catalog.instance_types))
        message = f"'{spec.instance_type}' is unknown: use one of {known}"
        yield Problem(code="BadArgument", field="spec.instance_type", message=message)
    if isinstance(spec, BatchDeploymentSpec):
        yield from quotas.instances("spec.resources.instance_count", spec.resources.instance_count, world)
        return
    field = "spec.instance_count"
    yield from quotas.instances(field, spec.instance_count, world)
    endpoint = world.endpoints.get(command.endpoint)
    before = endpoint.deployments.get(command.deployment) if endpoint is not None else None
    autoscale = before.autoscale if before is not None else None
    yield from quotas.machine(field, command.endpoint, command.deployment, spec, autoscale, world)


def _script(spec: DeploymentSpec, world: World) -> Iterator[Problem]:
    """What scores: a script, or an MLflow model by itself."""
    if spec.code_configuration is not None:
        script = spec.code_configuration.scoring_script
        if not stays_inside(script):
            message = f"'{script}' must be a relative path below the code folder"
            yield Problem(code="BadArgument", field=SCRIPT, message=message)
    elif not _unresolved(spec, world) and model_type(spec, world.assets) != "mlflow_model":
        what = "a custom_model cannot score by itself" if spec.model is not None else "there is nothing that scores"
        message = f"{what}: name the code folder and the scoring_script (only an mlflow_model needs none)"
        yield Problem(code="BadArgument", field="spec.code_configuration", message=message)


def _unresolved(spec: DeploymentSpec, world: World) -> bool:
    """Whether the model is one that is not registered: nothing is known of its type, and that is told already."""
    model = spec.model
    return model is not None and model.id is not None and resolve(model.id, "model", world.assets) is None


def _files(spec: DeploymentSpec, source: Source, fact: Fact, world: World) -> Iterator[Problem]:
    """Whether what is named holds the files that it must hold."""
    name, warmup = source.path or source.name, warmup_file(spec)
    if source.field == CODE and spec.code_configuration is not None:
        script = spec.code_configuration.scoring_script
        if script in source.wants and script not in fact.files:
            yield Problem(code="BadArgument", field=SCRIPT, message=f"'{name}' has no file '{script}'")
    elif source.field.startswith(MODEL) and model_type(spec, world.assets) == "mlflow_model":
        problems = tuple(assets.mlflow(source, fact))
        yield from problems
        if source.reads and fact.environment_file(source) is None and not problems:
            message = f"'{name}' brings no {' or '.join(MLFLOW_ENVIRONMENTS)} along: name an environment"
            yield Problem(code="BadArgument", field="spec.environment", message=message)
    if warmup is not None and warmup in source.wants and warmup not in fact.files:
        message = f"'{name}' has no file '{warmup}': it is the body of the request that warms an instance up"
        yield Problem(code="BadArgument", field=settings.WARMUP_FIELD, message=message)
    yield from assets.troubles(source, fact)


def delete(command: DeleteDeployment, world: World) -> Iterator[Problem]:
    """Every reason not to delete the deployment."""
    name, endpoint = command.deployment, world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from missing(command.endpoint, world)
    elif name not in endpoint.deployments:
        yield no_deployment("deployment", name, endpoint)
    else:
        if share := endpoint.traffic.get(name, 0):
            message = f"'{name}' gets {share} % of the traffic: move it to another deployment first"
            yield Problem(code="BadArgument", field="deployment", message=message)
        if share := endpoint.mirror_traffic.get(name, 0):
            message = f"'{name}' gets {share} % of the traffic as a mirror: mirror none first (mirror_traffic: {{}})"
            yield Problem(code="BadArgument", field="deployment", message=message)
        if isinstance(endpoint.spec, BatchEndpointSpec) and endpoint.spec.defaults.deployment_name == name:
            message = f"'{name}' is the default of '{endpoint.endpoint}': set another default first, or none"
            yield Problem(code="BadArgument", field="deployment", message=message)


def get_logs(command: GetLogs, world: World) -> Iterator[Problem]:
    """Why there can be no logs."""
    name, endpoint = command.deployment, world.endpoints.get(command.endpoint)
    if endpoint is None:
        yield from missing(command.endpoint, world)
    elif (deployment := endpoint.deployments.get(name)) is None:
        yield no_deployment("deployment", name, endpoint)
    elif not isinstance(deployment.spec, OnlineDeploymentSpec):
        message = f"'{name}' is a batch deployment, which has no instances: its jobs have logs"
        yield Problem(code="BadArgument", field="deployment", message=message)
