"""What a person writes about an endpoint or a deployment: Azure's YAML fields, names and defaults (schema 2).

PURE. Fields that this version does not act on are not listed, so that a file which relies on one is refused
with the field's name instead of being half obeyed.
"""

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator
from pydantic.alias_generators import to_camel

from contracts.messages.base import Name, Part, Tags

IDEMPOTENT = "endpunkt.idempotent"
"""A deployment's property: "true" says that a scoring request may be sent to a model a second time."""

WARMUP_REQUEST = "endpunkt.warmup_request"
"""A deployment's property: a file in its code (or MLflow model) folder. An instance is ready only once it has answered
a scoring request with this body."""

PROTOCOL = "endpunkt.protocol"
"""A deployment's property: "v2" has it answer the Open Inference Protocol beside /score."""

Percent = Annotated[int, Field(ge=0, le=100)]
Traffic = dict[Name, Percent]


class UserAssignedIdentity(Part):
    """An identity that exists beside the endpoints which use it."""

    resource_id: str = Field(min_length=1, max_length=512)


class ManagedIdentity(Part):
    """Who an endpoint's instances are: themselves (the endpoint has an identity of its own), or those named."""

    type: Literal["system_assigned", "user_assigned"] = "system_assigned"
    user_assigned_identities: tuple[UserAssignedIdentity, ...] = Field(default=(), max_length=20)

    @model_validator(mode="after")
    def _fits(self) -> "ManagedIdentity":
        if (self.type == "user_assigned") != bool(self.user_assigned_identities):
            raise ValueError("user_assigned names one identity or more, system_assigned none")
        return self


class OnlineEndpointSpec(Part):
    """An online endpoint: answers at once, to who has a key or a token. With public_network_access disabled it answers
    on the router's private port alone. See `contracts.endpoint_rules` for its properties."""

    kind: Literal["online"] = "online"
    description: str = ""
    tags: Tags = {}
    properties: Tags = {}
    auth_mode: Literal["key", "aml_token", "aad_token"] = "key"
    identity: ManagedIdentity = ManagedIdentity()
    public_network_access: Literal["enabled", "disabled"] = "enabled"


class BatchDefaults(Part):
    """Which deployment a batch endpoint runs when an invocation names none."""

    deployment_name: Name | None = None


class BatchEndpointSpec(Part):
    """A batch endpoint: runs jobs."""

    kind: Literal["batch"] = "batch"
    description: str = ""
    tags: Tags = {}
    properties: Tags = {}
    auth_mode: Literal["aad_token"] = "aad_token"
    defaults: BatchDefaults = BatchDefaults()


EndpointSpec = Annotated[OnlineEndpointSpec | BatchEndpointSpec, Field(discriminator="kind")]


ModelType = Literal["custom_model", "mlflow_model"]

AssetId = Annotated[str, Field(pattern=r"^azureml:[^:@/]+(:[^:@/]+|@latest)$", examples=["azureml:diabetes:1"])]

SourcePath = Annotated[
    str,
    Field(
        examples=["file:///models/diabetes", "artifact:9f86d081…/diabetes"],
        description="a path or file: URI where the provisioner runs, or what was uploaded before (artifact:)",
    ),
]


class AssetReference(Part):
    """A model: inline by `path`, of the `type` that it says, or registered, by `id`."""

    path: SourcePath | None = None
    type: ModelType = "custom_model"
    id: AssetId | None = None

    @model_validator(mode="after")
    def _one(self) -> "AssetReference":
        if (self.path is None) == (self.id is None):
            raise ValueError("name either a path or a registered asset (azureml:name:version), not both")
        return self


class CodeConfiguration(Part):
    """The folder `code` (a path, or registered: azureml:name:version) that holds the script `scoring_script`."""

    code: SourcePath
    scoring_script: str


class EnvironmentReference(Part):
    """The packages that a script runs with: inline, by `conda_file` (a conda YAML file or a requirements.txt), or
    registered, by `id`. `image` is for computes that run containers; instances that are processes need none."""

    conda_file: SourcePath | None = None
    image: str | None = None
    id: AssetId | None = None

    @model_validator(mode="after")
    def _one(self) -> "EnvironmentReference":
        if (self.conda_file is None) == (self.id is None):
            raise ValueError("name either a conda_file or a registered environment (azureml:name:version)")
        return self


class CollectedData(Part):
    """Where Azure would register a collection's data. It is kept and has no effect: the data lies in the home, below
    data/<endpoint>/<deployment>/<collection>."""

    name: str | None = None
    version: str | None = None
    path: str | None = None


class Collection(Part):
    """One named stream of collected data."""

    enabled: bool = True
    data: CollectedData | None = None


class RequestLogging(Part):
    """Which request headers are kept with collected requests."""

    capture_headers: tuple[str, ...] = ()


