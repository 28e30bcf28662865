"""What the router is told: each field is the environment's ENDPUNKT_<FIELD>."""

import os
from pathlib import Path

from pydantic import Field

from contracts.scoring_tokens import AUDIENCE
from contracts.shell.settings import Settings
from router.shares import Share
from router.tokens import Issuer

WORKER = "ENDPUNKT_ROUTER_WORKER"


class RouterSettings(Settings):
    """The router's settings."""

    router_port: int = Field(default=8443, ge=0, le=65535, description="HTTPS scoring; 0 takes a free port")
    private_port: int | None = Field(
        default=None, ge=0, le=65535, description="where endpoints without public network access answer"
    )
    router_processes: int = Field(
        # `make up` is a whole Endpunkt in 1.2 GiB of somebody's machine, where one process is enough. At rest each is
        # 50 MiB and 0.25 % of a core, and the one that looks after several is another 45 MiB.
        default=1,
        ge=0,
        le=256,
        description="how many processes answer on the port; 0: one per core. A split is exact in each of them. A limit "
        "(endpunkt.requests_per_second, endpunkt.connections, max_concurrent_requests_per_instance and the queue that "
        "goes by it) is divided among them, and each has at least 1 of it: give no limit that is smaller than their "
        "number. A client with few connections meets few of them, and their parts of the limit",
    )
    router_worker: int | None = Field(
        default=None, ge=1, description="which of its processes this is: the router itself says so to them"
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
    source: str = Field(
        default="router-1",
        min_length=1,
        description="this process's name in usage and load samples; several: NAME-1, ...",
    )
    usage_seconds: float = Field(default=5.0, gt=0, description="how often usage is told")
    drain_seconds: float = Field(
        default=30.0, ge=0, description="how long a stop waits for requests; longer if one may take longer"
    )

    @property
    def processes(self) -> int:
        """How many processes there are."""
        return self.router_processes or len(os.sched_getaffinity(0))

    @property
    def share(self) -> Share:
        """Which part of an endpoint's limits is this process's."""
        return Share() if self.router_worker is None else Share(self.router_worker, self.processes)

    def is_former_source(self, name: str) -> bool:
        """Whether a process of this router was this source when their number was another."""
        base = self.source if self.router_worker is None else self.source.removesuffix(f"-{self.router_worker}")
        numbered = {f"{base}-{number}" for number in range(1, self.processes + 1)}
        ours = name == base or (name.startswith(f"{base}-") and name.removeprefix(f"{base}-").isdigit())
        return ours and name not in ({base} if self.processes == 1 else numbered)

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
