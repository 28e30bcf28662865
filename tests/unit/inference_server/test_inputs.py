"""What `run()` is called with, as tables of signatures and requests."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from inference_server.http import Request
from inference_server.inputs import Arguments, InputError, SignatureError, input_parser
from inference_server.request import AMLRequest


def request(method: str = "POST", target: str = "/score", body: bytes = b"", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, target, named, body, http_1_0=False, close=False)


def plain(data): ...  # type: ignore[no-untyped-def]
def with_headers(request_headers, data): ...  # type: ignore[no-untyped-def]
def with_default(data, threshold=0.5): ...  # type: ignore[no-untyped-def]
def keyword_only(*, data): ...  # type: ignore[no-untyped-def]
def two(a, b=2): ...  # type: ignore[no-untyped-def]
def starred(*args): ...  # type: ignore[no-untyped-def]
def double_starred(data, **kwargs): ...  # type: ignore[no-untyped-def]
def positional_only(data, /): ...  # type: ignore[no-untyped-def]
def nothing(): ...  # type: ignore[no-untyped-def]
def only_headers(request_headers): ...  # type: ignore[no-untyped-def]
async def coroutine(data): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (starred, "run() cannot accept positional-only arguments, *args, or **kwargs."),
        (double_starred, "run() cannot accept positional-only arguments, *args, or **kwargs."),
        (positional_only, "run() cannot accept positional-only arguments, *args, or **kwargs."),
        (nothing, "run() needs to accept an argument for input data."),
        (only_headers, 'run() needs to accept an argument other than "request_headers".'),
        (coroutine, "run() cannot be async: it is called like a plain function."),
    ],
)
def test_signatures_that_are_refused(run: Callable[..., Any], says: str) -> None:
    with pytest.raises(SignatureError) as refusal:
        input_parser(run, raw=False, schema=False)
    assert str(refusal.value) == says


def test_both_decorators_are_refused() -> None:
    with pytest.raises(SignatureError, match="both @rawhttp and @input_schema"):
        input_parser(plain, raw=True, schema=True)


@pytest.mark.parametrize("run", [plain, with_default, keyword_only])
def test_the_body_is_a_string(run: Callable[..., Any]) -> None:
    parse = input_parser(run, raw=False, schema=False)
    assert parse(request(body='{"é": 1}'.encode())) == {"data": '{"é": 1}'}
    assert parse(request(body=b"not json")) == {"data": "not json"}


def test_a_body_that_is_not_utf8_is_a_bad_request() -> None:
    with pytest.raises(InputError, match="Input cannot be decoded as UTF-8") as refusal:
        input_parser(plain, raw=False, schema=False)(request(body=b"\xff"))
    assert refusal.value.status == 400


@pytest.mark.parametrize(
    ("query", "seen"),
    [
        ("", {}),
        ("?a=1&b=[1,2]&c=a&d=null", {"a": 1, "b": [1, 2], "c": "a", "d": None}),
        ("?foo=bar1&foo=2&x=y", {"foo": ["bar1", 2], "x": "y"}),
        ("?e=&f", {"e": "", "f": ""}),
        ("?a=%7B%22b%22%3A1%7D&c=x+y%20z", {"a": {"b": 1}, "c": "x y z"}),
    ],
)
def test_a_query_is_a_string_of_json(query: str, seen: Arguments) -> None:
    parsed = input_parser(plain, raw=False, schema=False)(request("GET", "/score" + query))
    assert json.loads(parsed["data"]) == seen


def test_headers_are_passed_where_they_are_wanted() -> None:
    parse = input_parser(with_headers, raw=False, schema=False)
    assert parse(request(body=b"x", x_ms_id="1", content_type="text/plain")) == {
        "data": "x",
        "request_headers": {"X-Ms-Id": "1", "Content-Type": "text/plain"},
    }


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_raw_requests_whatever_the_method(method: str) -> None:
    arguments = input_parser(plain, raw=True, schema=False)(request(method, "/score?a=1", b"\xff"))
    raw = arguments["data"]
    assert isinstance(raw, AMLRequest)
    assert (raw.method, raw.get_data(), raw.args["a"]) == (method, b"\xff", "1")


JSON = "application/json; charset=utf-8"


@pytest.mark.parametrize(
    ("run", "body", "seen"),
    [
        (two, b'{"a": 1, "b": [3], "c": 4}', {"a": 1, "b": [3]}),
        (two, b'{"a": null}', {"a": None, "b": 2}),
        (keyword_only, b'{"data": "x"}', {"data": "x"}),
    ],
)
def test_schema_arguments_come_from_a_json_object(run: Callable[..., Any], body: bytes, seen: Arguments) -> None:
    parse = input_parser(run, raw=False, schema=True)
    assert parse(request(body=body, content_type=JSON)) == seen
    assert parse(request(body=body, content_type="application/vnd.x+json")) == seen


def test_schema_arguments_come_from_a_query() -> None:
    assert input_parser(two, raw=False, schema=True)(request("GET", "/score?a=[1]")) == {"a": [1], "b": 2}


@pytest.mark.parametrize(
    ("body", "content_type", "status", "says"),
    [
        (b"{}", "text/plain", 415, "Expects Content-Type to be application/json"),
        (b"{}", "", 415, "Expects Content-Type to be application/json"),
        (b"", JSON, 400, "POST body is empty. Expecting a JSON dictionary."),
        (b"{", JSON, 400, "POST body could not be decoded as JSON: Expecting property name"),
        (b"\xff", JSON, 400, "POST body could not be decoded as JSON: "),
        (b"[" * 100_000, JSON, 400, "POST body could not be decoded as JSON: "),
        (b"[1]", JSON, 400, "POST body should be a JSON dictionary."),
        (b'{"b": 1}', JSON, 400, "A value is not provided for the 'a' parameter."),
    ],
)
def test_schema_requests_that_are_refused(body: bytes, content_type: str, status: int, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        input_parser(two, raw=False, schema=True)(request(body=body, content_type=content_type))
    assert refusal.value.status == status
    assert refusal.value.text.startswith(says)
