"""Where bytes are cut on their way changes nothing: neither what a client is told nor what a model gets."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.admission import Limits

from .test_router_framing import FLOODS, HEAD, MALFORMED, TOO_MUCH
from .wire import Outcome, Wire, connect, cut

LIMITS = Limits(body_bytes=100_000, head_bytes=4096, headers=40)
SCORE = HEAD + b"Content-Length: 2\r\n\r\n{}"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"
GOOD = [
    (SCORE, [200]),
    (SCORE * 3, [200] * 3),
    (SCORE * 40, [200] * 40),
    (SCORE.replace(b"primary", b"wrong") * 3 + SCORE, [401, 401, 401, 200]),
    (CHUNKED + b'3;ext="a;b"\r\nabc\r\n2\r\nde\r\n0;last\r\nX-Trailer: 1\r\n\r\n' + SCORE, [200, 200]),
    (HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc" + SCORE, [100, 200, 200]),
    (GET + b"\r\n" + SCORE, [200, 200]),
    (GET.replace(b"/diabetes", b"http://h/diabetes") + b"\r\n" + SCORE, [200, 200]),
    (GET.replace(b"1.1", b"1.0") + b"\r\n" + SCORE, [200]),
    (HEAD + b"Connection: close\r\nContent-Length: 0\r\n\r\n" + SCORE, [200]),
    (b"\r\n\r\n" + SCORE, [200]),  # empty lines before a request are skipped (RFC 9112, 2.2)
    (HEAD + b"X: " + b"x" * 3800 + b"\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\nabc\r\n0\r\nT: 1\r\n\r\n", [200]),
    (SCORE * 2 + b"garbage\r\n\r\n" + SCORE, [200, 200, 400]),
    (SCORE + CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n" + SCORE, [200, 400]),
    (SCORE + GET + b"X: " + b"x" * 5000 + b"\r\n\r\n" + SCORE, [200, 431]),
]
CASES = [
    *((SCORE + data, [200, 400]) for data in MALFORMED),
    *((data, [400]) for data in FLOODS),
    *((data + (b"0\r\n\r\n" if status is None else b""), [status or 200]) for data, status in TOO_MUCH),
    *GOOD,
]
quick = settings(derandomize=True, database=None, deadline=None, max_examples=12)
places = st.lists(st.integers(0, 1 << 20), max_size=8)
breaths = st.lists(st.sampled_from([None, 0, 1, 2]), min_size=1, max_size=8)


@pytest.fixture(autouse=True)
def _without_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.delivery.connect", connect)


def settled(wire: Wire) -> None:
    """Nothing is left of any request."""
    assert (wire.blue.in_flight, [instance.outstanding for instance in wire.blue.instances]) == (0, [0])
    assert not any(len(queue) for queue in wire.gateway.request_deadlines.values())


@pytest.mark.parametrize(("data", "expected"), CASES)
def test_requests_in_pieces(data: bytes, expected: list[int]) -> None:
    whole = Wire(LIMITS).run([data])
    assert (whole.statuses, whole.rest, whole.aborted) == (expected, b"", False)
    assert len(whole.requests) == expected.count(200)  # a model sees nothing of what is refused

    @quick
    @given(places, breaths)
    def in_pieces(at: list[int], breath: list[int | None]) -> None:
        wire = Wire(LIMITS)
        assert wire.run(cut(data, at), breath=iter(breath)) == whole
        settled(wire)

    in_pieces()


@pytest.mark.parametrize(("data", "expected"), [case for case in CASES if len(case[0]) < 500])
def test_requests_cut_at_every_byte_and_in_single_bytes(data: bytes, expected: list[int]) -> None:
    whole = Wire(LIMITS).run([data])
    for at in ([at] for at in range(1, len(data))):
        assert Wire(LIMITS).run(cut(data, at)) == whole
    assert Wire(LIMITS).run(cut(data, range(len(data)))).statuses == expected


def test_a_head_that_is_nearly_too_large_and_a_body_in_single_bytes() -> None:
    """What bounds chunk extensions and trailers does not count the head in."""
    end = b"\r\nTransfer-Encoding: chunked\r\n\r\n"
    head = HEAD + b"X: " + b"x" * (LIMITS.head_bytes - len(HEAD) - 3 - len(end)) + end
    body = b"3;a\r\nabc\r\n0;b\r\nT: 1\r\n\r\n"
    outcome = Wire(LIMITS).run([head, *(bytes((byte,)) for byte in body), SCORE])
    assert (outcome.statuses, [body for _, _, body in outcome.requests]) == ([200, 200], [b"abc", b"{}"])
    assert Wire(LIMITS).run([head.replace(b"X: ", b"X: y") + body + SCORE]).statuses == [431]


OK = b"HTTP/1.1 200 OK\r\n"
REPLIES = [
    (OK + b"content-length: 4\r\n\r\nbody", False, b"body"),
    (OK + b"content-length: 0\r\n\r\n", False, b""),
    (OK + b"A: b\r\ntransfer-encoding: chunked\r\n\r\n3;x\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\n", False, b"abcd"),
    (OK + b"Connection: close\r\n\r\nuntil the end", True, b"until the end"),
    (OK + b"Connection: close\r\ncontent-length: 4\r\n\r\nbody", True, b"body"),
    (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK + b"content-length: 1\r\n\r\na",
        False,
        b"a",
    ),
    (b"HTTP/1.1 204 No Content\r\n\r\n", False, b""),
    (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 7\r\n\r\n", False, b""),
    (b"HTTP/1.1 500 Oh No\r\ncontent-length: 2\r\n\r\nno", False, b"no"),
    (OK + b"content-length: 1\r\n\r\na" + OK + b"content-length: 8\r\n\r\nsmuggled", False, b"a"),
]


@pytest.mark.parametrize(("reply", "dies", "body"), REPLIES)
@pytest.mark.parametrize("breathes", [False, True])
def test_answers_in_pieces(reply: bytes, dies: bool, body: bytes, breathes: bool) -> None:
    def run(pieces: list[bytes]) -> tuple[Outcome]:
        wire = Wire(LIMITS)
        wire.reply, wire.dies, wire.breathes = pieces, dies, breathes
        outcome = wire.run([SCORE])
        settled(wire)
        return outcome, wire

    whole, _ = run([reply])
    ((_, _, answered),) = whole.answers
    assert (answered, whole.rest, whole.aborted) == (body, b"", False)
    for at in range(1, len(reply)):
        assert run(cut(reply, [at]))[0] == whole
    assert run(cut(reply, range(len(reply))))[0] == whole

    @quick
    @given(places)
    def in_pieces(at: list[int]) -> None:
        assert run(cut(reply, at))[0] == whole

    in_pieces()


BAD_REPLIES = [
    b"nonsense\r\n\r\n",
    b"HTTP/1.1 200 OK\nA: b\n\n",
    b"HTTP/1.1 099 Odd\r\n\r\n",
    OK + b"content-length: 1\r\ncontent-length: 2\r\n\r\nab",
    OK + b"content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
    OK + b"transfer-encoding: gzip\r\n\r\nabc",
    OK + b"A: b\r\n folded\r\ncontent-length: 1\r\n\r\na",
    OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    OK + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
]


@pytest.mark.parametrize("reply", BAD_REPLIES)
def test_bad_answers_in_pieces_are_502_or_cut_off(reply: bytes) -> None:
    """Cut off where a good part had been passed on by then."""

    def run(pieces: list[bytes]) -> Any:
        wire = Wire(LIMITS, idempotent=True)
        wire.reply, wire.breathes = pieces, True
        outcome = wire.run([SCORE])
        settled(wire)
        assert len(outcome.requests) == 1
        assert wire.blue.tally.statuses == {502: 1}
        return outcome.statuses, outcome.aborted

    assert run([reply]) == ([502], False)

    @quick
    @given(places)
    def in_pieces(at: list[int]) -> None:
        assert run(cut(reply, at)) in (([502], False), ([], True))

    in_pieces()
    for at in range(1, len(reply)):
        assert run(cut(reply, [at])) in (([502], False), ([], True))
