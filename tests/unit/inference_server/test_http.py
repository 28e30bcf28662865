"""The parser as tables: what is a request, what is refused and why, whatever the sizes of the reads."""

import pytest

from inference_server.http import MAX_HEAD_BYTES, Continue, ProtocolError, Request, RequestParser

HOST = b"Host: h\r\n"


def events(*reads: bytes, max_body: int = 1000) -> list[Request | Continue]:
    parser = RequestParser(max_body)
    found: list[Request | Continue] = []
    for read in reads:
        parser.feed(read)
        while (event := parser.next_event()) is not None:
            found.append(event)
    return found


def request(*reads: bytes) -> Request:
    (found,) = events(*reads)
    assert isinstance(found, Request)
    return found


def test_a_request_with_a_body() -> None:
    found = request(b"POST /score?a=1 HTTP/1.1\r\nHOST: h\r\nX-A:  v 1\t\r\nContent-Length: 3\r\n\r\nabc")
    assert (found.method, found.target, found.body) == ("POST", "/score?a=1", b"abc")
    assert found.headers == {"host": "h", "x-a": "v 1", "content-length": "3"}
    assert not found.close
    assert not found.http_1_0


def test_repeated_headers_are_joined() -> None:
    assert request(b"GET / HTTP/1.1\r\n" + HOST + b"A: 1\r\na: 2\r\n\r\n").headers["a"] == "1,2"


@pytest.mark.parametrize(
    ("target", "seen"),
    [
        (b"/score", "/score"),
        (b"http://host:80/score?x=1", "/score?x=1"),
        (b"HTTPS://host", "/"),
        (b"http://host?x", "/?x"),
        (b"*", "*"),
        (b"/a%20b\xe9", "/a%20b\xe9"),
    ],
)
def test_targets(target: bytes, seen: str) -> None:
    assert request(b"GET " + target + b" HTTP/1.1\r\n" + HOST + b"\r\n").target == seen


