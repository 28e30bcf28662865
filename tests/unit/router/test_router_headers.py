"""What passes, what is dropped, what is the router's own to set; in both directions."""

import pytest

from router.headers import BadReply, Refused, RequestHead, client_status, read_reply, read_request, request_head

Headers = list[tuple[bytes, bytes]]


def read(*headers: tuple[bytes, bytes], method: bytes = b"POST") -> RequestHead:
    head = RequestHead(method, "1.1")
    read_request(head, headers)
    return head


def passed(*headers: tuple[bytes, bytes]) -> bytes:
    return b"".join(read(*headers).lines)


@pytest.mark.parametrize(
    "header",
    [
        (b"Accept", b"*/*"),
        (b"content-type", b"text/plain; charset=x"),
        (b"traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (b"X-Odd", b""),
        (b"Cookie", b"\xe9"),
    ],
)
def test_end_to_end_headers_pass_as_they_are(header: tuple[bytes, bytes]) -> None:
    assert passed(header) == header[0] + b": " + header[1] + b"\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"Authorization",  # the client's key is not the model's business
        b"Connection",
        b"Keep-Alive",
        b"Proxy-Authorization",
        b"Proxy-Authenticate",
        b"Proxy-Connection",
        b"TE",
        b"Trailer",
        b"Upgrade",
        b"X-Request-Id",  # the router sets its own
        b"x-ms-client-request-id",  # is checked first
    ],
)
def test_headers_that_end_here(name: bytes) -> None:
    assert passed((name, b"close"), (b"a", b"b")) == b"a: b\r\n"


def test_a_connection_header_takes_what_it_names_with_it() -> None:
    headers = [(b"Connection", b"close, X-Hop"), (b"x-hop", b"1"), (b"a", b"b"), (b"Y-Hop", b"2")]
    assert passed(*headers) == b"a: b\r\nY-Hop: 2\r\n"
    assert passed(*headers, (b"connection", b"y-hop")) == b"a: b\r\n"


def test_a_connection_header_does_not_take_what_frames_or_identifies_a_request() -> None:
    named = (b"Connection", b"content-length, host, authorization, azureml-model-deployment, x-ms-client-request-id")
    head = read(
        named,
        (b"Content-Length", b"3"),
        (b"Host", b"h"),
        (b"Authorization", b"Bearer k"),
        (b"azureml-model-deployment", b"green"),
        (b"x-ms-client-request-id", b"id"),
    )
    assert (head.length, head.host, head.authorization, head.pin) == (3, b"h", b"Bearer k", b"green")
    assert head.client_id
    assert b"Content-Length: 3\r\n" in b"".join(head.lines)


def test_what_is_read() -> None:
    head = read(
        (b"HOST", b" h:1 "),
        (b"CONTENT-LENGTH", b"12 "),
        (b"Azureml-Model-Deployment", b" green "),
        (b"Expect", b"100-Continue"),
        (b"authorization", b"Bearer k"),
    )
    assert (head.host, head.length, head.pin, head.expects) == (b"h:1", 12, b"green", True)
    assert not head.chunked
    assert read((b"Transfer-Encoding", b"Chunked ")).chunked
    assert read((b"Content-Length", b"9" * 19)).length == 10**18


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"Host", b"a"), (b"host", b"a")], 400),
        ([(b"Transfer-Encoding", b"gzip, chunked")], 501),
        ([(b"Transfer-Encoding", b"chunked, chunked")], 501),
        ([(b"Expect", b"200-ok")], 417),
    ],
)
def test_heads_that_are_refused(headers: Headers, status: int) -> None:
    with pytest.raises(Refused) as refused:
        read(*headers)
    assert refused.value.refusal.status == status
    assert refused.value.refusal.close


@pytest.mark.parametrize(
    ("given", "echoed"),
    [
        (b"abc_DEF-123", b"abc_DEF-123"),
        (b"  a1  ", b"a1"),
        (b"a" * 50, b"a" * 40),
        (b"a b", None),
        (b"a.b", None),
        (b"\xe4", None),
        (b"", None),
        (b"a" * 40 + b"!", None),
    ],
)
def test_the_clients_request_id(given: bytes, echoed: bytes | None) -> None:
    line = b"" if echoed is None else b"x-ms-client-request-id: " + echoed + b"\r\n"
    assert read((b"x-ms-client-request-id", given)).client_id == line


def test_the_head_that_an_instance_gets() -> None:
    head = read((b"Host", b"h"), (b"Content-Length", b"2"), (b"x-ms-client-request-id", b"c"))
    head.path = b"/score?a=b"
    assert request_head(head, b"GUID", 2) == (
        b"POST /score?a=b HTTP/1.1\r\nx-request-id: GUID\r\nHost: h\r\nContent-Length: 2\r\n"
        b"x-ms-client-request-id: c\r\n\r\n"
    )
    chunked = read((b"Transfer-Encoding", b"chunked"))
    chunked.path = b"/"
    assert request_head(chunked, b"GUID", 7) == b"POST / HTTP/1.1\r\nx-request-id: GUID\r\ncontent-length: 7\r\n\r\n"


@pytest.mark.parametrize(
    "name",
    [
        b"Connection",
        b"Keep-Alive",
        b"Transfer-Encoding",
        b"Upgrade",
        b"Trailer",
        b"X-Request-Id",
        b"x-ms-client-request-id",
        b"azureml-model-deployment",
        b"ms-azureml-model-error-statuscode",
        b"ms-azureml-model-error-reason",
    ],
)
def test_a_model_cannot_set_the_routers_headers(name: bytes) -> None:
    reply = read_reply([(name, b"chunked"), (b"x-ms-run-function-failed", b"True")], with_length=True)
    assert b"".join(reply.lines) == b"x-ms-run-function-failed: True\r\n"


def test_how_a_reply_is_framed() -> None:
    length = read_reply([(b"Content-Length", b"3")], with_length=True)
    assert (length.has_length, length.chunked, b"".join(length.lines)) == (True, False, b"Content-Length: 3\r\n")
    dropped = read_reply([(b"Content-Length", b"3")], with_length=False)
    assert (dropped.has_length, dropped.lines) == (False, [])
    assert read_reply([(b"Transfer-Encoding", b"chunked")], with_length=True).chunked
    assert not read_reply([], with_length=True).has_length
    with pytest.raises(BadReply):
        read_reply([(b"Transfer-Encoding", b"gzip")], with_length=True)
    hop = read_reply([(b"Connection", b"x-hop"), (b"X-Hop", b"1"), (b"a", b"b")], with_length=True)
    assert b"".join(hop.lines) == b"a: b\r\n"


@pytest.mark.parametrize("status", [200, 201, 202, 206])
def test_the_models_2xx_is_the_routers(status: int) -> None:
    assert client_status(status, b"whatever").startswith(b"HTTP/1.1 %d " % status)


def test_a_2xx_without_a_name() -> None:
    assert client_status(299, b"Odd") == b"HTTP/1.1 299 Odd\r\n"


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 424, 429, 500, 503, 999])
def test_anything_else_is_424_and_says_what_it_was(status: int) -> None:
    assert client_status(status, b"Some \x01reason\xff") == (
        b"HTTP/1.1 424 Failed Dependency\r\n"
        b"ms-azureml-model-error-statuscode: %d\r\n"
        b"ms-azureml-model-error-reason: Some reason\r\n" % status
    )
