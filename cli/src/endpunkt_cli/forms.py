"""What each kind of Azure YAML file may say, and how it becomes the body of a request.

PURE: values in, values out; no disk, no network, no clock. The specifications are those of the bus (contracts), so that
a file's every mistake is told here, with its line. What Azure has and this version does not act on is refused by name
where it changes what a deployment does, and dropped with a note where it does not.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from contracts.envelope import problems_of
from contracts.messages import (
    BatchDeploymentSpec,
    BatchEndpointSpec,
    Name,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Traffic,
)
from endpunkt_cli import references
from endpunkt_cli.files import BadFile, Source, Trouble
from endpunkt_cli.identity_form import identity
from endpunkt_cli.references import file_uri


class _OnlineEndpoint(OnlineEndpointSpec):
    name: Name
    traffic: Traffic = Field(default_factory=dict)
    mirror_traffic: Traffic = Field(default_factory=dict)


class _OnlineDeployment(OnlineDeploymentSpec):
    name: Name
    endpoint_name: Name


class _BatchEndpoint(BatchEndpointSpec):
    name: Name


class _BatchDeployment(BatchDeploymentSpec):
    name: Name
    endpoint_name: Name


@dataclass(frozen=True)
class Form:
    """One kind of file. `address`: the fields that go into the path of the request. `refused`: what to do instead of a
    field. `settled`: fields that this version cannot vary, with the only value that they may have. `noted`: fields that
    are dropped, with the note that says why that is no loss. `paths`: fields that name local files."""

    model: type[BaseModel]
    address: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)
    noted: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


_KUBERNETES = "this version runs instances as processes: remove it"
_DEPLOYMENT_PATHS = ("model.path", "code_configuration.code", "environment.conda_file")
_SETTINGS = (
    "mini_batch_size",
    "max_concurrency_per_instance",
    "error_threshold",
    "retry_settings",
    "output_action",
    "output_file_name",
    "environment_variables",
    "logging_level",
)

_HINTS = {"Input should be a valid string": ": put it in quotes"}

FORMS: Mapping[str, Form] = {
    "online-endpoint": Form(
        _OnlineEndpoint,
        ("name",),
        refused={
            "compute": _KUBERNETES,
        },
        settled={"type": "online"},
    ),
    "online-deployment": Form(
        _OnlineDeployment,
        ("name", "endpoint_name"),
        refused={
            "model_mount_path": "models lie below AZUREML_MODEL_DIR: remove `model_mount_path`",
            "resources": _KUBERNETES,
        },
        settled={
            "type": "managed",
            "scale_settings": {"type": "default"},
            "egress_public_network_access": "enabled",
        },
        noted={
            "app_insights_enabled": "there is no Application Insights here: `online-deployment get-logs`, the metrics "
            "on /metrics and `data_collector` stand in for it",
        },
        paths=_DEPLOYMENT_PATHS,
    ),
    "batch-endpoint": Form(
        _BatchEndpoint,
        ("name",),
        refused={"identity": "this version gives the instances of jobs no identity: remove `identity`"},
    ),
    "batch-deployment": Form(
        _BatchDeployment,
        ("name", "endpoint_name"),
        refused={
            "component": "this version runs models, not pipelines: remove `component`",
            "job_definition": "this version runs models, not pipelines: remove `job_definition`",
        },
        noted={
            "compute": "each job gets its own compute, sized by `instance_type` and `resources`",
            "settings.logging_level": "scripts set their own level: everything that they log is kept",
        },
        paths=_DEPLOYMENT_PATHS,
    ),
}


@dataclass(frozen=True)
class Resource:
    """A file that holds: its address, the body for the API, and the source, for the lines of what the API refuses.
    `paths` are the body's fields that name local files; `texts` the contents of those whose file stands in the YAML
    itself; `register` the name and version that an inline model gets; `notes` what a person should be told."""

    address: Mapping[str, str]
    body: dict[str, Any]
    source: Source
    renamed: Mapping[str, str] = field(default_factory=dict)
    paths: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    register: Mapping[str, Any] | None = None
    notes: tuple[Trouble, ...] = ()

    def trouble(self, target: str, message: str) -> Trouble:
        """What the API says about a field, at the place where this resource has it."""
        path = self.renamed.get(target, target)
        return self.source.trouble("" if path == "body" else path, message)


def read(form_name: str, source: Source, folder: str, local_environment: bool = False) -> Resource:
    """The resource that `source` describes; paths in it are relative to `folder`. `local_environment`: leave its
    `environment` out. Raises BadFile with every problem."""
    form = FORMS[form_name]
    value = deepcopy(source.value)
    value.pop("$schema", None)
    troubles: list[Trouble] = []
    register, text, unused = None, None, []
    if form_name == "batch-deployment":
        source = _settings_moved(value, source, troubles)
    if form_name == "online-endpoint":
        identity(value)
    if "endpoint_name" in form.address:
        unused = references.collected(value)
        register, text, problems = _references(value, local_environment)
        troubles += [source.trouble(*problem) for problem in problems]
    for path, instead in form.refused.items():
        troubles += [source.trouble(path, instead) for item in _taken(value, path) if item]
    for path, only in form.settled.items():
        told = only["type"] if isinstance(only, dict) else only
        troubles += [
            source.trouble(path, f"this version knows only {told}: remove `{path}`")
            for item in _taken(value, path)
            if item not in (only, None)
        ]
    notes = tuple(
        source.trouble(path, f"has no effect: {why}")
        for path, why in form.noted.items()
        for item in _taken(value, path)
        if item not in (False, None, "info")
    ) + tuple(source.trouble(*note) for note in unused)
    for path in form.paths:
        parent = _parent(value, path)
        name = path.rpartition(".")[2]
        if parent is not None and isinstance(parent.get(name), str):
            if path == "code_configuration.code" and parent[name].startswith("azureml:"):
                continue
            try:
                parent[name] = file_uri(parent[name], folder)
            except ValueError as error:
                troubles.append(source.trouble(path, str(error)))
    troubles += invalid(form.model, value, source)
    if troubles:
        raise BadFile(troubles)
    return Resource(
        {name: value.pop(name) for name in form.address},
        value,
        source,
        {"endpoint": "endpoint_name", "deployment": "name"}
        if "endpoint_name" in form.address
        else {"endpoint": "name"},
        form.paths,
        {} if text is None else {"environment.conda_file": text},
        register,
        notes,
    )


def _references(
    value: dict[str, Any], local_environment: bool
) -> tuple[dict[str, Any] | None, str | None, list[references.Problem]]:
    """What the deployment is made of, in the forms of the API: rewrites `value`."""
    register, of_model = references.model(value)
    text, of_environment = references.environment(value, local_environment)
    return register, text, [*of_model, *references.code(value), *of_environment]


def invalid(model: type[BaseModel], value: dict[str, Any], source: Source) -> list[Trouble]:
    """What `model` says about `value`, at the places of `source`."""
    try:
        model.model_validate(value)
    except ValidationError as error:
        return [
            source.trouble(problem.field, problem.message + _HINTS.get(problem.message, ""))
            for problem in problems_of(error)
        ]
    return []


def _settings_moved(value: dict[str, Any], source: Source, troubles: list[Trouble]) -> Source:
    """Older files have the fields of `settings` at the root: moves them, and returns the source with their places."""
    settings = value.setdefault("settings", {})
    moved = [name for name in _SETTINGS if name in value]
    if not moved or not isinstance(settings, dict):
        return source
    for name in moved:
        if name in settings:
            there = source.place(f"settings.{name}")
            troubles.append(source.trouble(name, f"is also in `settings`, at {there}: remove one of them"))
        settings.setdefault(name, value.pop(name))
    places = {f"settings.{path}": at for path, at in source.places.items() if path.partition(".")[0] in moved}
    return Source(source.value, {**places, **source.places})


def _parent(value: dict[str, Any], path: str) -> dict[str, Any] | None:
    """The mapping that may hold the last name of `path`."""
    here: Any = value
    for name in path.split(".")[:-1]:
        here = here.get(name) if isinstance(here, dict) else None
    return here if isinstance(here, dict) else None


def _taken(value: dict[str, Any], path: str) -> Iterator[Any]:
    """Takes the field out and yields it, if it is there."""
    parent, name = _parent(value, path), path.rpartition(".")[2]
    if parent is not None and name in parent:
        yield parent.pop(name)