@pytest.mark.parametrize(
    ("version", "connection", "close"),
    [
        (b"1.1", b"", False),
        (b"1.1", b"Connection: keep-alive\r\n", False),
        (b"1.1", b"Connection: x, Close\r\n", True),
        (b"1.1", b"Connection: closed\r\n", False),
        (b"1.0", b"", True),
        (b"1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_who_keeps_the_connection(version: bytes, connection: bytes, close: bool) -> None:
    found = request(b"GET / HTTP/" + version + b"\r\n" + HOST + connection + b"\r\n")
    assert (found.close, found.http_1_0) == (close, version == b"1.0")


CHUNKED = b"POST /s HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: Chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"0\r\n\r\n", b""),
        (b"3\r\nabc\r\n0\r\n\r\n", b"abc"),
        (b"3;name=value\r\nabc\r\n00a ; x\r\n0123456789\r\n0\r\n\r\n", b"abc0123456789"),
        (b"1\r\n\r\r\n1\r\n\n\r\n0\r\n\r\n", b"\r\n"),
        (b"1\r\na\r\n0\r\nX-Trailer: 1\r\nContent-Length: 5\r\n\r\n", b"a"),
    ],
)
def test_chunks(body: bytes, read: bytes) -> None:
    found = request(CHUNKED + body)
    assert found.body == read
    assert "x-trailer" not in found.headers
    assert "content-length" not in found.headers


STREAM = (
    b"\r\nGET / HTTP/1.1\r\n" + HOST + b"\r\n"
    b"POST /a HTTP/1.1\r\n" + HOST + b"Content-Length: 4\r\n\r\n\r\n\r\n"
    b"POST /b HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nT: 1\r\n\r\n"
    b"GET /c HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
)


def test_pipelined_requests_read_the_same_however_they_are_cut() -> None:
    whole = events(STREAM)
    assert [(event.target, event.body) for event in whole if isinstance(event, Request)] == [
        ("/", b""),
        ("/a", b"\r\n\r\n"),
        ("/b", b"hi"),
        ("/c", b""),
    ]
    assert events(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == whole
    for cut in range(len(STREAM)):
        assert events(STREAM[:cut], STREAM[cut:]) == whole


def test_what_is_left_is_kept_until_it_is_asked_for() -> None:
    parser = RequestParser(10)
    parser.feed(b"GET / HTTP/1.1\r\n" + HOST + b"\r\nGET /b")
    assert parser.next_event() is not None
    assert parser.buffered == len(b"GET /b")
    assert parser.mid_request
    assert parser.next_event() is None


def test_nothing_is_under_way_after_a_whole_request() -> None:
    parser = RequestParser(10)
    parser.feed(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\na")
    assert parser.next_event() is None
    assert parser.mid_request
    parser.feed(b"b")
    assert parser.next_event() is not None
    assert not parser.mid_request


EXPECTS = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n"


def test_a_client_that_waits_is_told_to_go_on_once() -> None:
    first, second = events(EXPECTS, b"ab")
    assert first is Continue.CONTINUE
    assert isinstance(second, Request)
    assert second.body == b"ab"


def test_a_client_that_does_not_wait_is_not_told() -> None:
    assert [type(event) for event in events(EXPECTS + b"ab")] == [Request]


def post(headers: bytes, body: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\n" + HOST + headers + b"\r\n" + body


@pytest.mark.parametrize(
    ("data", "status", "says"),
    [
        # where a request ends must never be in doubt
        (post(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"), 400, "Both Content-Length"),
        (post(b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n"), 400, "Both Content-Length"),
        (post(b"Content-Length: 1\r\nContent-Length: 2\r\n"), 400, "twice"),
        (post(b"Content-Length: 1, 2\r\n"), 400, "twice"),
        (post(b"Content-Length: 1,\r\n"), 400, "twice"),
        (post(b"Content-Length: \r\n"), 400, "not a number"),
        (post(b"Content-Length: +1\r\n"), 400, "not a number"),
        (post(b"Content-Length: -1\r\n"), 400, "not a number"),
        (post(b"Content-Length: 0x1\r\n"), 400, "not a number"),
        (post(b"Content-Length: 1_0\r\n"), 400, "not a number"),
        (post(b"Content-Length: \xb2\r\n"), 400, "not a number"),
        (post(b"Content-Length: 1 1\r\n"), 400, "not a number"),
        (post(b"Transfer-Encoding: gzip\r\n"), 501, "chunked"),
        (post(b"Transfer-Encoding: gzip, chunked\r\n"), 501, "chunked"),
        (post(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501, "chunked"),
        (post(b"Transfer-Encoding: \x0bchunked\r\n"), 400, "control character"),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"),
        # lines
        (b"GET / HTTP/1.1\nHost: h\n\n", 400, "bare LF"),
        (b"GET / HTTP/1.1\r\nHost: h\n\r\n\r\n", 400, "bare LF"),
        (b"\nGET / HTTP/1.1\r\n", 400, "bare LF"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", 400, "folded"),
        (b"GET / HTTP/1.1\r\n Host: h\r\n\r\n", 400, "folded"),
        (b"GET / HTTP/1.1\r\nHost : h\r\n\r\n", 400, "not a token"),
        (b"GET / HTTP/1.1\r\nHost: h\r\n: v\r\n\r\n", 400, "not a token"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nnonsense\r\n\r\n", 400, "no colon"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400, "control character"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\rb\r\n\r\n", 400, "control character"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host header is missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", 400, "More than one Host"),
        (b"GET /\r\n\r\n", 400, "first line"),
        (b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"G(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, "HTTP/2.0"),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400, "first line"),
        (post(b"Content-Length: 1\r\nExpect: miracles\r\n"), 417, "100-continue"),
        # chunks
        (CHUNKED + b"x\r\n", 400, "hexadecimal"),
        (CHUNKED + b"\r\n", 400, "hexadecimal"),
        (CHUNKED + b"0x1\r\na\r\n", 400, "hexadecimal"),
        (CHUNKED + b"-1\r\n", 400, "hexadecimal"),
        (CHUNKED + b"1\na\r\n", 400, "hexadecimal"),
        (CHUNKED + b"1;a\x00\r\n", 400, "hexadecimal"),
        (CHUNKED + b"1;" + b"a" * 2000, 400, "hexadecimal"),
        (CHUNKED + b"1" * 17 + b"\r\n", 400, "hexadecimal"),
        (CHUNKED + b"1\r\nab\r\n", 400, "longer than"),
        (CHUNKED + b"1\r\na\n0\r\n", 400, "longer than"),
        (CHUNKED + b"0\r\nnonsense\r\n\r\n", 400, "trailer"),
        (CHUNKED + b"0\r\nT: 1\n\n", 400, "bare LF"),
        # sizes
        (post(b"Content-Length: 1001\r\n"), 413, "1000 bytes"),
        (post(b"Content-Length: " + b"9" * 5000 + b"\r\n"), 413, "1000 bytes"),
        (CHUNKED + b"3e9\r\n", 413, "1000 bytes"),
        (CHUNKED + b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\n", 413, "1000 bytes"),
        (b"GET / HTTP/1.1\r\n" + b"a" * MAX_HEAD_BYTES, 431, "header exceeds"),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431, "header exceeds"),
        (CHUNKED + b"0\r\nT: " + b"a" * MAX_HEAD_BYTES, 431, "trailers exceed"),
    ],
)
def test_what_is_refused(data: bytes, status: int, says: str) -> None:
    for reads in ([data], [data[i : i + 97] for i in range(0, len(data), 97)]):
        with pytest.raises(ProtocolError) as refusal:
            events(*reads)
        assert refusal.value.status == status
        assert says in refusal.value.text


@pytest.mark.parametrize("headers", [b"Content-Length: 1\r\nContent-Length: 1\r\n", b"Content-Length: 1, 1\r\n"])
def test_a_length_may_be_said_twice(headers: bytes) -> None:
    assert request(post(headers, b"a")).body == b"a"


def test_the_largest_allowed_sizes() -> None:
    head = b"GET / HTTP/1.1\r\nHost: h\r\nX: "
    assert request(head + b"a" * (MAX_HEAD_BYTES - len(head) - 4) + b"\r\n\r\n").target == "/"
    assert len(request(post(b"Content-Length: 1000\r\n", b"a" * 1000)).body) == 1000
    assert len(request(CHUNKED + b"3e8\r\n" + b"a" * 1000 + b"\r\n0\r\n\r\n").body) == 1000
