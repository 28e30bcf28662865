"""What is written for each outcome, and the rules of the request ids, as tables."""

import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from inference_server.replies import Replies, Reply, UnsendableOutput, correlate
from inference_server.response import AMLResponse

IDS = "x-request-id: r\r\n"


def output(value: Any, headers: dict[str, str] | None = None) -> Reply:
    return Replies("test/1").output(headers or {}, IDS, value, 1.23456)


def read(reply: Reply) -> tuple[int, dict[str, list[str]]]:
    """The status and the header fields, names in lower case."""
    status, *lines = reply.head.decode("latin-1").split("\r\n")[:-1]
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        fields.setdefault(name.lower(), []).append(value)
    return int(status.split()[1]), fields


@pytest.mark.parametrize(
    ("value", "body"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a": [1, 2.5, null, true]}'),
        ("text", b'"text"'),
        ("é", b'"\\u00e9"'),
        (None, b"{}"),
        (0, b"0"),
        ([], b"[]"),
    ],
)
def test_a_value_is_sent_as_json(value: Any, body: bytes) -> None:
    reply = output(value)
    status, fields = read(reply)
    date = fields.pop("date")
    assert (status, reply.body, reply.rest) == (200, body, None)
    assert len(date) == 1
    assert fields == {
        "content-type": ["application/json"],
        "content-length": [str(len(body))],
        "x-ms-run-function-failed": ["False"],
        "x-ms-server-version": ["test/1"],
        "x-request-id": ["r"],
        "x-ms-run-fn-exec-ms": ["1.235"],
    }


@pytest.mark.parametrize(
    ("response", "status", "body", "has"),
    [
        (AMLResponse("é", 200), 200, "é".encode(), {"content-type": ["text/html; charset=utf-8"]}),
        (AMLResponse(b"\x00", 201, {"content-TYPE": "image/png"}), 201, b"\x00", {"content-type": ["image/png"]}),
        (AMLResponse(["a", b"b"], 200), 200, b"ab", {"content-length": ["2"]}),
        (AMLResponse({"a": 1}, 400, json_str=True), 400, b'{"a": 1}', {"content-type": ["application/json"]}),
        (AMLResponse(None, 200), 200, b"{}", {"content-type": ["application/json"]}),
        (AMLResponse("x", 404), 404, b"x", {"x-ms-run-function-failed": ["False"]}),
        (AMLResponse("x", 503), 503, b"x", {"x-ms-run-function-failed": ["True"]}),
        (AMLResponse("x", 200, run_function_failed=True), 200, b"x", {"x-ms-run-function-failed": ["True"]}),
        (AMLResponse("x", 200, {"A": "1, 2"}), 200, b"x", {"a": ["1", "2"]}),
        (AMLResponse("x", 299, {"Content-Length": "9", "Connection": "x"}), 299, b"x", {"content-length": ["1"]}),
    ],
)
def test_a_response_is_sent_as_it_is(
    response: AMLResponse, status: int, body: bytes, has: dict[str, list[str]]
) -> None:
    reply = output(response)
    seen, fields = read(reply)
    assert (seen, reply.body) == (status, body)
    assert {name: fields[name] for name in has} == has
    assert fields["x-ms-run-fn-exec-ms"] == ["1.235"]
    assert "connection" not in fields


def test_a_response_without_a_body() -> None:
    reply = output(AMLResponse("ignored", 204))
    assert reply.body == b""
    assert "content-length" not in read(reply)[1]


class FlaskResponse:
    """Has what a Flask response has, without being ours."""

    status_code = 202
    is_streamed = False
    headers = {"Content-Type": "text/plain"}  # noqa: RUF012

    def get_data(self) -> bytes:
        return b"flask"


def test_a_flask_response_is_sent_as_it_is() -> None:
    reply = output(FlaskResponse())
    assert (read(reply)[0], reply.body) == (202, b"flask")


def numbers(closed: list[bool]) -> Iterator[str | bytes]:
    try:
        yield "a"
        yield ""
        yield b"b"
    finally:
        closed.append(True)


def test_a_generator_is_a_stream() -> None:
    closed: list[bool] = []
    reply = output(numbers(closed))
    assert reply.rest is not None
    assert "content-length" not in read(reply)[1]
    assert (reply.body, list(reply.rest), closed) == (b"a", [b"b"], [True])


def test_a_response_can_be_a_stream() -> None:
    closed: list[bool] = []
    reply = output(AMLResponse(numbers(closed), 200, {"Content-Type": "text/event-stream"}))
    assert reply.rest is not None
    assert read(reply)[1]["content-type"] == ["text/event-stream"]
    reply.rest.close()
    assert (reply.body, closed) == (b"a", [True])


def test_a_stream_that_ends_at_once() -> None:
    reply = output(iter(()))
    assert reply.rest is not None
    assert (reply.body, list(reply.rest)) == (b"", [])


