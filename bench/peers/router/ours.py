"""`python ours.py PORT plain|tls PEM ENDPOINTS BLUE GREEN`: the router's data plane, with a table that is given.

What the service does besides (reading Kafka, telling usage and load once in a while) is not part of a request's way.
"""

import asyncio
import ssl
import sys

import uvloop
from documents import desired, observed

from router.gateway import Gateway
from router.listener import Listener
from router.memory import forget_the_start, keep_large_pieces


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
