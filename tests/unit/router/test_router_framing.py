"""Bytes on a raw socket: what is one request, what is two, and what is none."""

import asyncio
from typing import Any

import pytest

from router.admission import Limits

BOTH = pytest.mark.parametrize("secured", [False, True], ids=["plain", "tls"])

Bench = Any
HEAD = b"POST /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n"


@pytest.fixture
def limits() -> Limits:
    return Limits(body_bytes=100_000, head_bytes=4096, headers=40, receive_seconds=0.5, keep_alive_seconds=1.0)


MALFORMED = [
    # two lengths
    HEAD + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    HEAD + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
    HEAD + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    HEAD + b"Content-Length: 3, 3\r\n\r\nabc",
    # lengths that are none
    HEAD + b"Content-Length: +3\r\n\r\nabc",
    HEAD + b"Content-Length: 0x3\r\n\r\nabc",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 3 3\r\n\r\nabc",
    HEAD + b"Content-Length: 99999999999999999999999999\r\n\r\n",
    HEAD + b"Content-Length:\r\n\r\n",
    # codings
    HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    HEAD.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    # chunks
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;a\nb\r\nabc\r\n0\r\n\r\n",
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;a\rb\r\nabc\r\n0\r\n\r\n",
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n3;a="\r\nabc\r\n0\r\n\r\n',
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n3;a="x\r\n"\r\nabc\r\n0\r\n\r\n',
    HEAD + b'Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0;a="\r\n\r\n"\r\n\r\n',
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\rabc\r0\r\r",
    # lines
    HEAD.replace(b"\r\n", b"\n") + b"\n",
    HEAD + b"\n",
    HEAD + b"A: b\r\n folded\r\n\r\n",
    HEAD + b"A : b\r\n\r\n",
    HEAD + b": b\r\n\r\n",
    HEAD + b"A: b\x00c\r\n\r\n",
    HEAD + b"A: b\rc\r\n\r\n",
    HEAD + b"A: b\r\r\n\r\n",
    HEAD.replace(b"\r\n", b"\r") + b"\r",
    HEAD + b"A\r\n\r\n",
    HEAD + b"Host: other\r\n\r\n",
    b"POST /diabetes/score HTTP/1.1\r\nAuthorization: Bearer the-primary-key\r\n\r\n",  # no Host
    # first lines
    b"GET /diabetes/score HTTP/0.9\r\n\r\n",
    b"GET /diabetes/score HTTP/2.0\r\nHost: h\r\n\r\n",
    b"GET /diabetes/score HTTP/1.2\r\nHost: h\r\n\r\n",
    b"GET /diabetes/score\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"get /diabetes/score HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http:///diabetes/score HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://:80/diabetes/score HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://me@h/diabetes/score HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://h/diabetes/score HTTP/1.1\r\n\r\n",  # an authority is no Host
    b"GET /a\tb HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /a\x80b HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS hello where none is expected
    b"\x00" * 100,
]


FLOODS = [
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;" + b"x" * 10_000,
    HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 2000,
]


@pytest.mark.parametrize("request_bytes", MALFORMED + FLOODS)
async def test_malformed_requests_get_400_and_the_connection_is_closed(bench: Bench, request_bytes: bytes) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    client.send(request_bytes)
    answer = await client.answer()
    assert (answer.status, answer.code, answer.headers["connection"]) == (400, "BadRequest", "close")
    assert await client.closed() == b""
    assert model.requests == []
    assert bench.gateway.table.deployments["diabetes", "blue"].tally.turns == 0
    assert (await (await bench.client()).score()).status == 200


