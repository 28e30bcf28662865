"""Endpoints and deployments: the commands that change them, their desired and their observed state.

PURE, see `base`.
"""

from typing import ClassVar, Literal

from pydantic import Field, field_validator

from contracts.messages.base import Message, Name, Part, Problem, Tags, Timestamp
from contracts.messages.specs import (
    AutoscaleSetting,
    BatchDefaults,
    DeploymentSpec,
    EndpointSpec,
    ModelType,
    OnlineDeploymentSpec,
    Traffic,
)

# Commands


class EndpointCommand(Message, abstract=True):
    """A command about one endpoint. Its id is the record's CloudEvents id; one of the last 64 is not applied again."""

    TOPIC: ClassVar[str] = "endpoints.commands"

    endpoint: Name

    def key(self) -> str:
        return self.endpoint


class CreateEndpoint(EndpointCommand):
    """Make an endpoint; refused when it exists."""

    spec: EndpointSpec


class UpdateEndpoint(EndpointCommand):
    """Change what is given; None leaves a field as it is. `traffic` replaces the whole split (sum 0 or 100), and
    `mirror_traffic` what is mirrored: one deployment without live traffic and at most 50 %, or none."""

    description: str | None = None
    tags: Tags | None = None
    properties: Tags | None = None
    traffic: Traffic | None = None
    mirror_traffic: Traffic | None = None
    public_network_access: Literal["enabled", "disabled"] | None = None
    defaults: BatchDefaults | None = None


class DeleteEndpoint(EndpointCommand):
    """Delete an endpoint with all its deployments."""


class RegenerateKey(EndpointCommand):
    """Replace one of the two keys; the other goes on working."""

    key_type: Literal["primary", "secondary"]


class PutDeployment(EndpointCommand):
    """Create or wholly replace a deployment. `must` create refuses an existing one, `must` update a missing one."""

    deployment: Name
    spec: DeploymentSpec
    must: Literal["create", "update"] | None = None


class DeleteDeployment(EndpointCommand):
    """Delete a deployment; refused while it gets live traffic."""

    deployment: Name


class SetAutoscale(EndpointCommand):
    """Set, or with None remove, a deployment's autoscale setting."""

    deployment: Name
    autoscale: AutoscaleSetting | None


class GetLogs(EndpointCommand):
    """Ask for the last `lines` of each instance's output (inference-server), or of the preparation of its environment
    and files (storage-initializer). Changes nothing; the answer is a LogsRead."""

    deployment: Name
    container: Literal["inference-server", "storage-initializer"] = "inference-server"
    lines: int = Field(default=5000, ge=1, le=100_000)
    instance: str | None = None


# Replies


class Reply(Message, abstract=True):
    """The provisioner's answer to a command."""

    TOPIC: ClassVar[str] = "endpoints.replies"

    command_id: str

    def key(self) -> str:
        return self.command_id


class CommandAccepted(Reply):
    """The command is now desired state: `generation` of `subject` (an endpoint, or an asset's key) holds it."""

    subject: str
    generation: int


class CommandRejected(Reply):
    """The command changed nothing, for every reason that is listed."""

    subject: str | None
    problems: tuple[Problem, ...] = Field(min_length=1)


class LogsRead(Reply):
    """The logs that GetLogs asked for. What user code prints may be secret: the text is sealed, as keys are, for the
    purpose `<command id>/logs`, and at most 512 KiB of it, the newest."""

    subject: str
    sealed: str


# Desired state


class Artifact(Part):
    """A folder or file in the artifact store: SHA-256 of its contents, and the name under which it lies there."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    name: str = Field(pattern=r"^[^/\\\x00]+$")

    @field_validator("name")
    @classmethod
    def _names_something(cls, value: str) -> str:
        if value in (".", ".."):
            raise ValueError("must be the name of a file or folder")
        return value


class EndpointKey(Part):
    """A key without its text: the SHA-256 (router) and the text encrypted (whoever may list keys)."""

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    sealed: str


class EndpointKeys(Part):
    """Azure's two keys."""

    primary: EndpointKey
    secondary: EndpointKey


