"""Which Kafka: the cluster that the environment names, and whether something answers there.

KAFKA_BOOTSTRAP_SERVERS is a comma-separated list of host:port. Kafka needs one of them; the rest it learns.
"""

import asyncio
import logging
import socket
from collections.abc import Mapping

from aiokafka.errors import KafkaError

from contracts.log import KafkaSettings, KafkaSettingsError, Publisher
from endpunkt_infra.kafka import KafkaUnavailableError

VARIABLE = "KAFKA_BOOTSTRAP_SERVERS"

log = logging.getLogger(__name__)


def named(environ: Mapping[str, str]) -> str | None:
    """The bootstrap address that the environment names, without blanks; None when it names none."""
    servers = [server.strip() for server in environ.get(VARIABLE, "").split(",")]
    return ",".join(filter(None, servers)) or None


def parse(address: str) -> list[tuple[str, int]]:
    """`host:port,[v6]:port` as pairs. Raises KafkaUnavailableError that tells every malformed entry."""
    pairs, malformed = [], []
    for server in address.split(","):
        host, _, port = server.rpartition(":")
        if host and port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
            pairs.append((host.removeprefix("[").removesuffix("]"), int(port)))
        else:
            malformed.append(server)
    if malformed:
        raise KafkaUnavailableError(f"{VARIABLE}: not host:port: {', '.join(malformed)}")
    return pairs


def external(environ: Mapping[str, str]) -> KafkaSettings | None:
    """The cluster that the environment names, once it has answered as Kafka; None when it names none.

    Raises KafkaUnavailableError: malformed, silent, or not letting us in with the TLS and SASL settings given.
    """
    address = named(environ)
    if address is None:
        return None
    check(address)
    try:
        settings = KafkaSettings.from_environment({**environ, VARIABLE: address})
        asyncio.run(_log_in(settings))
    except (KafkaError, KafkaSettingsError, OSError) as error:
        raise KafkaUnavailableError(f"{VARIABLE}={address} does not let us in: {error}") from error
    return settings


async def _log_in(settings: KafkaSettings) -> None:
    publisher = Publisher(settings, "endpunkt")
    await publisher.start()
    await publisher.stop()


def check(address: str, timeout: float = 5.0) -> None:
    """Connect to each listed host. One that answers is enough; silence from all is a KafkaUnavailableError."""
    servers = parse(address)
    silent = []
    for host, port in servers:
        try:
            socket.create_connection((host, port), timeout).close()
        except OSError as error:
            silent.append(f"{host}:{port} does not answer: {error}")
    if len(silent) == len(servers):
        raise KafkaUnavailableError(
            f"{VARIABLE}={address}: {'; '.join(silent)}. Start that cluster, correct the variable, "
            "or unset it for an embedded Kafka"
        )
    for line in silent:
        log.warning("%s: %s; going on with the others", VARIABLE, line)
