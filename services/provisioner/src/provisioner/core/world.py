"""What a decision about a command looks at: the documents as they are, and facts that the shell gathered.

PURE, see the package.
"""

import posixpath
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from contracts.catalog import Catalog
from contracts.messages import (
    Artifact,
    AssetRegistered,
    EndpointCommand,
    EndpointDesired,
    PutDeployment,
    RegisterModel,
)

Command = EndpointCommand | RegisterModel


@dataclass(frozen=True, slots=True)
class Quotas:
    """Azure's default limits of a subscription (its page "Manage resources and quotas")."""

    endpoints: int = 100
    deployments: int = 500
    deployments_per_endpoint: int = 20
    instances_per_deployment: int = 50


@dataclass(frozen=True, slots=True)
class Source:
    """A file or folder that a command names: `field` is where, `path` the absolute path; `problem` why there is none.
    `script` is a file that the folder must hold, and `must_be_folder` that a single file will not do."""

    field: str
    path: str = ""
    problem: str | None = None
    must_be_folder: bool = False
    script: str | None = None


@dataclass(frozen=True, slots=True)
class Fact:
    """What the disk says about a Source: why it cannot be used, or what it is. `artifact` is set once it is stored."""

    problem: str | None = None
    is_folder: bool = False
    has_script: bool = False
    artifact: Artifact | None = None


@dataclass(frozen=True, slots=True)
class World:
    """Everything that a command is judged by.

    `assets` are by key (`model:name:version`), `facts` by Source. `deleting` holds the endpoints that still have
    instances or an observed state although they are no longer desired; `deleted` tells which command deleted an
    endpoint, as its tombstone says.
    """

    endpoints: Mapping[str, EndpointDesired]
    assets: Mapping[str, AssetRegistered]
    catalog: Catalog
    quotas: Quotas = Quotas()
    deleting: Container[str] = ()
    deleted: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[Source, Fact] = field(default_factory=dict)


def sources_of(command: Command) -> tuple[Source, ...]:
    """The files and folders whose facts a decision about `command` needs."""
    if isinstance(command, RegisterModel):
        return (_source("path", command.path),)
    if not isinstance(command, PutDeployment):
        return ()
    configuration = command.spec.code_configuration
    script = configuration.scoring_script
    code = _source(
        "spec.code_configuration.code",
        configuration.code,
        must_be_folder=True,
        script=script if stays_inside(script) else None,
    )
    model = command.spec.model
    return (code,) if model is None or model.path is None else (_source("spec.model.path", model.path), code)


def stays_inside(path: str) -> bool:
    """Whether a relative path names something below the folder that it is relative to."""
    normal = posixpath.normpath(path)
    return bool(path) and "\x00" not in path and not normal.startswith(("/", "..")) and normal != "."


def _source(field: str, reference: str, *, must_be_folder: bool = False, script: str | None = None) -> Source:
    """A `file:` URI (RFC 8089) or an absolute path as a Source."""
    try:
        parts = urlsplit(reference) if reference.startswith("file:") else None
    except ValueError as error:
        return Source(field, problem=f"'{reference}' is no URI ({error}): use file:///path")
    if parts is not None and parts.netloc not in ("", "localhost"):
        return Source(field, problem=f"'{reference}' names another machine: use file:///path")
    path = unquote(parts.path) if parts is not None else reference
    if "\x00" in path:
        return Source(field, problem="a path holds no NUL character")
    if not path.startswith("/"):
        reason = (
            "is a relative path" if "://" not in path and not path.startswith("azureml:") else "is not a local path"
        )
        return Source(field, problem=f"'{reference}' {reason}: give an absolute path or a file: URI of this machine")
    return Source(field, posixpath.normpath(path), must_be_folder=must_be_folder, script=script)
