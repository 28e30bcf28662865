"""Which files and folders a command names, and what must be known of them before it is decided on.

PURE, see the package. What is named is a path of this machine, what was uploaded before (`artifact:<digest>/<name>`),
or what is registered (`azureml:name:version`).
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Literal
from urllib.parse import unquote, urlsplit

from contracts.artifacts import parse_artifact_uri
from contracts.messages import (
    WARMUP_REQUEST,
    AssetRegistered,
    DeploymentSpec,
    OnlineDeploymentSpec,
    Problem,
    PutDeployment,
    RegisterAsset,
    RegisterCode,
    RegisterData,
    RegisterEnvironment,
)
from contracts.messages.assets import AssetKind
from contracts.messages.specs import ModelType
from provisioner.core.world import Command, Source

MLMODEL = "MLmodel"
"""The file that makes a folder an MLflow model."""

MLFLOW_ENVIRONMENTS = ("conda.yaml", "requirements.txt")
"""The environment files that an MLflow model brings along, the better one first."""

ITSELF = ""
"""The name of the file that a source is."""

CODE, MODEL, ENVIRONMENT = "spec.code_configuration.code", "spec.model", "spec.environment"


def sources_of(command: Command, assets: Mapping[str, AssetRegistered]) -> tuple[Source, ...]:
    """The files and folders whose facts a decision about `command` needs."""
    match command:
        case RegisterEnvironment():
            return (_named("path", command.path, must_be="file", reads=(ITSELF,)),)
        case RegisterCode():
            return (_named("path", command.path, must_be="folder"),)
        case RegisterData():
            return (_named("path", command.path, must_be="file" if command.type == "uri_file" else "folder"),)
        case RegisterAsset():
            return (_named("path", command.path, wants=(MLMODEL,) if command.type == "mlflow_model" else ()),)
        case PutDeployment():
            return tuple(_of_deployment(command.spec, assets))
    return ()


def _of_deployment(spec: DeploymentSpec, assets: Mapping[str, AssetRegistered]) -> Iterator[Source]:
    warmup = warmup_file(spec)
    warmups = (warmup,) if warmup is not None and stays_inside(warmup) else ()
    if spec.model is not None:
        wants: tuple[str, ...] = ()
        reads: tuple[str, ...] = ()
        if model_type(spec, assets) == "mlflow_model":
            wants = (MLMODEL, *(warmups if spec.code_configuration is None else ()))
            reads = MLFLOW_ENVIRONMENTS if spec.environment is None else ()
        if spec.model.id is not None:
            yield _registered(f"{MODEL}.id", "model", spec.model.id, assets, wants=wants, reads=reads)
        else:
            yield _named(f"{MODEL}.path", spec.model.path or "", wants=wants, reads=reads)
    if spec.code_configuration is not None:
        code, script = spec.code_configuration.code, spec.code_configuration.scoring_script
        wants = ((script,) if stays_inside(script) else ()) + warmups
        if is_registered(code):
            yield _registered(CODE, "code", code, assets, must_be="folder", wants=wants)
        else:
            yield _named(CODE, code, must_be="folder", wants=wants)
    if spec.environment is not None:
        if spec.environment.id is not None:
            field = f"{ENVIRONMENT}.id"
            yield _registered(field, "environment", spec.environment.id, assets, must_be="file", reads=(ITSELF,))
        else:
            file = spec.environment.conda_file or ""
            yield _named(f"{ENVIRONMENT}.conda_file", file, must_be="file", reads=(ITSELF,))


def model_type(spec: DeploymentSpec, assets: Mapping[str, AssetRegistered]) -> ModelType:
    """The type of a deployment's model: what was registered, or what is written beside the path."""
    if spec.model is None or spec.model.id is None:
        return "custom_model" if spec.model is None else spec.model.type
    asset = resolve(spec.model.id, "model", assets)
    return "mlflow_model" if asset is not None and asset.type == "mlflow_model" else "custom_model"


