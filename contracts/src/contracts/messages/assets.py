"""Registered assets: models under a name and a version.

PURE, see `base`.
"""

from typing import ClassVar, Literal

from pydantic import Field

from contracts.messages.base import Message, Tags, Timestamp
from contracts.messages.endpoints import Artifact

ASSET_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$"


class RegisterModel(Message):
    """Register the folder or file at `path` (where the provisioner runs). A version is never replaced."""

    TOPIC: ClassVar[str] = "endpoints.commands"

    name: str = Field(pattern=ASSET_NAME)
    version: str = Field(pattern=ASSET_NAME)
    path: str
    type: Literal["custom_model"] = "custom_model"
    description: str = ""
    tags: Tags = {}

    def key(self) -> str:
        return f"model:{self.name}"


class AssetRegistered(Message):
    """One version of a model, as it lies in the artifact store."""

    TOPIC: ClassVar[str] = "assets.registered"

    kind: Literal["model"] = "model"
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
