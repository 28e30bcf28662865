"""Who may ask an endpoint, from where, and how often: its rules, apart from keys and tokens.

PURE: addresses, names and `now` in, a refusal or None out. No clock and no I/O may enter this module.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

from router.outcomes import (
    FOREIGN_NETWORK,
    NOT_PUBLIC,
    TOO_MANY_CONNECTIONS,
    TOO_MANY_PER_SECOND,
    Refusal,
)

Network = IPv4Network | IPv6Network


@dataclass(slots=True, eq=False)
class Peer:
    """Where a connection comes from: its IP address, and whether it came to the private listener. `guards` are those
    that count it."""

    address: str = ""
    private: bool = False
    guards: list["Guard"] = field(default_factory=list)

    def left(self) -> None:
        """The connection has ended."""
        for guard in self.guards:
            guard.leave(self)


class Guard:
    """The limits of one endpoint in one router process. `private`: it answers on the private listener alone."""

    __slots__ = ("_due", "_peers", "networks", "private", "rate", "room")

    def __init__(self, *, private: bool, networks: tuple[Network, ...], rate: int | None, room: int | None):
        self.private, self.networks, self.rate, self.room = private, networks, rate, room
        self._due = 0.0  # when the requests that were taken would be done at exactly that rate
        self._peers: set[Peer] = set()

    @property
    def rules(self) -> tuple[object, ...]:
        """What it was made from: with the same rules its counts go on."""
        return (self.private, self.networks, self.rate, self.room)

    def place(self, endpoint: str, peer: Peer) -> Refusal | None:
        """Whether requests may come from there."""
        if self.private and not peer.private:
            return NOT_PUBLIC.about(endpoint=endpoint)
        if self.networks and not _within(peer.address, self.networks):
            return FOREIGN_NETWORK.about(endpoint=endpoint, address=peer.address or "unknown")
        return None

    def take(self, endpoint: str, peer: Peer, now: float) -> Refusal | None:
        """Count a request that has the right credential, and its connection."""
        if self.room is not None and peer not in self._peers:
            if len(self._peers) >= self.room:
                return TOO_MANY_CONNECTIONS.about(endpoint=endpoint, limit=self.room)
            self._peers.add(peer)
            peer.guards.append(self)
        if self.rate is not None:
            # A bucket of one second's requests, told by the time at which it is full again (GCRA).
            due = max(self._due, now)
            if due - now > 1 - 1 / self.rate:
                return TOO_MANY_PER_SECOND.about(endpoint=endpoint, limit=self.rate)
            self._due = due + 1 / self.rate
        return None

    def leave(self, peer: Peer) -> None:
        """A connection has ended."""
        self._peers.discard(peer)


def _within(address: str, networks: tuple[Network, ...]) -> bool:
    try:
        ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None  # an IPv4 client of a socket for both
    return any((mapped or ip) in network for network in networks)
