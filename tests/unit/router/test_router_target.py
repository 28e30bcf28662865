"""Which endpoint and which path a request means."""

import pytest

from router.target import BadTarget, origin_form, target

SUFFIX = b".local.inference.localhost"
BY_HOST = b"diabetes.local.inference.localhost"


@pytest.mark.parametrize(
    ("url", "host", "name", "path"),
    [
        # by host: the whole path is the model's
        (b"/score", BY_HOST, b"diabetes", b"/score"),
        (b"/score", BY_HOST + b":8443", b"diabetes", b"/score"),
        (b"/score", b"DIABETES.Local.Inference.LocalHost", b"diabetes", b"/score"),
        (b"/", BY_HOST, b"diabetes", b"/"),
        (b"/swagger.json?version=3", BY_HOST, b"diabetes", b"/swagger.json?version=3"),
        (b"/other/score", BY_HOST, b"diabetes", b"/other/score"),
        # by path: what follows the name
        (b"/diabetes/score", b"localhost:8443", b"diabetes", b"/score"),
        (b"/Diabetes/score", b"127.0.0.1", b"diabetes", b"/score"),
        (b"/diabetes/score?a=b/c", b"[::1]:8443", b"diabetes", b"/score?a=b/c"),
        (b"/diabetes/a//b/../c", b"x", b"diabetes", b"/a//b/../c"),
        (b"/diabetes", b"x", b"diabetes", b"/"),
        (b"/diabetes/", b"x", b"diabetes", b"/"),
        (b"/diabetes?a=b", b"x", b"diabetes", b"/?a=b"),
        (b"/", b"x", b"", b"/"),
        (b"/?a=/diabetes/score", b"x", b"", b"/?a=/diabetes/score"),
        (b"//score", b"x", b"", b"/score"),
    ],
)
def test_targets(url: bytes, host: bytes, name: bytes, path: bytes) -> None:
    assert target(url, host, SUFFIX) == (name, path)


@pytest.mark.parametrize(
    ("url", "path", "authority"),
    [
        (b"https://diabetes.local.inference.localhost:1/score?a", b"/score?a", b"diabetes.local.inference.localhost:1"),
        (b"HTTP://localhost/diabetes/score", b"/diabetes/score", b"localhost"),
        (b"http://LocalHost", b"/", b"LocalHost"),
        (b"http://h?a=/b", b"/?a=/b", b"h"),
        (b"http://[::1]:8443/a", b"/a", b"[::1]:8443"),
        (b"http://h//x/http://y", b"//x/http://y", b"h"),
    ],
)
def test_the_authority_of_an_absolute_target_replaces_the_host(url: bytes, path: bytes, authority: bytes) -> None:
    given = [(b"Host", BY_HOST), (b"A", b"b"), (b"hOST", b"second")]
    assert origin_form(url, given, "1.1") == (path, [(b"Host", authority), (b"A", b"b"), (b"hOST", authority)])
    assert origin_form(url, [], "1.1") == (path, [])  # and is refused for that: HTTP/1.1 asks for one
    assert origin_form(url, [], "1.0") == (path, [(b"host", authority)])


@pytest.mark.parametrize(
    "url",
    [
        b"*",
        b"diabetes/score",
        b"ftp://diabetes/score",
        b"localhost:443",
        b"http:/h/score",
        b"http:///diabetes/score",
        b"http://",
        b"http://?a",
        b"http://:80/diabetes/score",
        b"http://user:pass@h/diabetes/score",
    ],
)
def test_targets_that_are_none(url: bytes) -> None:
    assert origin_form(url, [(b"Host", b"x")], "1.1") == (url, [(b"Host", b"x")])
    with pytest.raises(BadTarget):
        target(url, BY_HOST, SUFFIX)


def test_an_empty_target_is_none() -> None:
    with pytest.raises(BadTarget):
        target(b"", BY_HOST, SUFFIX)
