"""The endpoints that the router is measured with."""

import hashlib
from datetime import UTC, datetime

from contracts.messages import (
    Artifact,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    Instance,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    RequestSettings,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)


def desired(name: str) -> EndpointDesired:
    """An endpoint with the split 90/10."""
    key = EndpointKey(digest=hashlib.sha256(b"the-primary-key").hexdigest(), sealed="-")
    spec = OnlineDeploymentSpec(
        code_configuration=CodeConfiguration(code="code", scoring_script="score.py"),
        request_settings=RequestSettings(max_concurrent_requests_per_instance=1000),
    )
    deployment = DeploymentDesired(generation=1, code=Artifact(digest="0" * 64, name="code"), spec=spec)
    return EndpointDesired(
        endpoint=name,
        generation=1,
        created_at=AT,
        updated_at=AT,
        spec=OnlineEndpointSpec(),
        keys=EndpointKeys(primary=key, secondary=key),
        traffic={"blue": 90, "green": 10},
        deployments={"blue": deployment, "green": deployment},
    )


def observed(name: str, ports: dict[str, str]) -> EndpointObserved:
    """Each deployment with one Ready instance."""
    return EndpointObserved(
        endpoint=name,
        generation=1,
        state="Succeeded",
        deployments={
            deployment: DeploymentObserved(
                generation=1,
                state="Succeeded",
                desired_instances=1,
                instances=(
                    Instance(
                        id=f"{deployment}-1",
                        generation=1,
                        state="Ready",
                        address=f"127.0.0.1:{port}",
                        started_at=AT,
                    ),
                ),
            )
            for deployment, port in ports.items()
        },
    )