def test_what_a_stream_raises_first_is_raised_before_anything_is_sent() -> None:
    with pytest.raises(TypeError, match="made of str or bytes, not of int"):
        output(iter([1]))


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1, 2}, "cannot be sent as JSON: Object of type set is not JSON serializable"),
        (CIRCLE, "cannot be sent as JSON: Circular reference"),
        (AMLResponse("x", 99), "the status 99"),
        (AMLResponse("x", "200"), "the status '200'"),  # type: ignore[arg-type]
        (AMLResponse("x", 200, {"A": "b\r\nC: d"}), "a line end or NUL in a header"),
        (AMLResponse("x", 200, {"A\n": "b"}), "a line end or NUL in a header"),
        (AMLResponse("x", 200, {"A": "☃"}), "outside Latin-1"),
    ],
)
def test_what_cannot_be_sent(value: Any, says: str) -> None:
    with pytest.raises(UnsendableOutput, match=says):
        output(value)


@pytest.mark.parametrize("message", [1, {"a": 1}, 2.5])
def test_messages_that_a_response_refuses(message: Any) -> None:
    with pytest.raises(TypeError, match="json_str=True"):
        AMLResponse(message, 200)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"x-request-id": "R"}, {"x-request-id": "R", "x-ms-request-id": "R"}),
        (
            {"x-request-id": "R", "x-ms-client-request-id": "C"},
            {"x-request-id": "R", "x-ms-request-id": "C", "x-ms-client-request-id": "C"},
        ),
        (
            {"x-request-id": "R", "x-ms-request-id": "L"},
            {"x-request-id": "R", "x-ms-request-id": "L", "x-ms-client-request-id": "L"},
        ),
        (
            {"x-request-id": "R", "x-ms-request-id": "L", "x-ms-client-request-id": "C", "traceid": "T"},
            {"x-request-id": "R", "x-ms-request-id": "L", "x-ms-client-request-id": "C", "TraceId": "T"},
        ),
        ({"x-request-id": "R" * 100}, {"x-request-id": "R" * 100, "x-ms-request-id": "R" * 100}),
    ],
)
def test_request_ids_are_echoed(given: dict[str, str], told: dict[str, str]) -> None:
    lines, problem = correlate(given)
    assert dict(line.split(": ") for line in lines.split("\r\n")[:-1]) == told
    assert problem is None


def test_a_request_without_an_id_gets_one() -> None:
    lines, _ = correlate({})
    one, other = (line.split(": ")[1] for line in lines.split("\r\n")[:-1])
    assert one == other
    assert uuid.UUID(one).version == 4


@pytest.mark.parametrize(
    ("name", "lines", "says"),
    [
        ("x-request-id", "", "x-request-id must not exceed 100 characters"),
        ("x-ms-request-id", "x-request-id: ", "x-ms-request-id and x-ms-client-request-id must not exceed 100"),
        ("x-ms-client-request-id", "x-request-id: ", "x-ms-request-id and x-ms-client-request-id must not exceed 100"),
    ],
)
def test_ids_that_are_too_long(name: str, lines: str, says: str) -> None:
    told, problem = correlate({name: "x" * 101})
    assert told.startswith(lines)
    assert problem is not None
    assert problem.startswith(says)


def test_an_error() -> None:
    reply = Replies("v").error({}, IDS, 405, "No.", failed=True, allow=("GET", "POST"))
    status, fields = read(reply)
    assert (status, json.loads(reply.body)) == (405, {"message": "No."})
    assert fields["allow"] == ["GET, POST"]
    assert fields["x-ms-run-function-failed"] == ["True"]
    assert fields["x-request-id"] == ["r"]


@pytest.mark.parametrize(
    ("origins", "given", "told"),
    [
        ([], {"origin": "https://a"}, {}),
        (["https://a"], {}, {"vary": ["Origin"]}),
        (["https://a"], {"origin": "https://b"}, {"vary": ["Origin"]}),
        (
            ["https://a", "https://b"],
            {"origin": "https://B"},
            {"vary": ["Origin"], "access-control-allow-origin": ["https://B"]},
        ),
        (["*"], {"origin": "https://b"}, {"vary": ["Origin"], "access-control-allow-origin": ["https://b"]}),
        (
            ["*"],
            {
                "origin": "o",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization",
            },
            {
                "vary": ["Origin"],
                "access-control-allow-origin": ["o"],
                "access-control-allow-methods": ["GET, POST"],
                "access-control-allow-headers": ["authorization"],
            },
        ),
    ],
)
def test_cors(origins: list[str], given: dict[str, str], told: dict[str, list[str]]) -> None:
    _, fields = read(Replies("v", origins).options(given, IDS))
    cors = {name: values for name, values in fields.items() if name == "vary" or name.startswith("access")}
    assert cors == told


def test_a_response_is_changed_after_it_was_made() -> None:
    response = AMLResponse("x", 200)
    response.headers["X-Count"] = 5  # Flask takes it, too
    response.headers.update({"X-Other": "o"})
    response.content_type = "text/plain"
    response.data = "ä"
    assert (response.data, response.get_data(as_text=True)) == ("ä".encode(), "ä")
    fields = read(Replies("v").output({}, IDS, response, 0))[1]
    assert (fields["x-count"], fields["x-other"], fields["content-type"]) == (["5"], ["o"], ["text/plain"])
