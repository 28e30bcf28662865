"""The statuses of the contract, and that each refusal tells cause and next step."""

import json

import pytest

from router import outcomes
from router.outcomes import Refusal, answer
from router.retries import Phase, at_deadline, may_be_sent

DETAILS = {
    "endpoint": "diabetes",
    "deployment": "blue",
    "reason": "r",
    "suffix": ".s",
    "method": "TRACE",
    "seconds": 30,
    "timeout_ms": 5000,
    "queue_wait_ms": 500,
    "limit": 2,
    "count": 128,
    "what": "Upgrade",
    "address": "192.0.2.7",
}
REFUSALS = {name: value for name, value in vars(outcomes).items() if isinstance(value, Refusal)}


def test_the_table() -> None:
    assert {name: (refusal.status, refusal.code, refusal.close) for name, refusal in REFUSALS.items()} == {
        "PREFLIGHT": (200, "", False),
        "MALFORMED": (400, "BadRequest", True),
        "BAD_TARGET": (400, "BadRequest", True),
        "UNAUTHORIZED": (401, "Unauthorized", False),
        "TOKEN_REFUSED": (401, "Unauthorized", False),
        "NO_ISSUER": (401, "Unauthorized", False),
        "NOT_ALLOWED": (403, "Forbidden", False),
        "NOT_PUBLIC": (403, "PublicNetworkAccessDisabled", False),
        "FOREIGN_NETWORK": (403, "NetworkNotAllowed", False),
        "NO_ENDPOINT": (404, "EndpointNotFound", False),
        "NO_DEPLOYMENT": (404, "DeploymentNotFound", False),
        "NO_TRAFFIC": (404, "NoTraffic", False),
        "BAD_METHOD": (405, "MethodNotAllowed", True),
        "SLOW_CLIENT": (408, "RequestNotReceived", True),
        "TIMED_OUT": (408, "RequestTimeout", False),
        "TOO_LARGE": (413, "RequestTooLarge", True),
        "BAD_EXPECTATION": (417, "ExpectationFailed", True),
        "TOO_MANY": (429, "TooManyRequests", False),
        "TOO_MANY_PER_SECOND": (429, "RateLimitExceeded", False),
        "TOO_MANY_CONNECTIONS": (429, "TooManyConnections", True),
        "QUEUED_TOO_LONG": (429, "QueueWaitExceeded", False),
        "HEAD_TOO_LARGE": (431, "HeadersTooLarge", True),
        "INTERNAL": (500, "InternalServerError", False),
        "NOT_UNDERSTOOD": (501, "NotImplemented", True),
        "INSTANCE_DIED": (502, "InstanceDied", False),
        "BAD_REPLY": (502, "InvalidModelResponse", False),
        "NOT_READY": (503, "NoInstanceReady", False),
    }


@pytest.mark.parametrize("name", [name for name, refusal in REFUSALS.items() if refusal.code])
def test_every_message_fills_its_gaps(name: str) -> None:
    message = REFUSALS[name].about(**DETAILS).message
    assert "{" not in message
    assert message.endswith(".")


def test_the_response() -> None:
    refusal = Refusal(429, "TooMany", 'say "less"', headers=b"retry-after: 1\r\n")
    whole = answer(refusal, b"x-request-id: GUID\r\n", close=True)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 429 Too Many Requests",
        b"x-request-id: GUID",
        b"retry-after: 1",
        b"content-type: application/json",
        b"content-length: %d" % len(body),
        b"connection: close",
    ]
    assert json.loads(body) == {"error": {"code": "TooMany", "message": 'say "less"'}}


def test_an_answer_that_refuses_nothing_has_no_body() -> None:
    assert answer(Refusal(200, "", "", headers=b"a: b\r\n"), b"", close=False) == (
        b"HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 0\r\n\r\n"
    )


def test_the_response_to_head_has_no_body() -> None:
    refusal = Refusal(404, "C", "M")
    assert answer(refusal, b"", close=False, body=False) == answer(refusal, b"", close=False).partition(b"{")[0]


@pytest.mark.parametrize(
    ("handed", "idempotent", "again"),
    [
        (0, False, True),  # nothing was written: nobody can have run
        (0, True, True),
        (1, False, False),  # it may have run
        (1, True, True),  # once more
        (2, True, False),
        (2, False, False),
    ],
)
def test_what_is_sent_again(handed: int, idempotent: bool, again: bool) -> None:
    assert may_be_sent(handed, idempotent=idempotent) is again


@pytest.mark.parametrize(
    ("phase", "handed", "usable", "status"),
    [
        (Phase.SENT, 1, True, 408),  # the model is too slow
        (Phase.SENT, 2, False, 408),
        (Phase.STREAMING, 1, False, 408),  # its answer stands still
        (Phase.WAITING, 0, True, 408),  # there were instances, and never room
        (Phase.WAITING, 0, False, 503),  # it waited for an instance that did not come
        (Phase.WAITING, 1, False, 502),  # its instance died, and no other came
        (Phase.WAITING, 1, True, 502),
        (Phase.CONNECTING, 0, False, 503),
        (Phase.CONNECTING, 1, False, 502),
    ],
)
def test_what_a_request_is_told_at_its_deadline(phase: Phase, handed: int, usable: bool, status: int) -> None:
    assert at_deadline(phase, handed, instance_usable=usable).status == status
