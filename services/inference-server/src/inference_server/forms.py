"""HTML forms: urlencoded and multipart bodies, for scripts that read `request.form` and `request.files`.

Pure: bytes in, values out. Multipart is split here because the standard library's parsers are made for mail text
and a file's bytes must come out unchanged.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from email.message import Message
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

T = TypeVar("T")


class FormError(ValueError):
    """A body is not the form that its Content-Type announces."""


class MultiDict(dict[str, T], Generic[T]):
    """The first value of each key, as Flask's `request.args` and `request.form`; `getlist` has all of them."""

    def __init__(self, pairs: Iterable[tuple[str, T]] = ()):
        super().__init__()
        self._lists: dict[str, list[T]] = {}
        for key, value in pairs:
            self.setdefault(key, value)
            self._lists.setdefault(key, []).append(value)

    def get(self, key: str, default: Any = None, type: Callable[[Any], Any] | None = None) -> Any:
        """With `type`, the value made one; the default where it cannot be."""
        if key not in self:
            return default
        try:
            return self[key] if type is None else type(self[key])
        except (TypeError, ValueError):
            return default

    def getlist(self, key: str) -> list[T]:
        return list(self._lists.get(key, ()))

    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        return dict(self) if flat else {key: list(values) for key, values in self._lists.items()}


class UploadedFile(io.BytesIO):
    """One file of a form: readable like a file, with the names that Flask's FileStorage has."""

    def __init__(self, content: bytes, name: str, filename: str, content_type: str):
        super().__init__(content)
        self.name = name
        self.filename = filename
        self.content_type = self.mimetype = content_type

    @property
    def stream(self) -> io.BytesIO:
        return self

    def save(self, destination: str | Path) -> None:
        Path(destination).write_bytes(self.getvalue())


def parse_query(query: str) -> list[tuple[str, str]]:
    return parse_qsl(query, keep_blank_values=True)


def parse_form(content_type: str, body: bytes) -> tuple[MultiDict[str], MultiDict[UploadedFile]]:
    """The fields and the files of a form; both empty for any other content type. Raises FormError."""
    described = _describe("content-type", content_type)
    kind = described.get_content_type()
    if kind == "application/x-www-form-urlencoded":
        return MultiDict(parse_query(body.decode("utf-8", "replace"))), MultiDict()
    if kind != "multipart/form-data":
        return MultiDict(), MultiDict()
    boundary = described.get_param("boundary", header="content-type")
    if not isinstance(boundary, str) or not boundary:
        raise FormError("A multipart form has no boundary in its Content-Type.")
    fields: list[tuple[str, str]] = []
    files: list[tuple[str, UploadedFile]] = []
    for head, content in _parts(body, b"--" + boundary.encode("latin-1", "replace")):
        disposition = _describe("content-disposition", head.get("content-disposition", ""))
        name = disposition.get_param("name", header="content-disposition")
        filename = disposition.get_filename()
        if not isinstance(name, str):
            raise FormError("A part of a multipart form has no name.")
        if filename is None:
            fields.append((name, content.decode("utf-8", "replace")))
        else:
            kind = head.get("content-type", "application/octet-stream")
            files.append((name, UploadedFile(content, name, filename, kind)))
    return MultiDict(fields), MultiDict(files)


def _parts(body: bytes, delimiter: bytes) -> Iterable[tuple[dict[str, str], bytes]]:
    _preamble, *segments = (b"\r\n" + body).split(b"\r\n" + delimiter)
    for segment in segments:
        if segment.startswith(b"--"):
            return
        head, separator, content = segment.partition(b"\r\n\r\n")
        if not separator:
            break
        lines = (line.partition(":") for line in head.decode("utf-8", "replace").split("\r\n"))
        yield {name.strip().lower(): value.strip() for name, _, value in lines}, content
    raise FormError("A multipart form is cut off: its closing boundary is missing.")


def _describe(name: str, value: str) -> Message:
    message = Message()
    message[name] = value
    return message
