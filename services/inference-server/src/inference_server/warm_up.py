"""Warm-up: a sample request is scored after `init()` and before the server says that it is ready.

So the first real request finds lazy imports done and caches filled, and a model that cannot score never gets traffic.
"""

from __future__ import annotations

import logging
import mimetypes
import time

from inference_server.http import Request
from inference_server.scoring import Scoring
from inference_server.script import ScriptError, said
from inference_server.settings import Settings

MAX_TOLD = 2000  # characters of the failed answer in the message

log = logging.getLogger(__name__)


def run(scoring: Scoring, settings: Settings) -> None:
    """Scores `ENDPUNKT_WARMUP_FILE`'s bytes as a `POST` to `/score`, or to the v2 protocol's path where they are meant
    for that; nothing without that file. To be called in each worker process, on the thread that will call `run()`.
    Raises ScriptError for anything but a 2xx."""
    path = settings.warm_up_file
    if path is None:
        return
    from inference_server import monitoring

    try:
        body = path.read_bytes()
    except OSError as error:
        raise ScriptError("UserScriptInitFailed", f"The warm-up request {path} cannot be read: {error}") from error
    kind = mimetypes.guess_type(path.name)[0] or "application/json"
    headers = {"content-type": kind, "content-length": str(len(body)), "user-agent": "endpunkt-warm-up"}
    target = "/score"
    if settings.protocol == "v2":
        from inference_server import v2

        target = v2.sample_path(settings, body)
    started = time.perf_counter()
    try:
        with monitoring.paused():  # it is nobody's request
            reply = scoring.invoke(Request("POST", target, headers, body, False, False))
            answer = reply.body + b"".join(reply.rest or ())
    except Exception as error:
        message = f"The stream that answers the warm-up request {path.name} broke off: {said(error)}"
        raise ScriptError("UserScriptInitFailed", message) from error
    status = int(reply.head.split(b" ", 2)[1])
    if not 200 <= status < 300:
        text = answer.decode("utf-8", "replace")[:MAX_TOLD]
        raise ScriptError(
            "UserScriptInitFailed",
            f"The warm-up request {path.name} was answered with the status {status}: {text}",
        )
    log.info("The warm-up request was answered with %d after %.3f s", status, time.perf_counter() - started)
