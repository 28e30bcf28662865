"""Registered assets: models, environments, code and data under a name and a version.

PURE, see `base`.
"""

from typing import ClassVar, Literal

from pydantic import Field

from contracts.messages.base import Message, Tags, Timestamp
from contracts.messages.endpoints import Artifact
from contracts.messages.specs import ModelType, SourcePath

ASSET_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$"

AssetKind = Literal["model", "environment", "code", "data"]


class RegisterAsset(Message, abstract=True):
    """Register the folder or file at `path` under a name and a version. A version is never replaced."""

    TOPIC: ClassVar[str] = "endpoints.commands"
    KIND: ClassVar[AssetKind]

    name: str = Field(pattern=ASSET_NAME)
    version: str = Field(pattern=ASSET_NAME)
    path: SourcePath
    type: str
    description: str = ""
    tags: Tags = {}

    def key(self) -> str:
        return f"{self.KIND}:{self.name}"

    @property
    def subject(self) -> str:
        """The key of the asset that it makes."""
        return f"{self.key()}:{self.version}"


class RegisterModel(RegisterAsset):
    """Register a model."""

    KIND: ClassVar[AssetKind] = "model"

    type: ModelType = "custom_model"


class RegisterEnvironment(RegisterAsset):
    """Register an environment: `path` is a conda YAML file or a requirements.txt."""

    KIND: ClassVar[AssetKind] = "environment"

    type: Literal["conda"] = "conda"
    image: str | None = None


class RegisterCode(RegisterAsset):
    """Register a folder of code."""

    KIND: ClassVar[AssetKind] = "code"

    type: Literal["code"] = "code"


class RegisterData(RegisterAsset):
    """Register data: a file or a folder."""

    KIND: ClassVar[AssetKind] = "data"

    type: Literal["uri_file", "uri_folder"] = "uri_folder"


class AssetRegistered(Message):
    """One version of an asset, as it lies in the artifact store."""

    TOPIC: ClassVar[str] = "assets.registered"

    kind: AssetKind = "model"
    name: str
    version: str
    type: str
    description: str = ""
    tags: Tags = {}
    artifact: Artifact
    command_id: str
    registered_at: Timestamp

    def key(self) -> str:
        return f"{self.kind}:{self.name}:{self.version}"
