"""An instance that answers nothing any more gets no more requests, and a slow model keeps its instances. The time is
simulated; request_timeout_ms is 5000."""

import pytest

from router.admission import Limits

from .wire import Transport, Wire, connect

SCORE = (
    b"POST /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\nContent-Length: 2\r\n\r\n{}"
)


@pytest.fixture(autouse=True)
def _without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.delivery.connect", connect)


def ask(wire: Wire, client: Transport, times: int = 1) -> list[int]:
    """Send requests, each when the one before it is answered; returns the statuses."""
    before = len(wire.outcome(client).statuses)
    for _ in range(times):
        client.deliver(SCORE)
        wire.advance(6.0)
    return wire.outcome(client).statuses[before:]


def test_an_instance_that_answers_nothing_any_more_is_left() -> None:
    wire = Wire(Limits(), instances=2)
    client = wire.client()
    wire.silent = {"i1"}
    assert ask(wire, client, 5) == [408, 200, 408, 200, 408]
    assert (wire.asked, wire.blue.tally.ejections) == (["i1", "i2", "i1", "i2", "i1"], 1)
    wire.advance(1.0)  # its back-off has passed: one request finds out, and the others go elsewhere meanwhile
    others = [wire.client() for _ in range(9)]
    for each in others:
        each.deliver(SCORE)
    wire.loop.run()
    assert sorted(wire.asked[5:]) == ["i1"] + ["i2"] * 8
    wire.advance(6.0)
    assert sorted(status for each in others for status in wire.outcome(each).statuses) == [200] * 8 + [408]
    assert wire.blue.tally.ejections == 2
    wire.silent = set()
    wire.advance(1.0)
    assert set(ask(wire, client, 10)) == {200}
    assert {*wire.asked[-10:]} == {"i1", "i2"}
    assert [(each.outstanding, each.failures, each.timeouts) for each in wire.blue.instances] == [(0, 0, 0)] * 2
    assert wire.blue.in_flight == 0


def test_while_it_is_out_the_others_get_everything() -> None:
    wire = Wire(Limits(), instances=2)
    wire.silent = {"i1"}
    client, other = wire.client(), wire.client()
    assert ask(wire, client, 4) == [408, 200, 408, 200]
    client.deliver(SCORE)
    wire.loop.advance(5.0)  # to its deadline, and not a moment further
    other.deliver(SCORE * 20)
    wire.loop.run()
    assert wire.asked == ["i1", "i2", "i1", "i2", "i1"] + ["i2"] * 20
    assert wire.outcome(other).statuses == [200] * 20


def test_requests_that_time_out_together_are_one_slow_moment() -> None:
    wire = Wire(Limits(), instances=2)
    clients = [wire.client() for _ in range(20)]
    for _ in range(4):
        wire.silent = {"i1"}
        for client in clients:
            client.deliver(SCORE)
        wire.advance(6.0)
        wire.silent = set()
        assert {*ask(wire, clients[0], 2)} == {200}  # it answers in between
    assert wire.blue.tally.statuses == {408: 40, 200: 48}
    assert wire.blue.tally.ejections == 0


def test_a_model_that_is_too_slow_on_all_its_instances_says_so_every_time() -> None:
    """Their clients see 408 as ever, and none is held for an instance that is out: one always stays."""
    wire = Wire(Limits(), instances=2)
    wire.silent = {"i1", "i2"}
    client = wire.client()
    assert ask(wire, client, 12) == [408] * 12
    assert {*wire.asked} == {"i1", "i2"}
    assert not wire.blue.recovering(wire.loop.time())
    assert wire.blue.in_flight == 0


def test_the_only_instance_is_asked_again_whatever_it_does() -> None:
    wire = Wire(Limits())
    wire.silent = {"i1"}
    client = wire.client()
    assert ask(wire, client, 8) == [408] * 8
    wire.silent, wire.reply = set(), [b"nonsense\r\n\r\n"]
    assert ask(wire, client, 3) == [502] * 3
    assert (len(wire.asked), wire.blue.tally.ejections) == (11, 0)


def test_a_client_that_left_does_not_hide_that_an_instance_answers() -> None:
    wire = Wire(Limits(), instances=2)
    wire.silent = {"i1"}
    client = wire.client()
    assert ask(wire, client, 4) == [408, 200, 408, 200]
    (silent,) = (each for each in wire.blue.instances if each.timeouts)
    wire.silent = set()
    leaving = wire.client()
    leaving.deliver(SCORE)
    leaving.close()
    wire.loop.run()
    assert (wire.asked[-1], silent.timeouts) == ("i1", 0)
    assert wire.blue.tally.statuses == {408: 2, 200: 2, 499: 1}
