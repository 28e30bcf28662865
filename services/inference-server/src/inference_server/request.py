"""What a script with `@rawhttp` gets: `AMLRequest`, in the manner of the Flask request that Azure hands over.

Scripts import these names from Azure's packages, see `compat`. It offers the attributes that Azure documents and
their plain relatives, not all of Flask.
"""

from __future__ import annotations

import json
from collections.abc import Callable, ItemsView, Iterator, KeysView, Mapping
from functools import cached_property, lru_cache
from typing import Any, TypeVar

from inference_server.forms import MultiDict, UploadedFile, parse_form, parse_query
from inference_server.http import Request

F = TypeVar("F", bound=Callable[..., Any])

# Azure's own module has a flag of this name, and which module a script imports is the script's choice; so the
# decorator marks the module, not the function, there and here.
_rawHttpRequested = False


def rawhttp(func: F) -> F:
    """Asks for the raw HTTP request instead of the body as a string."""
    global _rawHttpRequested
    _rawHttpRequested = True
    return func


@lru_cache(maxsize=1024)
def title_case(name: str) -> str:
    """`x-request-id` -> `X-Request-Id`, as WSGI servers spell header names in `request_headers`."""
    return name.title()


class RequestHeaders:
    """Header fields by name in any case. Iterating yields pairs, as Flask's headers do."""

    def __init__(self, headers: Mapping[str, str]):
        self._headers = {title_case(name): value for name, value in headers.items()}

    def __getitem__(self, name: str) -> str:
        return self._headers[name.title()]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.title() in self._headers

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._headers.items())

    def __len__(self) -> int:
        return len(self._headers)

    def get(self, name: str, default: Any = None) -> Any:
        return self._headers.get(name.title(), default)

    def keys(self) -> KeysView[str]:
        return self._headers.keys()

    def items(self) -> ItemsView[str, str]:
        return self._headers.items()


class AMLRequest:
    """One HTTP request: `.method .path .headers .args .form .files .json .get_data()`."""

    def __init__(self, request: Request):
        self._request = request
        self.method = request.method
        self.path, _, query = request.target.partition("?")
        self.query_string = query.encode("latin-1")

    @cached_property
    def headers(self) -> RequestHeaders:
        return RequestHeaders(self._request.headers)

    @cached_property
    def args(self) -> MultiDict[str]:
        """The query's parameters."""
        return MultiDict(parse_query(self.query_string.decode("utf-8", "replace")))

    @cached_property
    def _form(self) -> tuple[MultiDict[str], MultiDict[UploadedFile]]:
        return parse_form(self.content_type, self._request.body)

    @property
    def form(self) -> MultiDict[str]:
        return self._form[0]

    @property
    def files(self) -> MultiDict[UploadedFile]:
        return self._form[1]

    @property
    def data(self) -> bytes:
        return self._request.body

    def get_data(self, cache: bool = True, as_text: bool = False) -> Any:
        """The body: bytes, or with `as_text` a string. `cache` is Flask's and changes nothing here."""
        return self._request.body.decode("utf-8", "replace") if as_text else self._request.body

    @property
    def content_type(self) -> str:
        return self._request.headers.get("content-type", "")

    @property
    def mimetype(self) -> str:
        return mimetype(self._request.headers)

    @property
    def content_length(self) -> int:
        return len(self._request.body)

    @property
    def is_json(self) -> bool:
        return is_json(self._request.headers)

    @property
    def json(self) -> Any:
        return self.get_json()

    def get_json(self, force: bool = False, silent: bool = False) -> Any:
        """The parsed body. Raises ValueError where it is not JSON (or not called so), unless `silent`."""
        try:
            if not (force or self.is_json):
                raise ValueError("The request's Content-Type is not application/json.")
            return json.loads(self._request.body)
        except ValueError:
            if silent:
                return None
            raise


def mimetype(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def is_json(headers: Mapping[str, str]) -> bool:
    kind = mimetype(headers)
    return kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))
