"""`python ours.py PORT plain|tls PEM ENDPOINTS BLUE GREEN`: the router's data plane, with a table that is given.

What the service does besides (reading Kafka, telling usage and load once in a while) is not part of a request's way.
"""

import asyncio
import hashlib
import ssl
import sys
from datetime import UTC, datetime

import uvloop

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
from router.gateway import Gateway
from router.listener import Listener
from router.memory import forget_the_start, keep_large_pieces

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


async def main(port: str, scheme: str, pem: str, endpoints: str, blue: str, green: str) -> None:
    """Serve until killed."""
    loop = asyncio.get_running_loop()
    keep_large_pieces()
    gateway = Gateway(loop, b".local.inference.localhost")
    for name in ("diabetes", *(f"endpoint-{number}" for number in range(int(endpoints) - 1))):
        documents = desired(name), {name: observed(name, {"blue": blue, "green": green})}
        gateway.changed(gateway.table.apply(name, *documents, loop.time()))
    tls = None
    if scheme == "tls":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(pem)
        tls.set_alpn_protocols(["http/1.1"])
    forget_the_start()
    await Listener(gateway).start("127.0.0.1", int(port), tls)
    await asyncio.Event().wait()


uvloop.install()
asyncio.run(main(*sys.argv[1:]))
