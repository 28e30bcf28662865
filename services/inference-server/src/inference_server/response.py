"""`AMLResponse`: how a script answers with its own status, headers and bytes. Scripts import it through `compat`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from wsgiref.headers import Headers

TEXT = "text/html; charset=utf-8"  # Flask's default, which Azure's AMLResponse inherits
FAILED = "x-ms-run-function-failed"


class ResponseHeaders(Headers):
    """Header fields in order, names in any case; `h[name] = value` replaces, `add` repeats. Values are made strings."""

    def __setitem__(self, name: str, value: object) -> None:
        super().__setitem__(name, str(value))

    def add(self, name: str, value: object) -> None:
        self.add_header(name, str(value))

    def update(self, fields: Mapping[str, object]) -> None:
        for name, value in fields.items():
            self[name] = value


class AMLResponse:
    """Answers `message` as it is: a str, bytes, or an iterable of these that is sent piece by piece.

    With `json_str` the message is any value, sent as JSON; None is sent as `{}`. A comma in a value of
    `response_headers` separates repeated fields, as in Azure's class.
    """

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: Mapping[str, str] = {},  # Azure's signature; it is only read
        json_str: bool = False,
        run_function_failed: bool = False,
    ):
        self.status_code = status_code
        self.headers = ResponseHeaders()
        self.response: bytes | Iterable[str | bytes]
        if json_str or message is None:
            self.response = json.dumps({} if message is None else message).encode()
            self.headers["Content-Type"] = "application/json"
        else:
            self.response = _payload(message)
            if not any(name.lower() == "content-type" for name in response_headers):
                self.headers["Content-Type"] = TEXT
        self.headers[FAILED] = str(run_function_failed)
        for name, values in response_headers.items():
            for value in values.split(","):
                self.headers.add(name, value.strip())

    @property
    def is_streamed(self) -> bool:
        return not isinstance(self.response, bytes)

    @property
    def content_type(self) -> str | None:
        return self.headers["Content-Type"]

    @content_type.setter
    def content_type(self, value: str) -> None:
        self.headers["Content-Type"] = value

    @property
    def data(self) -> bytes:
        """The body. Setting it takes a str or bytes."""
        body: bytes = self.get_data()
        return body

    @data.setter
    def data(self, value: str | bytes) -> None:
        self.response = piece(value)

    def get_data(self, as_text: bool = False) -> Any:
        """The body: bytes, or with `as_text` a string. Raises TypeError for a streamed body."""
        if not isinstance(self.response, bytes):
            raise TypeError("A streamed response has no data before it is sent.")
        return self.response.decode() if as_text else self.response


def _payload(message: Any) -> bytes | Iterable[str | bytes]:
    if isinstance(message, (str, bytes, bytearray)):
        return piece(message)
    if isinstance(message, (list, tuple)):
        return b"".join(piece(item) for item in message)
    if isinstance(message, Mapping) or not isinstance(message, Iterable):
        raise TypeError(
            f"AMLResponse cannot send {type(message).__name__} as it is: give a str, bytes or an iterable of "
            "these, or json_str=True to send it as JSON."
        )
    return message


def piece(value: object) -> bytes:
    """One piece of a body as bytes. Raises TypeError."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    raise TypeError(f"A response is made of str or bytes, not of {type(value).__name__}.")
