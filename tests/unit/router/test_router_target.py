"""Which endpoint and which path a request means."""

import pytest

from router.target import BadTarget, target

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
        # absolute form: its authority replaces Host
        (b"https://diabetes.local.inference.localhost:1/score?a", b"x", b"diabetes", b"/score?a"),
        (b"HTTP://localhost/diabetes/score", BY_HOST, b"diabetes", b"/score"),
        (b"http://diabetes.local.inference.localhost", b"x", b"diabetes", b"/"),
        (b"http://diabetes.local.inference.localhost?a=/b", b"x", b"diabetes", b"/?a=/b"),
    ],
)
def test_targets(url: bytes, host: bytes, name: bytes, path: bytes) -> None:
    assert target(url, host, SUFFIX) == (name, path)


@pytest.mark.parametrize("url", [b"*", b"", b"diabetes/score", b"ftp://diabetes/score", b"localhost:443"])
def test_targets_that_are_none(url: bytes) -> None:
    with pytest.raises(BadTarget):
        target(url, BY_HOST, SUFFIX)
