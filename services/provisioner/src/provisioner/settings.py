"""What the provisioner is told, by ENDPUNKT_<FIELD> variables."""

from typing import Literal

from pydantic import Field, field_validator

from contracts.catalog import CatalogFile, load_catalog
from contracts.shell.settings import Settings
from provisioner.compute.users import USERS
from provisioner.core.plan import Timing
from provisioner.core.world import Quotas


class ProvisionerSettings(Settings):
    """Quotas are Azure's defaults; raise them as the machine allows."""

    source: str = Field(default="provisioner-1", description="the stable name under which usage and samples are told")
    catalog: CatalogFile = Field(
        default_factory=load_catalog, description="the path of the catalogue of instance types; Endpunkt has one"
    )
    drain_seconds: float = Field(default=2.0, ge=0, description="from 'it drains' in the log to SIGTERM")
    stop_seconds: float = Field(default=5.0, ge=0, description="from the end of an instance's drain time to SIGKILL")
    instances_at_stop: Literal["keep", "drain"] = Field(
        default="keep", description="on SIGTERM: left to the next provisioner, or drained and ended"
    )
    usage_seconds: float = Field(default=5.0, gt=0, description="how often instance time is told")
    instance_users: str = Field(
        default=f"{USERS[0]}-{USERS[-1]}",
        pattern=r"^[1-9]\d*-[1-9]\d*$",
        description="as root: the numbers of the users that instances run as, one each, the first to the last",
    )
    log_mib: float = Field(default=10.0, gt=0, description="how much of an instance's newest output is kept, twice")
    identity_issuer: str = Field(
        default="https://127.0.0.1:8444/identity", description="where the keys that verify instances' tokens are told"
    )
    overcommit_cpu: float = Field(
        default=Quotas().overcommit_cpu, gt=0, description="how many times over the machine's cores are promised"
    )
    overcommit_memory: float = Field(
        default=Quotas().overcommit_memory, gt=0, description="how many times over the machine's memory is promised"
    )
    quota_endpoints: int = Field(default=Quotas().endpoints, ge=0)
    quota_deployments: int = Field(default=Quotas().deployments, ge=0)
    quota_deployments_per_endpoint: int = Field(default=Quotas().deployments_per_endpoint, ge=0)
    quota_instances_per_deployment: int = Field(default=Quotas().instances_per_deployment, ge=0)

    @field_validator("instance_users")
    @classmethod
    def _some_users(cls, value: str) -> str:
        first, last = value.split("-")
        if int(first) > int(last):
            raise ValueError("the first must not be above the last")
        return value

    @property
    def users(self) -> range:
        """The users of instances."""
        first, last = self.instance_users.split("-")
        return range(int(first), int(last) + 1)

    @property
    def quotas(self) -> Quotas:
        """What may be promised."""
        return Quotas(
            self.quota_endpoints,
            self.quota_deployments,
            self.quota_deployments_per_endpoint,
            self.quota_instances_per_deployment,
            self.overcommit_cpu,
            self.overcommit_memory,
        )

    @property
    def timing(self) -> Timing:
        """How gently instances end."""
        return Timing(self.drain_seconds, self.stop_seconds)
