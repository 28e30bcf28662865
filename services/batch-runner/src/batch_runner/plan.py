"""Whether a job can run, with which settings, and how its input is cut into mini-batches.

PURE: no clock, no I/O. What the disk says (the input's files, what exists) comes in as `Found`. A plan is written down
before the job begins, so that a job that is resumed runs what it began with, whatever became of its deployment since.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from contracts.messages import (
    Artifact,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    BatchOverrides,
    DeploymentDesired,
    EndpointDesired,
    EnvironmentDesired,
    Problem,
    StartBatchJob,
)

_LONGEST_NAME = 255


@dataclass(frozen=True, slots=True)
class Found:
    """What the disk says about a job. `files` are relative to `folder`, in the order in which they are scored."""

    folder: str = ""
    files: tuple[str, ...] = ()
    output: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a job runs. `output_id` (device and inode) tells its own output folder from one that somebody else made in
    the meantime; `failure` is the decision that the job fails, once it has been taken."""

    submitted_at: datetime
    endpoint: str
    deployment: str
    spec: BatchDeploymentSpec
    code: Artifact
    model: Artifact | None
    folder: str
    files: tuple[str, ...]
    output: str
    environment: EnvironmentDesired | None = None
    output_id: tuple[int, int] = (0, 0)
    failure: str | None = None

    @property
    def workers(self) -> int:
        """How many worker processes the job asks for."""
        return workers(self.spec)

    @property
    def mini_batches(self) -> int:
        """How many mini-batches there are."""
        return -(-len(self.files) // self.spec.settings.mini_batch_size)

    def size(self, index: int) -> int:
        """The number of files of a mini-batch: all are full but the last."""
        size = self.spec.settings.mini_batch_size
        return min(size, len(self.files) - index * size)

    def mini_batch(self, index: int) -> list[str]:
        """The absolute paths of a mini-batch's files."""
        size = self.spec.settings.mini_batch_size
        return [os.path.join(self.folder, file) for file in self.files[index * size : (index + 1) * size]]

    def to_json(self) -> bytes:
        """The plan as JSON. File names that are no Unicode survive, as escaped surrogates."""
        parts = {"spec": self.spec, "code": self.code, "model": self.model, "environment": self.environment}
        document = asdict(replace(self, **dict.fromkeys(parts)))  # type: ignore[arg-type]
        document["submitted_at"] = self.submitted_at.isoformat()
        for name, part in parts.items():
            document[name] = part and part.model_dump(mode="json")
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, text: bytes) -> "Plan":
        """The plan again. Raises ValueError, TypeError or KeyError for anything else."""
        document = json.loads(text)
        document["submitted_at"] = datetime.fromisoformat(document["submitted_at"])
        document["spec"] = BatchDeploymentSpec.model_validate(document["spec"])
        document["code"] = Artifact.model_validate(document["code"])
        document["model"] = document["model"] and Artifact.model_validate(document["model"])
        if environment := document.get("environment"):
            document["environment"] = EnvironmentDesired.model_validate(environment)
        document["files"], document["output_id"] = tuple(document["files"]), tuple(document["output_id"])
        return cls(**document)


def workers(spec: BatchDeploymentSpec) -> int:
    """How many worker processes a job of these settings has."""
    return spec.resources.instance_count * spec.settings.max_concurrency_per_instance


def in_order(files: Sequence[str]) -> tuple[str, ...]:
    """Files in the order of their names' bytes: the same everywhere, whatever the folder or the locale says."""
    return tuple(sorted(files, key=os.fsencode))


def effective(spec: BatchDeploymentSpec, overrides: BatchOverrides) -> BatchDeploymentSpec:
    """The deployment's settings with what the invocation sets over them."""
    settings, retries = spec.settings, spec.settings.retry_settings
    retries = retries.model_copy(update=_given(overrides, "max_retries", "timeout"))
    settings = settings.model_copy(
        update={
            "retry_settings": retries,
            **_given(overrides, "mini_batch_size", "error_threshold", "output_file_name"),
        }
    )
    resources = spec.resources.model_copy(update=_given(overrides, "instance_count"))
    return spec.model_copy(update={"settings": settings, "resources": resources})


def _given(overrides: BatchOverrides, *names: str) -> dict[str, object]:
    return {name: value for name in names if (value := getattr(overrides, name)) is not None}


def chosen(command: StartBatchJob, endpoint: EndpointDesired | None) -> tuple[str, DeploymentDesired] | Problem:
    """The deployment that the job runs, by name or by the endpoint's default."""
    if endpoint is None:
        return _missing("endpoint", f"there is no endpoint '{command.endpoint}': create it, or check its name")
    if not isinstance(endpoint.spec, BatchEndpointSpec):
        return _bad("endpoint", f"'{command.endpoint}' is an online endpoint: jobs run on batch endpoints")
    name = command.deployment or endpoint.spec.defaults.deployment_name
    if name is None:
        return _bad("deployment", "none is named and the endpoint has no default: name one, or set the default")
    if name not in endpoint.deployments:
        names = ", ".join(sorted(endpoint.deployments)) or "none"
        return _missing("deployment", f"'{command.endpoint}' has no deployment '{name}'; it has {names}")
    return name, endpoint.deployments[name]


def make_plan(
    command: StartBatchJob, submitted_at: datetime, endpoint: EndpointDesired | None, found: Found, max_workers: int
) -> Plan | tuple[Problem, ...]:
    """The job's plan, or everything that is wrong with it."""
    problems = list(found.problems)
    choice = chosen(command, endpoint)
    if isinstance(choice, Problem):
        return (choice, *problems)
    name, deployment = choice
    if not isinstance(deployment.spec, BatchDeploymentSpec):
        return (_bad("deployment", f"'{name}' is no batch deployment: put it again with kind batch"), *problems)
    spec = effective(deployment.spec, command.overrides)
    if (asked := workers(spec)) > max_workers:
        text = (
            f"the job asks for {asked} workers ({spec.resources.instance_count} instances x "
            f"{spec.settings.max_concurrency_per_instance} at a time), and there is room for {max_workers} in all: "
            "lower instance_count or max_concurrency_per_instance, or raise ENDPUNKT_MAX_WORKERS"
        )
        problems.append(Problem(code="OutOfQuota", field="overrides.instance_count", message=text))
    file_name = spec.settings.output_file_name
    if file_name in (".", "..") or len(os.fsencode(file_name)) > _LONGEST_NAME:
        problems.append(_bad("output_file_name", "is no name of a file: give one such as predictions.csv"))
    if deployment.code is None:
        problems.append(_bad("deployment", f"'{name}' has no script to run: put it again with code_configuration"))
    if problems or deployment.code is None:
        return tuple(problems)
    return Plan(
        submitted_at=submitted_at,
        endpoint=command.endpoint,
        deployment=name,
        spec=spec,
        code=deployment.code,
        model=deployment.model,
        environment=deployment.environment,
        folder=found.folder,
        files=found.files,
        output=found.output,
    )


def told(problems: Sequence[Problem]) -> str:
    """Every problem as one text."""
    return "; ".join(f"{problem.code}: {problem.field}: {problem.message}" for problem in problems)


def _bad(field: str, message: str) -> Problem:
    return Problem(code="BadArgument", field=field, message=message)


def _missing(field: str, message: str) -> Problem:
    return Problem(code="ResourceNotFound", field=field, message=message)
