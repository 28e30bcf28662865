"""How to reach Kafka: KAFKA_BOOTSTRAP_SERVERS and its TLS and SASL settings, read from the environment."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# How soon a group notices that a member was killed: the least that a broker takes unless told otherwise.
GROUP_SESSION = {"session_timeout_ms": 6000, "heartbeat_interval_ms": 2000}

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")


class KafkaSettingsError(ValueError):
    """The environment does not say how to reach Kafka; `args[0]` lists every reason."""


@dataclass(frozen=True)
class KafkaSettings:
    """One cluster. The password is kept out of the representation."""

    bootstrap_servers: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = "PLAIN"
    sasl_username: str | None = None
    sasl_password: str | None = field(default=None, repr=False)
    ssl_cafile: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "KafkaSettings":
        """Reads KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME,
        KAFKA_SASL_PASSWORD and KAFKA_SSL_CAFILE. Raises KafkaSettingsError with every problem."""
        protocol = environment.get("KAFKA_SECURITY_PROTOCOL", "PLAINTEXT").upper()
        mechanism = environment.get("KAFKA_SASL_MECHANISM", "PLAIN").upper()
        problems = []
        if not environment.get("KAFKA_BOOTSTRAP_SERVERS"):
            problems.append("KAFKA_BOOTSTRAP_SERVERS is not set: give host:port[,host:port], or run `make up`")
        if protocol not in _PROTOCOLS:
            problems.append(f"KAFKA_SECURITY_PROTOCOL is '{protocol}': use one of {', '.join(_PROTOCOLS)}")
        if protocol.startswith("SASL"):
            if mechanism not in _MECHANISMS:
                problems.append(f"KAFKA_SASL_MECHANISM is '{mechanism}': use one of {', '.join(_MECHANISMS)}")
            problems += [
                f"{name} is not set, but KAFKA_SECURITY_PROTOCOL is {protocol}"
                for name in ("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD")
                if not environment.get(name)
            ]
        if (authorities := environment.get("KAFKA_SSL_CAFILE")) and protocol.endswith("SSL"):
            try:
                ssl.create_default_context(cafile=authorities)
            except OSError as error:  # its text does not name the file
                problems.append(f"KAFKA_SSL_CAFILE is '{authorities}': give a PEM file of authorities ({error})")
        if problems:
            raise KafkaSettingsError("; ".join(problems))
        return cls(
            bootstrap_servers=environment["KAFKA_BOOTSTRAP_SERVERS"],
            security_protocol=protocol,
            sasl_mechanism=mechanism,
            sasl_username=environment.get("KAFKA_SASL_USERNAME"),
            sasl_password=environment.get("KAFKA_SASL_PASSWORD"),
            ssl_cafile=environment.get("KAFKA_SSL_CAFILE"),
        )

    def client(self) -> dict[str, Any]:
        """Arguments that every aiokafka client takes."""
        arguments: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap_servers,
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.endswith("SSL"):
            arguments["ssl_context"] = ssl.create_default_context(cafile=self.ssl_cafile)
        if self.security_protocol.startswith("SASL"):
            arguments |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        return arguments
