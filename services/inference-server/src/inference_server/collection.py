"""What is collected of requests, and how an event of it is written.

Pure: the settings' text, the time and the ids are arguments. An event is a CloudEvent in one line of JSON with the
attributes that Azure's data collector writes (learn.microsoft.com, "Collect production data from models deployed for
real-time inferencing"): specversion, id, source, type (`azureml.inference.<collection>`), datacontenttype, time, data,
correlationid, xrequestid, modelversion, collectdatatype, agent, contentrange; payloads have path and method, too, and
here statuscode. A captured header is an attribute of its name without what CloudEvents forbids: `X-User-Id` is
`xuserid`. Bytes that are no text are in `data_base64`, as CloudEvents' JSON format has it.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

PAYLOADS = ("request", "response")  # collected without a script's doing
MAX_DATA_BYTES = 4 * 2**20  # of one event's data; more is left out, and the event says so
ROLLING = {"year": "%Y", "month": "%Y/%m", "day": "%Y/%m/%d", "hour": "%Y/%m/%d/%H", "minute": "%Y/%m/%d/%H/%M"}
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")


class CollectionError(ValueError):
    """The data collector's settings cannot be used; the text says which and why."""


@dataclass(frozen=True)
class Collections:
    """The data collector's settings. `enabled` holds the collections' names in lower case."""

    enabled: frozenset[str] = frozenset()
    sampling_rate: float = 1.0
    rolling: str = ROLLING["hour"]  # strftime's format of the folder
    headers: tuple[str, ...] = ()  # names in lower case

    @property
    def custom(self) -> bool:
        """Whether anything but payloads is collected."""
        return bool(self.enabled - set(PAYLOADS))

    def sampled(self, correlation_id: str) -> bool:
        """The same for all that belongs to one request."""
        return self.sampling_rate >= 1 or zlib.crc32(correlation_id.encode()) < self.sampling_rate * 2**32


def read(text: str) -> Collections:
    """`ENDPUNKT_COLLECTOR`: the `data_collector` of a deployment as JSON. Raises CollectionError."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise CollectionError(f"it is not JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("collections"), dict):
        raise CollectionError("it must be an object with 'collections'")
    enabled = set()
    for name, collection in document["collections"].items():
        if not _NAME.match(name):
            raise CollectionError(f"{name!r} is no name of a collection (letters, digits, _ and -)")
        if str((collection or {}).get("enabled", True)).lower() == "true":
            enabled.add(name.lower())
    rate = document.get("sampling_rate", 1.0)
    if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
        raise CollectionError(f"sampling_rate is {rate!r}, not a number from 0 to 1")
    rolling = str(document.get("rolling_rate") or "hour").lower()
    if rolling not in ROLLING:
        raise CollectionError(f"rolling_rate is {rolling!r}, none of {', '.join(ROLLING)}")
    headers = (document.get("request_logging") or {}).get("capture_headers") or []
    names = tuple(str(name).lower() for name in headers)
    return Collections(frozenset(enabled), float(rate), ROLLING[rolling], names)


@dataclass(frozen=True)
class Event:
    """One thing to be written. `data` is a payload's bytes, or text that is JSON already."""

    collection: str
    id: str
    at: datetime  # UTC
    correlation_id: str
    data: bytes | str
    content_type: str = "application/json"
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return len(self.data)


def line(event: Event, source: str, agent: str) -> bytes:
    """The event as one line, with its line end."""
    body = event.data.encode() if isinstance(event.data, str) else event.data
    head = {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": f"azureml.inference.{event.collection}",
        "datacontenttype": event.content_type,
        "time": event.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    tail = {
        "correlationid": event.correlation_id,
        "xrequestid": event.correlation_id,
        "modelversion": "default",
        "agent": agent,
        "contentrange": f"bytes 0-{max(len(body) - 1, 0)}/{len(body)}",
    }
    extra = {name: value for name, value in event.attributes.items() if name not in head and name not in tail}
    document = {**head, **_data(event.content_type, body), **tail, **extra}
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _data(content_type: str, body: bytes) -> dict[str, Any]:
    if len(body) > MAX_DATA_BYTES:
        return {"dataomitted": f"larger than {MAX_DATA_BYTES} bytes"}
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        try:
            value = json.loads(body)
            json.dumps(value, allow_nan=False)  # Python reads NaN, 1e999 and deeper nesting than it writes
            return {"data": value}
        except (ValueError, RecursionError):
            pass
    try:
        return {"data": body.decode("utf-8")}
    except UnicodeDecodeError:
        return {"data_base64": base64.b64encode(body).decode()}


def captured(headers: Mapping[str, str], wanted: tuple[str, ...]) -> dict[str, str]:
    """The attributes of captured headers. `headers` by name in lower case."""
    return {attribute(name): headers[name] for name in wanted if name in headers and attribute(name)}


def attribute(name: str) -> str:
    """A header's name as CloudEvents allows attributes: `X-User-Id` -> `xuserid`."""
    return re.sub("[^a-z0-9]", "", name.lower())


def folder(collections: Collections, endpoint: str, deployment: str, collection: str, at: datetime) -> str:
    """Where a collection's files lie, below the collector's folder."""
    return f"{endpoint}/{deployment}/{collection}/{at.strftime(collections.rolling)}"
