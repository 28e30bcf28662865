"""What the provisioner is told, by ENDPUNKT_<FIELD> variables."""

from pydantic import Field

from contracts.catalog import CatalogFile, load_catalog
from contracts.shell.settings import Settings
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
    usage_seconds: float = Field(default=5.0, gt=0, description="how often instance time is told")
    artifact_gib: float = Field(default=20.0, gt=0, description="the largest model or code folder that is taken")
    log_mib: float = Field(default=10.0, gt=0, description="how much of an instance's newest output is kept, twice")
    quota_endpoints: int = Field(default=Quotas().endpoints, ge=0)
    quota_deployments: int = Field(default=Quotas().deployments, ge=0)
    quota_deployments_per_endpoint: int = Field(default=Quotas().deployments_per_endpoint, ge=0)
    quota_instances_per_deployment: int = Field(default=Quotas().instances_per_deployment, ge=0)

    @property
    def quotas(self) -> Quotas:
        """The four quotas."""
        return Quotas(
            self.quota_endpoints,
            self.quota_deployments,
            self.quota_deployments_per_endpoint,
            self.quota_instances_per_deployment,
        )

    @property
    def timing(self) -> Timing:
        """How gently instances end."""
        return Timing(self.drain_seconds, self.stop_seconds)
