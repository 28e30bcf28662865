"""What Azure's YAML files of models, environments, data and code may say, and how they become requests.

PURE: values in, values out; no disk, no network, no clock.
"""

from copy import deepcopy
from typing import Any, Literal

import yaml
from pydantic import BaseModel

from contracts.messages import RegisterCode, RegisterData, RegisterEnvironment, RegisterModel
from endpunkt_cli.files import BadFile, Source, Trouble
from endpunkt_cli.forms import Resource, invalid
from endpunkt_cli.references import file_uri

Kind = Literal["model", "environment", "data", "code"]

_FORMS: dict[Kind, type[BaseModel]] = {
    "model": RegisterModel,
    "environment": RegisterEnvironment,
    "data": RegisterData,
    "code": RegisterCode,
}
_OF_A_CONTAINER = "this version runs instances as processes, not as containers: name the packages with `conda_file`"
_REFUSED: dict[str, dict[str, str]] = {
    "environment": {
        "build": _OF_A_CONTAINER,
        "inference_config": f"{_OF_A_CONTAINER}; deployments have probes of their own",
    },
}
_TYPES: dict[str, dict[str, str]] = {
    "model": {"triton_model": "there is no Triton server here: this version serves custom_model and mlflow_model"},
    "data": {"mltable": "this version reads no MLTable: register the files as uri_folder, or one as uri_file"},
}
_UNNUMBERED = "1"
"""Stands in for a version that is yet to be chosen, where a file is judged."""


def read_asset(kind: Kind, source: Source, folder: str) -> Resource:
    """The asset that `source` describes; paths in it are relative to `folder`. Its address has no version when the file
    has none. Raises BadFile with every problem."""
    value = deepcopy(source.value)
    value.pop("$schema", None)
    troubles = [
        source.trouble(field, why)
        for field, why in _REFUSED.get(kind, {}).items()
        if value.pop(field, None) is not None
    ]
    if why := _TYPES.get(kind, {}).get(str(value.get("type"))):
        troubles.append(source.trouble("type", why))
        del value["type"]
    text, field = None, "path"
    if kind == "environment":
        field = "conda_file"
        text = _environment(value, source, troubles)
    if isinstance(value.get("path"), str):
        try:
            value["path"] = file_uri(value["path"], folder)
        except ValueError as error:
            troubles.append(source.trouble(field, str(error)))
    version = value.get("version")
    judged = {**value, "version": _UNNUMBERED if version is None else version}
    troubles += [trouble for trouble in invalid(_FORMS[kind], judged, source) if trouble.field not in _names(troubles)]
    if troubles:
        raise BadFile([_renamed(trouble, field, source) for trouble in troubles])
    address = {"name": value.pop("name")}
    if value.pop("version", None) is not None:
        address["version"] = version
    texts = {} if text is None else {"path": text}
    return Resource(address, value, source, {"path": field}, ("path",), texts)


def _environment(value: dict[str, Any], source: Source, troubles: list[Trouble]) -> str | None:
    """Makes `path` of `conda_file`, which may be a path or the file itself: its text is returned then."""
    system = value.pop("os_type", None)
    if str(system or "linux").lower() != "linux":
        troubles.append(source.trouble("os_type", "instances run on Linux: remove it"))
    if "path" in value:
        troubles.append(source.trouble("path", "an environment is named with `conda_file`: its path, or what is in it"))
    conda = value.pop("conda_file", None)
    value["path"] = conda
    if conda is None:
        if not {"conda_file", "build"} & _names(troubles):
            troubles.append(source.trouble("conda_file", _OF_A_CONTAINER))
        # What is missing is told once.
        value["path"] = "file:///missing"
    elif isinstance(conda, dict):
        value["path"] = "file:///conda.yml"
        return yaml.safe_dump(conda, sort_keys=False, allow_unicode=True)
    return None


def _names(troubles: list[Trouble]) -> set[str]:
    return {trouble.field for trouble in troubles}


def _renamed(trouble: Trouble, field: str, source: Source) -> Trouble:
    return source.trouble(field, trouble.message) if trouble.field == "path" and field != "path" else trouble
