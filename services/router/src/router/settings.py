"""What the router is told: each field is the environment's ENDPUNKT_<FIELD>."""

from pathlib import Path

from pydantic import Field

from contracts.scoring_tokens import AUDIENCE
from contracts.shell.settings import Settings
from router.tokens import Issuer


class RouterSettings(Settings):
    """The router's settings."""

    router_port: int = Field(default=8443, ge=0, le=65535, description="HTTPS scoring; 0 takes a free port")
    private_port: int | None = Field(
        default=None, ge=0, le=65535, description="where endpoints without public network access answer"
    )
    private_host: str = Field(default="127.0.0.1", description="the address of the private port")
    region: str = Field(default="local", pattern=r"^[a-z0-9-]+$", description="<endpoint>.<region>.inference.<domain>")
    domain: str = Field(default="localhost", pattern=r"^[a-z0-9.-]+$")
    extra_hosts: str = Field(default="", description="further names and addresses of the certificate, by comma")
    certificates: Path | None = Field(
        default=None, description="a folder of further certificates with their keys, shown to who asks for their names"
    )
    max_body_bytes: int = Field(default=100 << 20, ge=0, description="a request with a longer body gets 413")
    oidc_issuer: str | None = Field(
        default=None, description="whose tokens endpoints with auth_mode aad_token take: the issuer's address"
    )
    oidc_audience: str = Field(default=AUDIENCE, description="what such a token must be for (aud)")
    oidc_role: str = Field(default="endpunkt.score", description="what it must grant; with /NAME, on one endpoint")
    oidc_role_claim: str = Field(default="roles", description="the claim that lists what it grants")
    oidc_authority: Path | None = Field(default=None, description="a file of CAs that vouch for the issuer's address")
    source: str = Field(default="router-1", min_length=1, description="this process's name in usage and load samples")
    usage_seconds: float = Field(default=5.0, gt=0, description="how often usage is told")
    drain_seconds: float = Field(default=30.0, ge=0, description="how long requests may take to end at a stop")

    @property
    def issuer(self) -> Issuer | None:
        """Who else's tokens are taken."""
        if self.oidc_issuer is None:
            return None
        return Issuer(self.oidc_issuer, self.oidc_audience, self.oidc_role, self.oidc_role_claim)

    @property
    def suffix(self) -> str:
        """What follows an endpoint's name in a host name."""
        return f".{self.region}.inference.{self.domain}"

    @property
    def certificate_hosts(self) -> list[str]:
        """Whom the certificate is for."""
        extra = [host.strip() for host in self.extra_hosts.split(",") if host.strip()]
        return ["localhost", "127.0.0.1", "::1", f"*{self.suffix}", *extra]
