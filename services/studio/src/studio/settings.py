"""What studio is told."""

from pydantic import Field

from contracts.shell.settings import Settings


class StudioSettings(Settings):
    """Studio's own settings besides the common ones."""

    source: str = Field(default="studio-1", description="the name under which this process publishes")
    studio_port: int = Field(default=8444, ge=0, le=65535, description="the management API; 0 takes a free port")
    reply_seconds: float = Field(default=25, gt=0, description="how long a request waits for its command's effect")
    idle_seconds: float = Field(
        default=15, gt=0, description="how long a client may take for a handshake, head or body"
    )
    identity_issuer: str = Field(
        default="https://127.0.0.1:8444/identity", description="who tokens for scoring say has issued them"
    )
    scoring_url: str = Field(
        default="https://localhost:8443", pattern=r"^https://[^/]+$", description="where clients reach the router"
    )
