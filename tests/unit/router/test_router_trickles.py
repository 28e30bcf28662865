"""Clients that send a little now and then: each has an end, however it spreads its bytes. The time is simulated."""

import pytest

from router.admission import Limits
from router.upload import STEP_BYTES, WHOLE_BYTES

from .wire import Transport, Wire, connect

HEAD = b"POST /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"
WRONG = HEAD.replace(b"primary", b"wrong")
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
PAUSE = 29.0
"""Just less than a client may be silent."""


@pytest.fixture(autouse=True)
def _without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.delivery.connect", connect)


def trickle(wire: Wire, client: Transport, piece: bytes, pause: float = PAUSE, most: int = 1000) -> float:
    """Send `piece` every `pause` seconds until the router closes the connection; returns how long that was."""
    began = wire.loop.time()
    for _ in range(most):
        client.deliver(piece)
        wire.advance(pause)
        if client.closed:
            break
    return wire.loop.time() - began


@pytest.mark.parametrize(
    ("beginning", "piece", "status"),
    [
        (b"", b"P", 400),  # no method
        (b"POST /", b"x", 408),
        (HEAD + b"X: ", b"x", 408),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x", 408),
        (HEAD + b"Content-Length: 100000\r\n\r\n", b"x" * 100, 408),
        (HEAD + b"Content-Length: 100000\r\n\r\n" + b"x" * 50_000, b"x", 408),
        (CHUNKED, b"1\r\nx\r\n", 408),
        (CHUNKED + b"3;", b"x", 408),
        (CHUNKED + b"3\r\nabc\r\n0\r\n", b"A: b\r\n", 408),
        (HEAD + b"Expect: 100-continue\r\nContent-Length: 100000\r\n\r\n", b"x", 408),
        # What is only read to be dropped must come at once, and is told what it would have been told then.
        (WRONG + b"Content-Length: 60000\r\n\r\n", b"x", 401),
        (WRONG + b"Content-Length: 60000\r\n\r\n", b"x" * 1000, 401),
        (WRONG + b"Content-Length: 65536\r\n\r\n", b"x" * STEP_BYTES, 401),
    ],
)
def test_a_trickle_is_ended(beginning: bytes, piece: bytes, status: int) -> None:
    wire = Wire(Limits())
    client = wire.client()
    client.deliver(beginning)
    assert trickle(wire, client, piece) <= 4 * PAUSE
    outcome = wire.outcome(client)
    assert [status_ for status_ in outcome.statuses if status_ != 100] == [status]
    assert b"connection: close\r\n" in client.sent
    assert (outcome.requests, wire.blue.tally.turns, wire.gateway.clients) == ([], 0, set())


def test_a_trickle_behind_good_requests_takes_nothing_from_them() -> None:
    wire = Wire(Limits())
    client = wire.client()
    client.deliver((HEAD + b"Content-Length: 2\r\n\r\n{}") * 3 + HEAD + b"Content-Length: 1000\r\n\r\n")
    assert trickle(wire, client, b"x") <= 4 * PAUSE
    outcome = wire.outcome(client)
    assert (outcome.statuses, len(outcome.requests)) == ([200, 200, 200, 408], 3)


def test_a_slow_client_that_sends_enough_is_waited_for() -> None:
    wire = Wire(Limits())
    client = wire.client()
    client.deliver(HEAD + b"Content-Length: %d\r\n\r\n" % WHOLE_BYTES)
    steps = WHOLE_BYTES // STEP_BYTES
    for _ in range(steps):
        wire.advance(PAUSE - 2)  # a sweep is late by its own period at most
        assert client.deliver(bytes(STEP_BYTES))
    wire.loop.run()
    outcome = wire.outcome(client)
    assert (outcome.statuses, [len(body) for _, _, body in outcome.requests]) == ([200], [WHOLE_BYTES])


@pytest.mark.parametrize("beginning", [b"", HEAD, HEAD + b"Content-Length: 0\r\n\r\n"])
def test_silence_ends_too(beginning: bytes) -> None:
    wire = Wire(Limits())
    client = wire.client()
    client.deliver(beginning)
    wire.advance(100.0)
    assert (client.closed, wire.gateway.clients) == (True, set())


def test_a_sweep_spares_a_client_whose_answer_is_being_made() -> None:
    wire = Wire(Limits())
    wire.reply = []  # the model never answers
    client = wire.client()
    client.deliver(HEAD + b"Content-Length: 2\r\n\r\n{}" + HEAD + b"Content-Length: 1000\r\n\r\nx")
    (connection,) = wire.gateway.clients
    connection.sweep(wire.loop.time() + 1000)
    assert (client.closed, bytes(client.sent)) == (False, b"")
    wire.advance(6.0)  # request_timeout_ms
    assert wire.outcome(client).statuses == [408]
    assert (wire.blue.in_flight, client.closed) == (0, False)