class EnvironmentDesired(Part):
    """The environment file `file` of an artifact (a conda YAML or a requirements.txt; "" when the artifact is it)."""

    artifact: Artifact
    file: str = ""


class DeploymentDesired(Part):
    """A deployment as it is meant to be. `generation` is the endpoint's at the last change of what its instances are
    made of (model, code, environment, script, variables, instance type, request limits); a new count leaves it."""

    generation: int
    spec: DeploymentSpec
    model: Artifact | None = None
    model_type: ModelType = "custom_model"
    code: Artifact | None = None
    environment: EnvironmentDesired | None = None
    autoscale: AutoscaleSetting | None = None


class Applied(Part):
    """A command that is already in this document, so that a replay changes nothing."""

    command_id: str
    generation: int


class EndpointDesired(Message):
    """One endpoint as it is meant to be, deployments and traffic in one record: no reader sees half an update."""

    TOPIC: ClassVar[str] = "endpoints.desired"

    endpoint: Name
    generation: int = Field(ge=1)
    created_at: Timestamp
    updated_at: Timestamp
    spec: EndpointSpec
    keys: EndpointKeys | None = None
    traffic: Traffic = {}
    mirror_traffic: Traffic = {}
    deployments: dict[Name, DeploymentDesired] = {}
    applied: tuple[Applied, ...] = Field(default=(), max_length=64)

    def key(self) -> str:
        return self.endpoint

    def online(self) -> dict[str, tuple[DeploymentDesired, OnlineDeploymentSpec]]:
        """The deployments that have instances, with their specifications."""
        return {
            name: (deployment, deployment.spec)
            for name, deployment in self.deployments.items()
            if isinstance(deployment.spec, OnlineDeploymentSpec)
        }


# Observed state


class Instance(Part):
    """One running copy. `address` is host:port; the router sends only to Ready ones."""

    id: str
    generation: int
    state: Literal["Starting", "Ready", "Draining", "Failed"]
    address: str
    started_at: Timestamp


class DeploymentError(Part):
    """Why a deployment is not as desired, with the last lines of the failing instance's log."""

    code: str = Field(examples=["UserScriptInitFailed"])
    message: str
    log_tail: tuple[str, ...] = ()


DeploymentState = Literal["Creating", "Updating", "Scaling", "Deleting", "Succeeded", "Failed"]
EndpointState = Literal["Creating", "Updating", "Deleting", "Succeeded", "Failed", "Canceled"]


class DeploymentObserved(Part):
    """A deployment as it is. `generation` is the one that its ready instances run."""

    generation: int
    state: DeploymentState
    desired_instances: int
    instances: tuple[Instance, ...] = ()
    error: DeploymentError | None = None

    def in_state(self, state: str) -> tuple[Instance, ...]:
        """The instances that are in `state`."""
        return tuple(instance for instance in self.instances if instance.state == state)


class EndpointObserved(Message):
    """One endpoint as it is. It answers for the desired document of `generation`."""

    TOPIC: ClassVar[str] = "endpoints.observed"

    endpoint: Name
    generation: int
    state: EndpointState
    deployments: dict[Name, DeploymentObserved] = {}

    def key(self) -> str:
        return self.endpoint


# Events

EventReason = Literal[
    "Pulling",
    "Pulled",
    "Building",
    "Built",
    "ImageBuildFailure",
    "Created",
    "Started",
    "Ready",
    "LivenessProbeFailed",
    "ReadinessProbeFailed",
    "BackOff",
    "Killing",
    "Failed",
]


class DeploymentEvent(Message):
    """Something that happened to a deployment's instances, for people: Azure's event log. `instance` is None for what
    is done once for all of them (artifacts are Pulled, an environment is Built)."""

    TOPIC: ClassVar[str] = "endpoints.events"

    endpoint: Name
    deployment: Name
    instance: str | None = None
    at: Timestamp
    reason: EventReason
    message: str = Field(max_length=4000)

    def key(self) -> str:
        return f"{self.endpoint}/{self.deployment}"
