"""`azureml.ai.monitoring` for scripts: `Collector` and its correlation contexts.

The names, arguments, checks and texts are azureml-ai-monitoring's (1.0). That package hands its data to a process
beside the model that only Azure has, so scripts get this one even where it is installed. In one thing it differs: an
event that finds the queue full is dropped and counted, and `on_error` is told only if the script gave one, so that
collecting never fails an answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from inference_server.collected_files import CollectedFiles
from inference_server.collection import Collections, Event, attribute

_collections = Collections()
_files: CollectedFiles | None = None
_paused = False


@contextlib.contextmanager
def paused() -> Iterator[None]:
    """Nothing is collected meanwhile; everything else is as ever."""
    global _paused
    _paused = True
    try:
        yield
    finally:
        _paused = False


def use(collections: Collections, files: CollectedFiles) -> None:
    """Where collectors write from now on."""
    global _collections, _files
    _collections, _files = collections, files


def close() -> None:
    """Finishes what was collected; for exits that call no exit handlers."""
    if _files is not None:
        _files.close()


class CorrelationContext:
    """What belongs together: the id of a request, when it was, and what else is told of it."""

    @staticmethod
    def get_id() -> str:
        return ""

    def __str__(self) -> str:
        return self.get_id()

    def __repr__(self) -> str:
        return str(self)


class BasicCorrelationContext(CorrelationContext):
    """A context with an id (random if none is given), a time (seconds since 1970) and headers, which become
    attributes of the events."""

    def __init__(self, id: str | None = None, timestamp: int | None = None, headers: Mapping[str, str] | None = None):
        self.id = id or str(uuid4())
        self.timestamp = timestamp or int(time.time())
        self.headers = dict(headers or {})

    def get_id(self) -> str:  # type: ignore[override]  # Azure's base class has a static method here
        return self.id

    def get_timestamp(self) -> int:
        return self.timestamp

    def get_headers(self) -> dict[str, str]:
        return self.headers


def get_context() -> CorrelationContext:
    return BasicCorrelationContext()


class Collector:
    """Collects DataFrames into the collection `name`. `on_error` is called with an exception; by default it raises."""

    def __init__(self, *, name: str, on_error: Callable[[Exception], Any] | None = None):
        self.name = name
        self._given = on_error
        self._on_error: Callable[[Exception], Any] = on_error or _raise
        self._refusal()

    def collect(self, data: Any, correlation_context: CorrelationContext | None = None) -> CorrelationContext:
        """Takes a pandas DataFrame; returns the context, for the collectors of the same request."""
        context = correlation_context or get_context()
        if self._refusal() or _files is None or not _collections.sampled(context.get_id()):
            return context
        to_json = getattr(data, "to_json", None)
        if type(data).__name__ != "DataFrame" or to_json is None:
            kind = type(data).__name__
            self._on_error(TypeError(f"data type ({kind}) not supported, supported types: pandas.DataFrame"))
            return context
        headers: Mapping[str, str] = getattr(context, "get_headers", dict)()
        timestamp = getattr(context, "get_timestamp", time.time)()
        frame = type(data)
        attributes = {attribute(name): str(value) for name, value in headers.items()}
        attributes["collectdatatype"] = f"{frame.__module__}.{frame.__qualname__}"
        event = Event(
            self.name.lower(),
            str(uuid4()),
            datetime.fromtimestamp(timestamp, timezone.utc),
            context.get_id(),
            to_json(orient="records"),
            attributes=attributes,
        )
        if not _paused and not _files.put(event) and self._given is not None:
            self._given(Exception("payload queue is full, drop the data"))
        return context

    def _refusal(self) -> bool:
        """Whether nothing can be collected; `on_error` has been told why."""
        problem = ""
        if not self.name:
            problem = "collection name is not provided"
        elif not _collections.custom:
            problem = "custom logging is not enabled, drop the data"
        elif self.name.lower() not in _collections.enabled:
            problem = f"collection {self.name} is not enabled, drop the data"
        if problem:
            self._on_error(Exception(problem))
        return bool(problem)


def _raise(error: Exception) -> None:
    raise error