class DataCollector(Part):
    """What is collected of requests and answers, and of what scripts hand to a `Collector`. `request` and `response`
    are the two collections that are collected without a script's doing."""

    sampling_rate: float = Field(default=1.0, ge=0, le=1)
    rolling_rate: Literal["year", "month", "day", "hour", "minute"] = "hour"
    collections: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")], Collection] = {}
    request_logging: RequestLogging = RequestLogging()

    @field_validator("rolling_rate", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class RequestSettings(Part):
    """How many requests an instance takes at once and how long one may take (milliseconds)."""

    request_timeout_ms: int = Field(default=5000, ge=1, le=180_000)
    max_concurrent_requests_per_instance: int = Field(default=1, ge=1, le=1000)
    max_queue_wait_ms: int = Field(default=500, ge=0, le=180_000)


class Probe(Part):
    """How an instance is asked whether it lives (seconds and counts)."""

    initial_delay: int = Field(default=10, ge=0)
    period: int = Field(default=10, ge=1)
    timeout: int = Field(default=2, ge=1)
    success_threshold: int = Field(default=1, ge=1)
    failure_threshold: int = Field(default=30, ge=1)


class OnlineDeploymentSpec(Part):
    """A managed online deployment. Without an `environment` a script runs in the one of the services
    (`--local-environment`), and an MLflow model in the one that it brings along."""

    kind: Literal["online"] = "online"
    description: str = ""
    tags: Tags = {}
    properties: Tags = {}
    model: AssetReference | None = None
    code_configuration: CodeConfiguration | None = None
    environment: EnvironmentReference | None = None
    environment_variables: Tags = {}
    instance_type: str = "Standard_DS1_v2"
    instance_count: int = Field(default=1, ge=0)
    request_settings: RequestSettings = RequestSettings()
    liveness_probe: Probe = Probe()
    readiness_probe: Probe = Probe()
    data_collector: DataCollector | None = None

    @property
    def idempotent(self) -> bool:
        """Whether a request whose instance died may be handed to a model a second time."""
        return self.properties.get(IDEMPOTENT) == "true"


class RetrySettings(Part):
    """How often a failed mini-batch runs again, and how long one may take (seconds)."""

    max_retries: int = Field(default=3, ge=0, le=100)
    timeout: int = Field(default=30, ge=1, le=259_200)


class BatchSettings(Part):
    """How a job is cut and judged. `mini_batch_size` and `error_threshold` count files; -1 forgives every failure."""

    mini_batch_size: int = Field(default=10, ge=1)
    max_concurrency_per_instance: int = Field(default=1, ge=1, le=64)
    error_threshold: int = Field(default=-1, ge=-1)
    retry_settings: RetrySettings = RetrySettings()
    output_action: Literal["append_row", "summary_only"] = "append_row"
    output_file_name: str = Field(default="predictions.csv", pattern=r"^[^/\\\x00]+$")
    environment_variables: Tags = {}


class BatchResources(Part):
    """How many instances a job gets."""

    instance_count: int = Field(default=1, ge=1)


class BatchDeploymentSpec(Part):
    """A batch deployment of type model."""

    kind: Literal["batch"] = "batch"
    type: Literal["model"] = "model"
    description: str = ""
    tags: Tags = {}
    properties: Tags = {}
    model: AssetReference | None = None
    code_configuration: CodeConfiguration
    environment: EnvironmentReference | None = None
    instance_type: str = "Standard_DS1_v2"
    resources: BatchResources = BatchResources()
    settings: BatchSettings = BatchSettings()


DeploymentSpec = Annotated[OnlineDeploymentSpec | BatchDeploymentSpec, Field(discriminator="kind")]


class _Monitor(Part):
    """Azure Monitor spells its fields in camelCase; both spellings are read."""

    model_config = {**Part.model_config, "alias_generator": to_camel, "populate_by_name": True}


class MetricTrigger(_Monitor):
    """When a rule fires: `statistic` combines instances within a `time_grain`, `time_aggregation` combines grains."""

    metric_name: str = Field(examples=["RequestsPerMinute"])
    time_grain: timedelta = Field(gt=timedelta(0))
    statistic: Literal["Average", "Min", "Max", "Sum", "Count"] = "Average"
    time_window: timedelta = Field(gt=timedelta(0))
    time_aggregation: Literal["Average", "Minimum", "Maximum", "Total", "Count", "Last"] = "Average"
    operator: Literal["Equals", "NotEquals", "GreaterThan", "GreaterThanOrEqual", "LessThan", "LessThanOrEqual"]
    threshold: float
    divide_per_instance: bool = False

    @model_validator(mode="after")
    def _grain_fits(self) -> "MetricTrigger":
        if self.time_window < self.time_grain:
            raise ValueError("timeWindow must not be shorter than timeGrain")
        return self


class ScaleAction(_Monitor):
    """What a rule does when it fires. Azure asks for a cooldown of at least a minute; shorter ones are taken here."""

    direction: Literal["Increase", "Decrease"]
    type: Literal["ChangeCount", "PercentChangeCount", "ExactCount"] = "ChangeCount"
    value: int = Field(ge=0)
    cooldown: timedelta = Field(ge=timedelta(0), le=timedelta(weeks=1))


class ScaleRule(_Monitor):
    """One trigger and its action."""

    metric_trigger: MetricTrigger
    scale_action: ScaleAction


class Capacity(_Monitor):
    """Bounds of the instance count, inclusive, and the count to hold when a metric is missing."""

    minimum: int = Field(ge=0)
    maximum: int = Field(ge=1)
    default: int = Field(ge=0)

    @model_validator(mode="after")
    def _ordered(self) -> "Capacity":
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError("capacity needs minimum <= default <= maximum")
        return self


class ScaleProfile(_Monitor):
    """Bounds and rules that hold together."""

    name: str
    capacity: Capacity
    rules: tuple[ScaleRule, ...] = Field(default=(), max_length=10)


class AutoscaleSetting(_Monitor):
    """Azure Monitor's autoscale setting of one deployment. This version takes one profile, the default one."""

    enabled: bool = True
    profiles: tuple[ScaleProfile, ...] = Field(min_length=1, max_length=1)
