"""Which endpoint a request is for, and which path of the model it means.

PURE: bytes in, bytes out. No table, no clock and no I/O may enter this module.
"""


class BadTarget(ValueError):
    """The request's target is neither a path nor an http(s) URL."""


def target(url: bytes, host: bytes, suffix: bytes) -> tuple[bytes, bytes]:
    """The endpoint's name in lower case (names differ by more than case, as DNS wants it; empty when there is none) and
    the path and query for the model.

    By host, `<endpoint><suffix>` (suffix such as `.local.inference.localhost`), the whole path is the model's; by path,
    `/<endpoint>/score`, what follows the name is. An absolute-form target's authority replaces Host (RFC 9112, 3.2.2).
    """
    if url[:1] != b"/":
        scheme, separator, rest = url.partition(b"://")
        if not separator or scheme.lower() not in (b"http", b"https"):
            raise BadTarget(url)
        end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
        host, url = rest[:end], rest[end:]
        if url[:1] != b"/":
            url = b"/" + url
    host = host.lower()
    colon = host.rfind(b":")
    if colon >= 0:
        host = host[:colon]
    if host.endswith(suffix):
        return host[: -len(suffix)], url
    path, question, query = url.partition(b"?")
    name, _, rest = path[1:].partition(b"/")
    return name.lower(), b"/" + rest + question + query
