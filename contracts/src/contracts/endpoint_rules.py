"""What an online endpoint's `properties` ask of the router, beyond Azure's own fields.

PURE: text in, rules and problems out. No clock, no I/O. The provisioner refuses properties that have a problem; the
router goes by the rules.
"""

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, Literal
from urllib.parse import urlsplit

from contracts.messages import Part

STICKY = "endpunkt.sticky"
"""`header:NAME` or `cookie:NAME`: requests with the same value go to the same deployment."""

CORS_ORIGINS = "endpunkt.cors_origins"
"""Origins whose pages may call the endpoint, by comma, or `*`. The router answers their browsers' questions."""

ALLOWED_NETWORKS = "endpunkt.allowed_networks"
"""Networks (CIDR) or addresses, by comma, from which requests are answered; all others get 403."""

REQUESTS_PER_SECOND = "endpunkt.requests_per_second"
"""How many requests a second a router takes for the endpoint, all its processes together; more get 429."""

CONNECTIONS = "endpunkt.connections"
"""How many connections a router takes for the endpoint at a time, all its processes together; requests on more get
429."""

NEVER_STICKY = frozenset(
    {
        *("authorization", "azureml-model-deployment", "connection", "expect", "keep-alive", "proxy-authenticate"),
        *("proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
        *("x-ms-client-request-id", "x-request-id"),
    }
)
"""Headers that keep no deployment: the router takes them for itself, or they are about one connection."""

_PREFIX = "endpunkt."
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}")
_MOST = 1_000_000


class Sticky(Part):
    """By the value of which header or cookie a request keeps its deployment."""

    by: Literal["header", "cookie"]
    name: str


class EndpointRules(Part):
    """The properties as values; None or empty where nothing is asked."""

    sticky: Sticky | None = None
    cors_origins: tuple[str, ...] = ()
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    requests_per_second: int | None = None
    connections: int | None = None


def rules_of(properties: Mapping[str, str]) -> tuple[EndpointRules, dict[str, str]]:
    """The rules, and what is wrong with a property, by its name; such a one asks nothing."""
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, text in properties.items():
        read = _READERS.get(name)
        if read is not None:
            try:
                values[name.removeprefix(_PREFIX)] = read(text)
            except ValueError as error:
                problems[name] = str(error)
        elif name.startswith(_PREFIX):
            problems[name] = f"is no property of an endpoint: those are {', '.join(_READERS)}"
    return EndpointRules(**values), problems


def _sticky(text: str) -> Sticky:
    by, _, name = text.partition(":")
    if by == "header" and name.lower() in NEVER_STICKY:
        raise ValueError(
            f"'{name}' is a header that the router keeps for itself: choose one of your own (x-session-id)"
        )
    if by == "header" and _TOKEN.fullmatch(name):
        return Sticky(by="header", name=name.lower())
    if by == "cookie" and _TOKEN.fullmatch(name):
        return Sticky(by="cookie", name=name)
    raise ValueError(f"'{text}' must be header:NAME or cookie:NAME, such as header:x-session-id")


def _origins(text: str) -> tuple[str, ...]:
    origins = _listed(text)
    for origin in origins:
        if origin == "*":
            continue
        parts = urlsplit(origin)
        if parts.scheme not in ("http", "https") or not parts.netloc or f"{parts.scheme}://{parts.netloc}" != origin:
            raise ValueError(f"'{origin}' is no origin: write it as browsers do (https://shop.example), or * for all")
    return tuple(origin.lower() for origin in origins)


def _networks(text: str) -> tuple[IPv4Network | IPv6Network, ...]:
    networks = []
    for network in _listed(text):
        try:
            networks.append(ip_network(network))
        except ValueError as error:
            raise ValueError(f"{error}: write 10.1.0.0/16, or one address") from None
    return tuple(networks)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= _MOST:
        raise ValueError(f"'{text}' must be a number from 1 to {_MOST}")
    return int(text)


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise ValueError("has an empty part: write the values with commas between them")
    return parts


_READERS: Mapping[str, Callable[[str], Any]] = {
    STICKY: _sticky,
    CORS_ORIGINS: _origins,
    ALLOWED_NETWORKS: _networks,
    REQUESTS_PER_SECOND: _count,
    CONNECTIONS: _count,
}
