"""Which endpoint a request is for, and which path of the model it means.

PURE: bytes in, bytes out. No table, no clock and no I/O may enter this module.
"""


class BadTarget(ValueError):
    """The request's target is neither a path nor an http(s) URL."""


def target(url: bytes, host: bytes, suffix: bytes) -> tuple[bytes, bytes]:
    """The endpoint's name in lower case (names differ by more than case, as DNS wants it; empty when there is none) and
    the path and query for the model.

    By host, `<endpoint><suffix>` (suffix such as `.local.inference.localhost`), the whole path is the model's; by path,
    `/<endpoint>/score`, what follows the name is. Raises BadTarget for what `origin_form` left as it was.
    """
    if url[:1] != b"/":
        raise BadTarget(url)
    host = host.lower()
    colon = host.rfind(b":")
    if colon >= 0:
        host = host[:colon]
    if host.endswith(suffix):
        return host[: -len(suffix)], url
    path, question, query = url.partition(b"?")
    name, _, rest = path[1:].partition(b"/")
    return name.lower(), b"/" + rest + question + query


def origin_form(
    url: bytes, headers: list[tuple[bytes, bytes]], version: str
) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The path of an absolute-form target, and the headers with its authority as their Host: the client's own is
    ignored, and the model sees the one that the request was routed by (RFC 9112, 3.2.2). HTTP/1.1 asks for a Host all
    the same, so a missing one stays missing. Any other target stays as it is: without an authority, or with a user's
    name in it (RFC 9110, 4.2.4), it is none.
    """
    scheme, separator, rest = url.partition(b"://")
    end = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not separator or scheme.lower() not in (b"http", b"https") or authority[:1] in (b"", b":") or b"@" in authority:
        return url, headers
    replaced = [(name, authority if name.lower() == b"host" else value) for name, value in headers]
    if version == "1.0" and not any(name.lower() == b"host" for name, _ in headers):
        replaced.append((b"host", authority))
    return path if path[:1] == b"/" else b"/" + path, replaced
