"""Settings from the environment: each field of a pydantic model is ENDPUNKT_<FIELD>."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class Settings(BaseModel):
    """What every service is told. `home` holds certificates, secrets, artifacts and job outputs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    home: Path = Field(default=Path("var/endpunkt"), description="the state that the services of one machine share")
    host: str = Field(default="127.0.0.1", description="the address that listeners bind")
    health_port: int = Field(
        default=0, ge=0, le=65535, description="/healthz, /readyz and /metrics; 0 takes a free port"
    )
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    artifact_store: str = Field(
        default_factory=lambda given: str(given["home"] / "store"),
        min_length=1,
        description="where artifacts are kept: a folder, s3://, az:// or gs://; credentials come from the environment",
    )
    artifact_gib: float = Field(default=20.0, gt=0, description="the largest model or code folder that is taken")
    environment_builds: bool = Field(
        default=False, description="whether packages without a wheel are built, which runs their authors' code"
    )
    environment_seconds: float = Field(default=1800, gt=0, description="how long an environment may take to build")

    @property
    def environments(self) -> Path:
        """The environments that user code runs in."""
        return self.home / "environments"

    @property
    def artifacts(self) -> Path:
        """Where artifacts that run lie on this machine: copies of what is in the store."""
        return self.home / "artifacts"

    @property
    def largest_artifact(self) -> int:
        """The most bytes that one artifact may have."""
        return int(self.artifact_gib * 2**30)


S = TypeVar("S", bound=Settings)


class SettingsError(ValueError):
    """The environment's settings are wrong; the text lists each variable with its reason."""


def load_settings(model: type[S], environment: Mapping[str, str] = os.environ) -> S:
    """The settings in `environment`. Raises SettingsError with every problem."""
    given = {
        name: environment[variable]
        for name in model.model_fields
        if (variable := f"ENDPUNKT_{name.upper()}") in environment
    }
    try:
        return model.model_validate(given)
    except ValidationError as error:
        lines = [f"ENDPUNKT_{str(detail['loc'][0]).upper()}: {detail['msg']}" for detail in error.errors()]
        raise SettingsError("; ".join(lines)) from None