TOO_MUCH = [
    (HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    (HEAD + b"Transfer-Encoding: identity\r\n\r\n", 501),
    (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
    (HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc", 501),
    (HEAD + b"Expect: the-unexpected\r\nContent-Length: 3\r\n\r\n", 417),
    (b"CONNECT localhost:443 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    (b"TRACE /diabetes/score HTTP/1.1\r\nHost: h\r\n\r\n", 405),
    (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
    (HEAD + b"Content-Length: 999999999999999\r\n\r\n", 413),
    (HEAD + b"Expect: 100-continue\r\nContent-Length: 100001\r\n\r\n", 413),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"2710\r\n" + b"x" * 10000 + b"\r\n", None),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + (b"2710\r\n" + b"x" * 10000 + b"\r\n") * 11, 413),
    (HEAD + b"X: " + b"x" * 5000, 431),
    (HEAD + b"X: " + b"x" * 5000 + b"\r\n\r\n", 431),
    (HEAD + b"X: y\r\n" * 38 + b"\r\n", 200),
    (HEAD + b"X: y\r\n" * 39 + b"\r\n", 431),
    (b"GET /" + b"x" * 5000, 431),
]


@pytest.mark.parametrize(("request_bytes", "status"), TOO_MUCH)
async def test_requests_that_are_too_much(bench: Bench, request_bytes: bytes, status: int | None) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    client.send(request_bytes)
    if status is None:  # not yet: the body may still end within the limit
        client.send(b"0\r\n\r\n")
        status = 200
    answer = await client.answer()
    assert answer.status == status
    if status != 200:
        assert answer.headers["connection"] == "close"
        assert await client.closed() == b""
        assert model.requests == []


@BOTH
async def test_a_request_in_single_bytes(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    for byte in bench.score(b'{"data": 1}', "X-A: b", path="/diabetes/score?q=1"):
        client.send(bytes((byte,)))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200
    received = model.requests[0]
    assert received.head.startswith(b"POST /score?q=1 HTTP/1.1\r\n")
    assert (received.body, received.header("x-a")) == (b'{"data": 1}', "b")


async def test_a_chunked_request_reaches_the_model_with_its_length(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    client.send(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: 1\r\n\r\n")
    assert (await client.answer()).status == 200
    received = model.requests[0]
    assert (received.body, received.header("content-length")) == (b"abcde", "5")
    assert received.header("transfer-encoding") is None
    assert received.header("x-trailer") is None
    assert (await client.score()).status == 200


@BOTH
async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    async def echo(model: Any) -> Any:
        body = model.requests[-1].body
        yield b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)

    bench.serve(await bench.model(echo))
    client = await bench.client()
    client.send(
        b"".join(bench.score(b"%d" % at, key="wrong" if at % 3 == 0 else "the-primary-key") for at in range(60))
    )
    for at in range(60):
        answer = await client.answer()
        assert answer.status == (401 if at % 3 == 0 else 200)
        assert at % 3 == 0 or answer.body == b"%d" % at


@BOTH
async def test_thousands_of_pipelined_refusals(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    client.send(bench.score(key="wrong") * 3000 + bench.score())
    for _ in range(3000):
        assert (await client.answer()).status == 401
    assert (await client.answer()).status == 200


@BOTH
async def test_garbage_behind_good_requests_is_refused_after_their_answers(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    client.send(bench.score() * 2 + b"garbage\r\n\r\n" + bench.score())
    assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
    assert await client.closed() == b""


@BOTH
async def test_100_continue(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    client.send(HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.answer()).status == 100
    client.send(b"abc")
    assert (await client.answer()).status == 200
    assert model.requests[0].body == b"abc"
    assert model.requests[0].header("expect") is None


@BOTH
async def test_100_continue_does_not_overtake_the_answer_before_it(bench: Bench) -> None:
    go = asyncio.Event()

    async def held(_: Any) -> Any:
        await go.wait()
        yield b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"

    model = await bench.model(held)
    bench.serve(model)
    client = await bench.client()
    client.send(bench.score() + HEAD + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    await model.requests_seen(1)
    go.set()
    assert [(await client.answer()).status for _ in range(2)] == [200, 100]
    client.send(b"abc")
    assert (await client.answer()).status == 200


async def test_no_100_continue_for_a_request_that_is_refused(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    client.send(HEAD.replace(b"primary", b"wrong") + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert (await client.answer()).status == 401
    assert await client.closed() == b""


async def test_a_wrong_key_with_a_small_body_keeps_the_connection_with_a_large_one_closes_it(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    assert (await client.score(b"x" * 1000, key="wrong")).status == 401
    assert (await client.score()).status == 200
    client.send(HEAD.replace(b"primary", b"wrong") + b"Content-Length: 90000\r\n\r\n")
    answer = await client.answer()  # before the body has come
    assert (answer.status, answer.headers["connection"]) == (401, "close")


async def test_http_1_0(bench: Bench) -> None:
    chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    model = await bench.model(chunked)
    bench.serve(model)
    client = await bench.client()
    client.send(b"GET /diabetes/score HTTP/1.0\r\nAuthorization: Bearer the-primary-key\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.body, answer.headers["connection"]) == (200, b"abc", "close")
    assert "transfer-encoding" not in answer.headers
    assert model.requests[0].header("host") == "localhost"


@BOTH
async def test_connection_close(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    client.send(bench.score(b"{}", "Connection: close") + bench.score())
    assert (await client.answer()).headers["connection"] == "close"
    assert await client.closed() == b""


async def test_absolute_form_and_host_form(bench: Bench) -> None:
    model = await bench.model()
    bench.serve(model)
    client = await bench.client()
    key = b"Authorization: Bearer the-primary-key\r\n\r\n"
    client.send(b"GET http://localhost/diabetes/swagger.json?version=3 HTTP/1.1\r\nHost: x\r\n" + key)
    client.send(b"GET /swagger.json HTTP/1.1\r\nHost: Diabetes.local.inference.localhost:8443\r\n" + key)
    assert [(await client.answer()).status for _ in range(2)] == [200, 200]
    lines = [received.head.split(b"\r\n")[0] for received in model.requests]
    assert lines == [b"GET /swagger.json?version=3 HTTP/1.1", b"GET /swagger.json HTTP/1.1"]
    hosts = [received.header("host") for received in model.requests]
    assert hosts == ["localhost", "Diabetes.local.inference.localhost:8443"]  # what it was routed by, not "x"


async def test_garbage_is_no_models_request(bench: Bench) -> None:
    """What llhttp takes for a request's end and another's beginning is what the model gets, and the rest is refused."""
    model = await bench.model()
    blue = bench.serve(model)
    for count, garbage in enumerate((b"garbage\r\n\r\n", b"\x00\xff", b"{}", b"0\r\n\r\n", HEAD + b"A\r\n\r\n"), 1):
        client = await bench.client()
        client.send(bench.score(b"1") + bench.score(b"2") + garbage + bench.score(b"3"))
        assert [(await client.answer()).status for _ in range(3)] == [200, 200, 400]
        assert await client.closed() == b""
        assert len(model.requests) == blue.tally.handed == 2 * count
    assert {request.body for request in model.requests} == {b"1", b"2"}
    assert bench.quiet


@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, {"transfer-encoding": "chunked"}),
        (b"HTTP/1.1 200 OK\r\n\r\n", 200, {}),
        (b"HTTP/1.1 404 What\r\ncontent-length: 7\r\n\r\n", 424, {"content-length": "7"}),
        (
            b"HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n",
            424,
            {"transfer-encoding": "chunked", "ms-azureml-model-error-statuscode": "500"},
        ),
        (b"HTTP/1.1 204 None\r\n\r\n", 204, {}),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 200, {}),  # a body all the same
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", 200, {"content-length": "3"}),
    ],
)
async def test_head_whatever_the_model_says(bench: Bench, reply: bytes, status: int, told: dict[str, str]) -> None:
    model = await bench.model(reply)
    blue = bench.serve(model)
    client = await bench.client()
    for _ in range(3):
        client.send(b"HEAD" + HEAD[4:] + b"\r\n")
        answer = await client.answer(to_head=True)
        assert answer.status == status
        assert told.items() <= answer.headers.items()
    model.reply = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n[1]"
    assert (await client.score()).body == b"[1]"  # and nothing of a body came in between
    assert (bench.quiet, blue.tally.statuses.total()) == (True, 4)


async def test_head_that_is_refused(bench: Bench) -> None:
    bench.serve()
    client = await bench.client()
    for head, status in ((HEAD.replace(b"primary", b"wrong"), 401), (HEAD, 503), (HEAD.replace(b"/diab", b"/x"), 404)):
        client.send(b"HEAD" + head[4:] + b"\r\n")
        answer = await client.answer(to_head=True)
        assert (answer.status, answer.body) == (status, b"")
        assert int(answer.headers["content-length"]) > 0


async def test_head_has_no_body_and_the_connection_goes_on(bench: Bench) -> None:
    reply = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    bench.serve(await bench.model(reply))
    client = await bench.client()
    for _ in range(2):
        client.send(b"HEAD /diabetes/score HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer the-primary-key\r\n\r\n")
        answer = await client.answer(to_head=True)
        assert (answer.status, answer.headers["content-length"]) == (200, "1000")


@pytest.mark.parametrize("part", [b"POST /diab", HEAD, HEAD + b"Content-Length: 5\r\n\r\nab"])
async def test_a_request_that_never_ends_gets_408(bench: Bench, part: bytes) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    client.send(part)
    answer = await client.answer()
    assert (answer.status, answer.code) == (408, "RequestNotReceived")
    assert await client.closed() == b""


async def test_an_idle_connection_is_closed(bench: Bench) -> None:
    bench.serve(await bench.model())
    client = await bench.client()
    assert (await client.score()).status == 200
    assert await client.closed() == b""
