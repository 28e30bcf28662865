"""Pages of other origins (CORS): which may call an endpoint, and the headers that tell their browser so.

PURE: bytes in, header lines out. No clock and no I/O may enter this module.
Source: the Fetch standard, "CORS protocol". The router answers a preflight request itself, without a key, as browsers
send none; what a model says of origins is dropped, since a header that comes twice is refused by browsers.
"""

from router.outcomes import PREFLIGHT, Refusal

_MAX_AGE_SECONDS = 600
_EXPOSED = (
    b"x-request-id, x-ms-client-request-id, azureml-model-deployment, ms-azureml-model-error-statuscode, "
    b"ms-azureml-model-error-reason"
)
ANY = b"*"


def allowed(origin: bytes, origins: frozenset[bytes]) -> bytes:
    """The header lines of an answer to a page of `origin`; none when it may not read the answer."""
    if ANY in origins:
        shown, vary = ANY, b""
    elif origin.lower() in origins:
        shown, vary = origin, b"vary: origin\r\n"
    else:
        return b""
    return b"access-control-allow-origin: %b\r\naccess-control-expose-headers: %b\r\n%b" % (shown, _EXPOSED, vary)


def preflight(asked_headers: bytes) -> Refusal:
    """The answer to a browser's question whether a page may send a request, with `asked_headers`."""
    lines = (
        b"access-control-allow-methods: DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT\r\n"
        b"access-control-max-age: %d\r\n" % _MAX_AGE_SECONDS
    )
    if asked_headers:
        lines += b"access-control-allow-headers: %b\r\n" % asked_headers
    return PREFLIGHT.with_headers(lines)