def warmup_file(spec: DeploymentSpec) -> str | None:
    """The sample request that an instance must have answered before it is ready, as the person wrote it."""
    return spec.properties.get(WARMUP_REQUEST) if isinstance(spec, OnlineDeploymentSpec) else None


def is_registered(reference: str) -> bool:
    """Whether `reference` means a registered asset."""
    return reference.startswith("azureml:") and "://" not in reference


def resolve(id: str, kind: AssetKind, assets: Mapping[str, AssetRegistered]) -> AssetRegistered | None:
    """The asset that `azureml:name:version` or `azureml:name@latest` (the one registered last) means."""
    reference = id.removeprefix("azureml:")
    if not reference.endswith("@latest"):
        return assets.get(f"{kind}:{reference}")
    name = reference.removesuffix("@latest")
    versions = [asset for asset in assets.values() if (asset.kind, asset.name) == (kind, name)]
    return max(versions, key=lambda asset: (asset.registered_at, asset.version), default=None)


def exact(id: str, kind: AssetKind, assets: Mapping[str, AssetRegistered]) -> str:
    """The id with the version that `@latest` means now. What it names must exist."""
    asset = resolve(id, kind, assets)
    assert asset is not None, "an id is resolved before a command is accepted"
    return f"azureml:{asset.name}:{asset.version}"


def stays_inside(path: str) -> bool:
    """Whether a relative path names something below the folder that it is relative to."""
    normal = posixpath.normpath(path)
    return bool(path) and "\x00" not in path and not normal.startswith(("/", "..")) and normal != "."


def _registered(
    field: str,
    kind: AssetKind,
    id: str,
    assets: Mapping[str, AssetRegistered],
    *,
    must_be: Literal["file", "folder"] | None = None,
    wants: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
) -> Source:
    if asset := resolve(id, kind, assets):
        return Source(field, artifact=asset.artifact, must_be=must_be, wants=wants, reads=reads)
    name = id.removeprefix("azureml:").partition(":")[0].partition("@")[0]
    versions = ", ".join(sorted(each.version for each in assets.values() if (each.kind, each.name) == (kind, name)))
    has = f"'{name}' has version {versions}" if versions else f"no {kind} '{name}' is registered"
    message = f"'{id}' does not exist ({has}): register it first, or name a path"
    return Source(field, problem=Problem(code="ResourceNotFound", field=field, message=message))


def _named(
    field: str,
    reference: str,
    *,
    must_be: Literal["file", "folder"] | None = None,
    wants: tuple[str, ...] = (),
    reads: tuple[str, ...] = (),
) -> Source:
    """A `file:` URI (RFC 8089), an absolute path or an `artifact:` reference as a Source."""
    try:
        if reference.startswith("artifact:"):
            artifact = parse_artifact_uri(reference)
            return Source(field, artifact=artifact, must_be=must_be, wants=wants, reads=reads)
        path = _path(reference)
    except ValueError as error:
        return Source(field, problem=Problem(code="BadArgument", field=field, message=str(error)))
    return Source(field, posixpath.normpath(path), must_be=must_be, wants=wants, reads=reads)


def _path(reference: str) -> str:
    """The absolute path that `reference` names. Raises ValueError with the reason when it names none."""
    try:
        parts = urlsplit(reference) if reference.startswith("file:") else None
    except ValueError as error:
        raise ValueError(f"'{reference}' is no URI ({error}): use file:///path") from None
    if parts is not None and parts.netloc not in ("", "localhost"):
        raise ValueError(f"'{reference}' names another machine: use file:///path")
    path = unquote(parts.path) if parts is not None else reference
    if "\x00" in path:
        raise ValueError("a path holds no NUL character")
    if not path.startswith("/"):
        local = "://" not in path and not path.startswith("azureml:")
        reason = "is a relative path" if local else "is not a local path"
        raise ValueError(f"'{reference}' {reason}: give an absolute path or a file: URI of this machine")
    return path
