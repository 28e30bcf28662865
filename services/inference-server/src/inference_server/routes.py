"""What a model offers: which paths call user code, which are answered at once, and how each tells a fault.

Pure: tables. `Scoring` looks a request's path up in them; `script`, `mlflow_model` and `v2` fill them at start, so
that a request pays nothing for the protocols that its deployment does not speak.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from inference_server.http import Request
from inference_server.inputs import Arguments
from inference_server.settings import Settings

PAGE_METHODS = ("GET", "HEAD", "OPTIONS")
MLFLOW_CODES = {400: "BAD_REQUEST", 404: "RESOURCE_DOES_NOT_EXIST"}


@dataclass(frozen=True)
class Call:
    """A path that calls user code."""

    parse: Callable[[Request], Arguments]  # raises InputError
    run: Callable[..., Any]  # user code; raises InputError where it finds the input unfit
    methods: frozenset[str] = frozenset({"POST"})  # that call it
    allow: tuple[str, ...] = ("POST", "OPTIONS")  # that are told with a 405


Page = Callable[[Request], "tuple[str, bytes]"]  # the content type and the body of a 200; raises InputError


@dataclass(frozen=True)
class Routes:
    """By path, without the query."""

    calls: dict[str, Call] = field(default_factory=dict)
    pages: dict[str, Page] = field(default_factory=dict)

    def beside(self, others: Routes) -> Routes:
        return Routes({**self.calls, **others.calls}, {**self.pages, **others.pages})


class Model(Protocol):
    """What a server serves: a script or an MLflow model."""

    def initialise(self) -> None:
        """Gets it ready to score. Raises ScriptError."""

    def routes(self, settings: Settings) -> Routes:
        """Raises ScriptError where it cannot be called."""


def fault(path: str, status: int, text: str) -> dict[str, Any]:
    """The JSON document that tells a fault, in the manner of the path's protocol."""
    if path == "/v2" or path.startswith("/v2/"):
        return {"error": text}
    if path == "/invocations":
        return {"error_code": MLFLOW_CODES.get(status, "INTERNAL_ERROR"), "message": text}
    return {"message": text}


def fixed(kind: str, body: bytes) -> Page:
    """A page that is always the same."""
    return lambda request: (kind, body)
