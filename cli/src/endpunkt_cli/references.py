"""How deployment files name what a deployment is made of: model, code and environment, in each of Azure's forms.

PURE: values in, values out; no disk, no network, no clock. Each function rewrites its part of the file's value in place
to what the API takes, and returns what is wrong as (field, message).
"""

import posixpath
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

Problem = tuple[str, str]

_REGISTERED = re.compile(r"azureml:[^:@/]+(:[^:@/]+|@latest)")
_IN_WORKSPACE = re.compile(r"azureml:/+subscriptions/.+/(?:models|environments|codes|code)/([^/]+)/versions/([^/]+)")

_REGISTRY = "it lies in a registry of Azure, which cannot be reached from here"
_ALONE = "or give --local-environment to run in the services' own environment"
_OF_A_CONTAINER = "this version runs instances as processes, not as containers"
_MODEL_TYPES = {"triton_model": "there is no Triton server here: this version serves custom_model and mlflow_model"}
_ABOUT_A_MODEL = ("name", "version", "description", "tags")
_LABELS = ("$schema", "name", "version", "description", "tags", "properties", "os_type")
"""What an inline environment says of itself: it is known by its contents here."""


def registered(text: str) -> str | None:
    """`azureml:name:version` or `azureml:name@latest`; the id of an asset of a workspace is shortened to that."""
    if within := _IN_WORKSPACE.fullmatch(text):
        return f"azureml:{within[1]}:{within[2]}"
    return text if _REGISTERED.fullmatch(text) else None


def file_uri(path: str, folder: str) -> str:
    """A local path, relative to `folder` (absolute), as a `file:` URI; what was uploaded before stays. Raises
    ValueError for another place."""
    if path.startswith(("file:", "artifact:")):
        return path
    if path.startswith("azureml:") or "://" in path:
        raise ValueError("this version takes a local file or folder: write its path")
    return PurePosixPath(posixpath.normpath(posixpath.join(folder, path))).as_uri()


def path_of(uri: str | None) -> str | None:
    """The path that a `file:` URI names; None for another place."""
    return unquote(urlsplit(uri).path) if uri is not None and uri.startswith("file:") else None


def code(value: dict[str, Any]) -> list[Problem]:
    """`code_configuration.code`: a folder, or registered code."""
    configuration = value.get("code_configuration")
    text = configuration.get("code") if isinstance(configuration, dict) else None
    if isinstance(configuration, dict) and isinstance(text, str) and text.startswith("azureml:"):
        path = "code_configuration.code"
        if text.startswith("azureml://registries/"):
            return [(path, f"{_REGISTRY}: write the path of a folder, or azureml:NAME:VERSION of code registered here")]
        if (id := registered(text)) is None:
            return [(path, "write the path of a folder, or azureml:NAME:VERSION of code registered here")]
        configuration["code"] = id
    return []


def model(value: dict[str, Any]) -> tuple[dict[str, Any] | None, list[Problem]]:
    """`model`: registered, or inline. Returns the name and version under which an inline one is to be registered
    ({"name", "version", "description", "tags"}); None when there are none."""
    given = value.get("model")
    if isinstance(given, str):
        if (id := registered(given)) is not None:
            value["model"] = {"id": id}
            return None, []
        del value["model"]
        if given.startswith("azureml://registries/"):
            hint = "download it, then write `model: {path: FOLDER}`, or register it here (endpunkt model create)"
            return None, [("model", f"{_REGISTRY}: {hint}")]
        return None, [("model", "write azureml:NAME:VERSION, azureml:NAME@latest, or `{path: PATH}` for a local one")]
    if not isinstance(given, dict):
        return None, []
    about = {name: given.pop(name) for name in (*_ABOUT_A_MODEL, "properties") if name in given}
    problems = []
    if isinstance(kind := given.get("type"), str) and kind in _MODEL_TYPES:
        problems.append(("model.type", _MODEL_TYPES[kind]))
        del given["type"]
    if about.get("version") is not None and about.get("name") is None:
        problems.append(("model.version", "is the version of a model without a name: add `name`, or remove it"))
    if about.get("name") is None or about.get("version") is None or "path" not in given:
        return None, problems
    return {name: about[name] for name in _ABOUT_A_MODEL if about.get(name)}, problems


def environment(value: dict[str, Any], aside: bool) -> tuple[str | None, list[Problem]]:
    """`environment`: registered, or inline; `aside` (--local-environment) drops it. Returns the text of an inline
    `conda_file`, which then is to be sent as a file."""
    given = value.get("environment")
    if aside or given is None:
        value.pop("environment", None)
        return None, []
    if isinstance(given, str):
        if (id := registered(given)) is not None:
            value["environment"] = {"id": id}
            return None, []
        del value["environment"]
        reason = f"{_REGISTRY}: " if given.startswith("azureml://registries/") else ""
        next_step = "name the packages with `environment: {conda_file: PATH}`, or register them "
        return None, [("environment", f"{reason}{next_step}(endpunkt environment create), {_ALONE}")]
    if not isinstance(given, dict):
        return None, []
    if set(given) == {"id"} or given.get("id") is not None:
        # As the API shows it, with what it leaves open.
        value["environment"] = {"id": given["id"]}
        return None, []
    return _inline(value, given)


def _inline(value: dict[str, Any], given: dict[str, Any]) -> tuple[str | None, list[Problem]]:
    problems, text = [], None
    for label in (*_LABELS, "id"):
        given.pop(label, None)
    for name in ("build", "inference_config"):
        if given.pop(name, None):
            hint = f"{_OF_A_CONTAINER}: name the packages with `conda_file` instead, {_ALONE}"
            problems.append((f"environment.{name}", hint))
    conda = given.get("conda_file")
    if conda is None and not problems:
        hint = f"{_OF_A_CONTAINER}: what the image holds is named with `conda_file`, {_ALONE}"
        problems.append(("environment.image" if "image" in given else "environment", hint))
    if problems:
        del value["environment"]
    elif isinstance(conda, dict):
        text = yaml.safe_dump(conda, sort_keys=False, allow_unicode=True)
        given["conda_file"] = "file:///conda.yml"
    return text, problems


def collected(value: dict[str, Any]) -> list[Problem]:
    """`data_collector`: the data of a collection may be named in one text. What is returned is no fault, but a note: it
    does not say where the data goes."""
    collector = value.get("data_collector")
    collections = collector.get("collections") if isinstance(collector, dict) else None
    notes = []
    for key, collection in collections.items() if isinstance(collections, dict) else ():
        data = collection.get("data") if isinstance(collection, dict) else None
        if data is not None:
            place = f"data/{value.get('endpoint_name', '<endpoint>')}/{value.get('name', '<deployment>')}/{key}"
            told = f"has no effect: it is kept with the deployment, and what is collected lies in the home, at {place}"
            notes.append((f"data_collector.collections.{key}.data", told))
        if isinstance(data, str) and _REGISTERED.fullmatch(data):
            name, _, version = data.removeprefix("azureml:").replace("@", ":").partition(":")
            collection["data"] = {"name": name, "version": version}
    return notes
