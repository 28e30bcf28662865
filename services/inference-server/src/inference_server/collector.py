"""The data collector: payloads of scoring requests, and what scripts hand to `azureml.ai.monitoring`'s `Collector`.

`collection` decides what an event is, `collected_files` writes it, `monitoring` is what scripts import. Here they are
put together for a server process.
"""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable
from datetime import datetime, timezone
from uuid import uuid4

from inference_server import __version__, monitoring
from inference_server.collected_files import CollectedFiles
from inference_server.collection import PAYLOADS, CollectionError, Collections, Event, captured, folder, line, read
from inference_server.http import Request
from inference_server.replies import Reply
from inference_server.settings import Settings, SettingsError

Scorer = Callable[[Request], Reply]
AGENT = f"endpunkt/{__version__}"

log = logging.getLogger(__name__)


def start(settings: Settings) -> Callable[[Scorer], Scorer] | None:
    """Gets `Collector` ready for scripts, and gives the wrapper for `Scoring.score` where payloads are collected. Call
    before the script is imported, and only where there are settings of a collector. Raises SettingsError."""
    if settings.collector_folder is None:
        return None
    try:
        collections = read(settings.collector)
    except CollectionError as error:
        raise SettingsError(f"ENDPUNKT_COLLECTOR: {error}") from None
    source = f"/onlineEndpoints/{settings.endpoint}/deployments/{settings.deployment}"
    files = CollectedFiles(
        settings.collector_folder,
        lambda event: folder(collections, settings.endpoint, settings.deployment, event.collection, event.at),
        lambda event: line(event, source, AGENT),
    )
    atexit.register(files.close)
    monitoring.use(collections, files)
    log.info("Collecting %s", ", ".join(sorted(collections.enabled)) or "nothing")
    return payloads(collections, files) if collections.enabled & set(PAYLOADS) else None


def payloads(collections: Collections, files: CollectedFiles) -> Callable[[Scorer], Scorer]:
    """Watches a scorer: what it is asked and what it answers. A stream's answer is told without its data."""

    def watched(score: Scorer) -> Scorer:
        def seen(request: Request) -> Reply:
            asked = datetime.now(timezone.utc)
            reply = score(request)
            try:
                _collect(collections, files, request, reply, asked)
            except Exception:
                log.exception("A request's payloads could not be collected.")
            return reply

        return seen

    return watched


def _collect(collections: Collections, files: CollectedFiles, request: Request, reply: Reply, asked: datetime) -> None:
    head = b"\r\n" + reply.head
    correlation_id = _field(head, b"x-request-id")
    if not collections.sampled(correlation_id):
        return
    attributes = captured(request.headers, collections.headers)
    if "request" in collections.enabled:
        told = {**attributes, "path": request.target, "method": request.method}
        kind = request.headers.get("content-type", "application/json")
        files.put(Event("request", str(uuid4()), asked, correlation_id, request.body, kind, told))
    if "response" in collections.enabled:
        told = {**attributes, "path": request.target, "statuscode": reply.head.split(b" ", 2)[1].decode()}
        data = reply.body if reply.rest is None else b""
        kind = _field(head, b"content-type")
        files.put(Event("response", str(uuid4()), datetime.now(timezone.utc), correlation_id, data, kind, told))


def _field(head: bytes, name: bytes) -> str:
    """A header field's value, "" where there is none. `name` in lower case."""
    start = head.lower().find(b"\r\n" + name + b": ")
    if start < 0:
        return ""
    start += len(name) + 4
    return head[start : head.find(b"\r\n", start)].decode("latin-1")
