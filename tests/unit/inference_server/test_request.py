"""`AMLRequest` and the forms behind it."""

import pytest

from inference_server.forms import FormError, MultiDict, parse_form
from inference_server.http import Request
from inference_server.request import AMLRequest

BOUNDARY = "multipart/form-data; boundary=XX"
BINARY = b"\r\n--X\r\n\x00\xff\n\r--"


def multipart(*parts: bytes, end: bytes = b"--XX--\r\n") -> bytes:
    return b"preamble\r\n" + b"".join(b"--XX\r\n" + part + b"\r\n" for part in parts) + end


def raw(body: bytes = b"", target: str = "/score", **headers: str) -> AMLRequest:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return AMLRequest(Request("POST", target, named, body, http_1_0=False, close=False))


def test_headers_in_any_case() -> None:
    headers = raw(x_request_id="1", content_type="a/b").headers
    assert headers["x-REQUEST-id"] == headers.get("X-Request-Id") == "1"
    assert headers.get("none") is None
    assert headers.get("none", "x") == "x"
    assert "CONTENT-type" in headers
    assert dict(headers) == dict(headers.items()) == {"X-Request-Id": "1", "Content-Type": "a/b"}
    assert list(headers) == [("X-Request-Id", "1"), ("Content-Type", "a/b")]
    assert len(headers) == 2


def test_the_query() -> None:
    request = raw(target="/score?a=1&a=2&b=%C3%A9&c=")
    assert request.path == "/score"
    assert request.args["a"] == "1"
    assert request.args.getlist("a") == ["1", "2"]
    assert request.args.getlist("none") == []
    assert request.args.to_dict(flat=False) == {"a": ["1", "2"], "b": ["é"], "c": [""]}
    assert request.args.to_dict() == {"a": "1", "b": "é", "c": ""}


def test_json() -> None:
    assert raw(b'{"a": 1}', content_type="application/json").json == {"a": 1}
    assert raw(b"[1]").get_json(force=True) == [1]
    assert raw(b"[1]").get_json(silent=True) is None
    assert raw(b"{", content_type="application/json").get_json(silent=True) is None
    with pytest.raises(ValueError, match="Content-Type is not application/json"):
        raw(b"[1]").json  # noqa: B018


def test_the_body() -> None:
    request = raw(b"\xc3\xa9", content_type="text/plain; charset=utf-8")
    assert request.get_data() == request.data == b"\xc3\xa9"
    assert request.get_data(as_text=True) == "é"
    assert (request.mimetype, request.content_length, request.is_json) == ("text/plain", 2, False)


def test_an_urlencoded_form() -> None:
    request = raw(b"a=1&b=x+y&a=2", content_type="application/x-www-form-urlencoded")
    assert request.form.to_dict(flat=False) == {"a": ["1", "2"], "b": ["x y"]}
    assert request.files == {}


def test_a_form_with_files() -> None:
    body = multipart(
        b'Content-Disposition: form-data; name="field"\r\n\r\nvalu\xc3\xa9',
        b'Content-Disposition: form-data; name="image"; filename="a b.png"\r\nContent-Type: image/png\r\n\r\n' + BINARY,
        b'content-disposition: form-data; name="image"; filename="b"\r\n\r\n',
    )
    request = raw(body, content_type=BOUNDARY)
    assert request.form == {"field": "valué"}
    first, second = request.files.getlist("image")
    assert request.files["image"] is first
    assert (first.filename, first.content_type, first.read()) == ("a b.png", "image/png", BINARY)
    assert (second.filename, second.content_type, second.stream.read()) == ("b", "application/octet-stream", b"")


def test_a_file_is_saved(tmp_path) -> None:  # type: ignore[no-untyped-def]
    body = multipart(b'Content-Disposition: form-data; name="f"; filename="f"\r\n\r\n' + BINARY)
    raw(body, content_type=BOUNDARY).files["f"].save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == BINARY


@pytest.mark.parametrize(
    ("content_type", "body", "says"),
    [
        ("multipart/form-data", b"", "no boundary"),
        (BOUNDARY, b"", "cut off"),
        (BOUNDARY, multipart(b'Content-Disposition: form-data; name="a"\r\n\r\nx', end=b""), "cut off"),
        (BOUNDARY, multipart(b"no head"), "cut off"),
        (BOUNDARY, multipart(b"Content-Disposition: form-data\r\n\r\nx"), "no name"),
        (BOUNDARY, multipart(b"X: y\r\n\r\nx"), "no name"),
    ],
)
def test_forms_that_are_refused(content_type: str, body: bytes, says: str) -> None:
    with pytest.raises(FormError, match=says):
        parse_form(content_type, body)


def test_other_bodies_are_no_form() -> None:
    assert parse_form("application/json", b"a=1") == ({}, {})
    assert parse_form("", b"a=1") == ({}, {})


def test_a_value_is_made_what_it_is_asked_for() -> None:
    """As Flask's `request.args.get`."""
    values = MultiDict([("n", "5"), ("n", "6"), ("word", "x")])
    assert (values.get("n"), values.get("n", type=int), values.get("none")) == ("5", 5, None)
    assert (values.get("word", 7, type=int), values.get("none", 7, type=int)) == (7, 7)
