"""The answers that the router gives itself: one table of status, code, cause and next step.

PURE: values and bytes. No clock and no I/O may enter this module.
Source of the statuses: Azure ML's "status codes of a scoring request"; 400, 405, 417, 431 and 501 are HTTP's own.
"""

import json
from dataclasses import dataclass, replace
from http import HTTPStatus


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer without a model. `close` says that the connection cannot be used any further."""

    status: int
    code: str
    message: str
    close: bool = False
    headers: bytes = b""

    def about(self, **details: object) -> "Refusal":
        """The same with the message's gaps filled."""
        return replace(self, message=self.message.format(**details))

    def with_headers(self, lines: bytes) -> "Refusal":
        """The same with more header lines."""
        return replace(self, headers=self.headers + lines)


_RETRY = b"retry-after: 1\r\n"

PREFLIGHT = Refusal(200, "", "")
"""No refusal, but an answer of the router's own all the same: without a body."""

MALFORMED = Refusal(400, "BadRequest", "This is not a well-formed HTTP/1.1 request: {reason}.", close=True)
BAD_TARGET = Refusal(400, "BadRequest", "The target must be a path such as /score, or an http(s) URL.", close=True)
UNAUTHORIZED = Refusal(
    401,
    "Unauthorized",
    "The request carries no key of endpoint '{endpoint}', or a wrong one: send the header 'Authorization: Bearer KEY'; "
    "`endpunkt online-endpoint get-credentials -n {endpoint}` shows both keys.",
    headers=b"www-authenticate: Bearer\r\n",
)
TOKEN_REFUSED = Refusal(
    401,
    "Unauthorized",
    "Endpoint '{endpoint}' takes a token (Authorization: Bearer TOKEN), and of this request's one: {reason}. Get a new "
    "one: `endpunkt online-endpoint get-credentials -n {endpoint}`, or ask your issuer.",
    headers=b"www-authenticate: Bearer\r\n",
)
NO_ISSUER = Refusal(
    401,
    "Unauthorized",
    "Endpoint '{endpoint}' takes tokens of an issuer (aad_token), and the router knows none: set its "
    "ENDPUNKT_OIDC_ISSUER.",
    headers=b"www-authenticate: Bearer\r\n",
)
NOT_ALLOWED = Refusal(
    403,
    "Forbidden",
    "The token is good but does not let its bearer score on endpoint '{endpoint}': get the scoring role, or a token "
    "of this endpoint.",
)
NOT_PUBLIC = Refusal(
    403,
    "PublicNetworkAccessDisabled",
    "Endpoint '{endpoint}' answers on the private port alone (public_network_access: disabled): ask there, or "
    "have the router open one (its setting ENDPUNKT_PRIVATE_PORT).",
)
FOREIGN_NETWORK = Refusal(
    403,
    "NetworkNotAllowed",
    "Endpoint '{endpoint}' does not answer requests from {address}: ask from a network that its property "
    "endpunkt.allowed_networks lists, or have this one added.",
)
NO_ENDPOINT = Refusal(
    404,
    "EndpointNotFound",
    "There is no online endpoint '{endpoint}' here: name it in the host (<endpoint>{suffix}) or as the path's first "
    "part (/<endpoint>/score); `endpunkt online-endpoint list` shows those that exist.",
)
NO_DEPLOYMENT = Refusal(
    404,
    "DeploymentNotFound",
    "Endpoint '{endpoint}' has no deployment '{deployment}': correct the header azureml-model-deployment, or leave it "
    "out to follow the traffic split.",
)
NO_TRAFFIC = Refusal(
    404,
    "NoTraffic",
    "No deployment of endpoint '{endpoint}' gets traffic: set a split "
    '(endpunkt online-endpoint update -n {endpoint} --traffic "NAME=100"), '
    "or name one in the header azureml-model-deployment.",
)
BAD_METHOD = Refusal(
    405,
    "MethodNotAllowed",
    "The router passes DELETE, GET, HEAD, OPTIONS, PATCH, POST and PUT to a model, not {method}.",
    close=True,
    headers=b"allow: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n",
)
SLOW_CLIENT = Refusal(
    408, "RequestNotReceived", "The request did not arrive within {seconds:g} s: send it without pauses.", close=True
)
TIMED_OUT = Refusal(
    408,
    "RequestTimeout",
    "Deployment '{deployment}' did not answer within {timeout_ms} ms: make run() faster, or raise "
    "request_settings.request_timeout_ms (at most 180000).",
)
TOO_LARGE = Refusal(
    413,
    "RequestTooLarge",
    "The body exceeds {limit} bytes: send less at a time, or use a batch endpoint (the limit is the router's setting "
    "ENDPUNKT_MAX_BODY_BYTES).",
    close=True,
)
BAD_EXPECTATION = Refusal(417, "ExpectationFailed", "The only expectation understood is 100-continue.", close=True)
TOO_MANY = Refusal(
    429,
    "TooManyRequests",
    "Deployment '{deployment}' already has {limit} requests outstanding (2 x max_concurrent_requests_per_instance x "
    "instances): send fewer at a time, or add instances.",
    headers=_RETRY,
)
TOO_MANY_PER_SECOND = Refusal(
    429,
    "RateLimitExceeded",
    "Endpoint '{endpoint}' takes {limit} requests a second (endpunkt.requests_per_second): send fewer.",
    headers=_RETRY,
)
TOO_MANY_CONNECTIONS = Refusal(
    429,
    "TooManyConnections",
    "Endpoint '{endpoint}' takes {limit} connections at a time (endpunkt.connections): close some, or use them for "
    "more than one request.",
    close=True,
    headers=_RETRY,
)
QUEUED_TOO_LONG = Refusal(
    429,
    "QueueWaitExceeded",
    "No instance of deployment '{deployment}' had room within {queue_wait_ms} ms (max_queue_wait_ms): send fewer "
    "requests at a time, or add instances.",
    headers=_RETRY,
)
HEAD_TOO_LARGE = Refusal(
    431, "HeadersTooLarge", "The request's head exceeds {limit} bytes or {count} headers.", close=True
)
INTERNAL = Refusal(
    500, "InternalServerError", "The router failed on this request; its log has the cause under this x-request-id."
)
NOT_UNDERSTOOD = Refusal(501, "NotImplemented", "{what} is not supported: leave that header out.", close=True)
INSTANCE_DIED = Refusal(
    502,
    "InstanceDied",
    "The instance of deployment '{deployment}' that had the request died before it answered. The request may have run: "
    "send it again only if that is harmless. A deployment with the property endpunkt.idempotent: 'true' is retried.",
)
BAD_REPLY = Refusal(
    502,
    "InvalidModelResponse",
    "Deployment '{deployment}' answered with something that is not HTTP/1.1: look at its log "
    "(endpunkt online-deployment get-logs).",
)
NOT_READY = Refusal(
    503,
    "NoInstanceReady",
    "No instance of deployment '{deployment}' is ready, and the request was not handed to a model: try again later; "
    "`endpunkt online-deployment show` tells the deployment's state.",
    headers=_RETRY,
)

SWITCHED = 101
"""What is counted when a connection that had switched to another protocol has ended."""

CLIENT_GONE = 499
"""What is counted (nobody is left to be told) when the client hung up before its answer. nginx's number."""


def status_line(status: int, reason: bytes = b"") -> bytes:
    """The first line of a response. A status that HTTP has no name for takes `reason`."""
    line = _LINES.get(status)
    return b"HTTP/1.1 %d %b\r\n" % (status, reason) if line is None else line


_LINES = {status.value: b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode()) for status in HTTPStatus}


def answer(refusal: Refusal, ids: bytes, *, close: bool, body: bool = True) -> bytes:
    """The whole response. `ids` are header lines to include; `body` False leaves the body out (HEAD)."""
    text = b""
    if refusal.code:
        text = json.dumps({"error": {"code": refusal.code, "message": refusal.message}}).encode()
    return b"".join(
        (
            status_line(refusal.status),
            ids,
            refusal.headers,
            b"content-type: application/json\r\n" if text else b"",
            b"content-length: %d\r\n" % len(text),
            b"connection: close\r\n\r\n" if close else b"\r\n",
            text if body else b"",
        )
    )
