"""Which Authorization headers open an endpoint."""

from hashlib import sha256

import pytest

from router.auth import authorized

PRIMARY, SECONDARY = b"primary-key", b"secondary-key"
DIGESTS = (sha256(PRIMARY).digest(), sha256(SECONDARY).digest())


@pytest.mark.parametrize(
    ("header", "allowed"),
    [
        (b"Bearer primary-key", True),
        (b"Bearer secondary-key", True),
        (b"bearer primary-key", True),
        (b"BEARER   primary-key ", True),
        (None, False),
        (b"", False),
        (b"Bearer", False),
        (b"Bearer ", False),
        (b"primary-key", False),
        (b"Basic primary-key", False),
        (b"Bearer Primary-key", False),
        (b"Bearer primary-key x", False),
        (b"Bearer " + DIGESTS[0].hex().encode(), False),
        (b"Bearer \xff\x00", False),
    ],
)
def test_either_key_and_nothing_else(header: bytes | None, allowed: bool) -> None:
    assert authorized(header, DIGESTS) is allowed


def test_an_endpoint_without_keys_is_closed() -> None:
    assert not authorized(b"Bearer primary-key", ())
