"""What each kind of Azure YAML file may say, and how it becomes the body of a request.

PURE: values in, values out; no disk, no network, no clock. The specifications are those of the bus (contracts), so that
a file's every mistake is told here, with its line. What Azure has and this version does not act on is refused by name.
"""

import posixpath
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from contracts.envelope import problems_of
from contracts.messages import (
    AutoscaleSetting,
    BatchDeploymentSpec,
    BatchEndpointSpec,
    Name,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    RegisterModel,
    Traffic,
)
from endpunkt_cli.files import BadFile, Source, Trouble


class _OnlineEndpoint(OnlineEndpointSpec):
    name: Name
    traffic: Traffic = Field(default_factory=dict)


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
    field. `settled`: fields that this version cannot vary, with the only value that they may have."""

    model: type[BaseModel]
    address: tuple[str, ...]
    refused: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, Any] = field(default_factory=dict)
    paths: tuple[str, ...] = ()


_ENVIRONMENT = "this version runs scripts in the environment of the services: remove `environment`"
_IDENTITY = "this version gives instances no identity: remove `identity`"
_KUBERNETES = "this version runs instances as processes: remove it"
_DEPLOYMENT = {
    "environment": _ENVIRONMENT,
    "model.name": "register the model (endpunkt model create) and write `model: azureml:NAME:VERSION`, or remove it",
    "model.version": "register the model (endpunkt model create) and write `model: azureml:NAME:VERSION`, or remove it",
}
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

_AUTOSCALE_LABELS = ("name", "targetResourceLocation")
"""What Azure's export repeats of the resource around the setting."""

_HINTS = {"Input should be a valid string": ": put it in quotes"}

FORMS: Mapping[str, Form] = {
    "online-endpoint": Form(
        _OnlineEndpoint,
        ("name",),
        refused={
            "mirror_traffic": "this version mirrors no traffic: remove `mirror_traffic`",
            "identity": _IDENTITY,
            "compute": _KUBERNETES,
        },
    ),
    "online-deployment": Form(
        _OnlineDeployment,
        ("name", "endpoint_name"),
        refused={
            **_DEPLOYMENT,
            "model_mount_path": "models lie below AZUREML_MODEL_DIR: remove `model_mount_path`",
            "resources": _KUBERNETES,
            "data_collector": "this version collects no data: remove `data_collector`",
        },
        settled={
            "type": "managed",
            "app_insights_enabled": False,
            "scale_settings": {"type": "default"},
            "egress_public_network_access": "enabled",
            "model.type": "custom_model",
        },
        paths=("model.path", "code_configuration.code"),
    ),
    "batch-endpoint": Form(_BatchEndpoint, ("name",), refused={"identity": _IDENTITY}),
    "batch-deployment": Form(
        _BatchDeployment,
        ("name", "endpoint_name"),
        refused={
            **_DEPLOYMENT,
            "compute": "each job gets its own compute: remove `compute`; `instance_type` and `resources` size it",
            "component": "this version runs models, not pipelines: remove `component`",
            "job_definition": "this version runs models, not pipelines: remove `job_definition`",
        },
        settled={"settings.logging_level": "info", "model.type": "custom_model"},
        paths=("model.path", "code_configuration.code"),
    ),
    "model": Form(RegisterModel, ("name", "version"), paths=("path",)),
}


@dataclass(frozen=True)
class Resource:
    """A file that holds: its address, the body for the API, and the source, for the lines of what the API refuses."""

    address: Mapping[str, str]
    body: dict[str, Any]
    source: Source
    renamed: Mapping[str, str] = field(default_factory=dict)

    def trouble(self, target: str, message: str) -> Trouble:
        """What the API says about a field, at the place where this resource has it."""
        path = self.renamed.get(target, target)
        return self.source.trouble("" if path == "body" else path, message)


def read(form_name: str, source: Source, folder: str) -> Resource:
    """The resource that `source` describes; paths in it are relative to `folder`. Raises BadFile with every problem."""
    form = FORMS[form_name]
    value = deepcopy(source.value)
    value.pop("$schema", None)
    troubles: list[Trouble] = []
    if form_name == "batch-deployment":
        source = _settings_moved(value, source, troubles)
    if isinstance(value.get("model"), str):
        value["model"] = {"id": value["model"]}
    for path, instead in form.refused.items():
        troubles += [source.trouble(path, instead) for _ in _taken(value, path)]
    for path, only in form.settled.items():
        troubles += [
            source.trouble(path, f"this version knows only {only}: remove `{path}`")
            for item in _taken(value, path)
            if item not in (only, None)
        ]
    for path in form.paths:
        parent = _parent(value, path)
        name = path.rpartition(".")[2]
        if parent is not None and isinstance(parent.get(name), str):
            try:
                parent[name] = file_uri(parent[name], folder)
            except ValueError as error:
                troubles.append(source.trouble(path, str(error)))
    troubles += _invalid(form.model, value, source)
    if troubles:
        raise BadFile(troubles)
    return Resource(
        {name: value.pop(name) for name in form.address},
        value,
        source,
        {"endpoint": "endpoint_name", "deployment": "name"}
        if "endpoint_name" in form.address
        else {"endpoint": "name"},
    )


def read_autoscale(source: Source, endpoint: str, deployment: str) -> Resource:
    """An autoscale setting: Azure Monitor's `properties`, alone or within the resource that Azure exports."""
    value = deepcopy(source.value)
    if isinstance(value.get("properties"), dict):
        value = value["properties"]
        inner = {path.removeprefix("properties."): at for path, at in source.places.items() if path != "properties"}
        source = Source(value, {**inner, "": source.place("properties")})
    own = f"/onlineendpoints/{endpoint}/deployments/{deployment}".lower()
    troubles = []
    for path, holder in _resource_names(value):
        if not str(holder.pop(path.rpartition(".")[2])).lower().endswith(own):
            hint = f"is not {deployment} of {endpoint}, which this setting scales by its own metrics: remove it"
            troubles.append(source.trouble(path, hint))
    value = {
        name: item
        for name, item in value.items()
        if name not in _AUTOSCALE_LABELS and (item or name != "notifications")
    }
    troubles += _invalid(AutoscaleSetting, value, source)
    if troubles:
        raise BadFile(troubles)
    return Resource({"endpoint_name": endpoint, "name": deployment}, value, source)


def file_uri(path: str, folder: str) -> str:
    """A local path, relative to `folder` (absolute), as a `file:` URI. Raises ValueError for another place."""
    if path.startswith("file:"):
        return path
    if path.startswith("azureml:") or "://" in path:
        raise ValueError("this version takes a local file or folder: write its path")
    return PurePosixPath(posixpath.normpath(posixpath.join(folder, path))).as_uri()


def _invalid(model: type[BaseModel], value: dict[str, Any], source: Source) -> list[Trouble]:
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


def _resource_names(value: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where an autoscale setting names the resource that it scales or measures."""
    if "targetResourceUri" in value:
        yield "targetResourceUri", value
    for at, profile in enumerate(_items(value, "profiles")):
        for index, rule in enumerate(_items(profile, "rules")):
            trigger = rule.get("metricTrigger") if isinstance(rule, dict) else None
            if isinstance(trigger, dict) and "metricResourceUri" in trigger:
                yield f"profiles.{at}.rules.{index}.metricTrigger.metricResourceUri", trigger


def _items(value: Any, name: str) -> list[Any]:
    items = value.get(name) if isinstance(value, dict) else None
    return items if isinstance(items, list) else []


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
