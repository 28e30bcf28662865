"""One request, one reply: routes, input, `run()`, output. Knows nothing of connections, threads or deadlines.

`answer` is for the event loop and never runs user code; `score` is for a worker and does. The routes are `GET /`
(health) and `GET|POST|OPTIONS /score`; with `@rawhttp`, every method of these goes to `run()`.
"""

import json
import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

from inference_server.http import Request
from inference_server.inputs import Arguments, InputError
from inference_server.replies import (
    NOT_ALLOWED,
    NOT_FOUND,
    SCRIPT_FAILED,
    Replies,
    Reply,
    UnsendableOutput,
    correlate,
)
from inference_server.script import Script
from inference_server.workers import ScoringTimeout

log = logging.getLogger(__name__)

HEALTH_METHODS = ("GET", "HEAD", "OPTIONS")
SCORE_METHODS = ("GET", "POST", "OPTIONS", "HEAD")  # HEAD only for a script that sees every method


class Scoring:
    def __init__(self, script: Script, replies: Replies, timeout_ms: int):
        """Raises ScriptError where `run()` cannot be called."""
        self._parse: Callable[[Request], Arguments] = script.input_parser()
        self._run: Callable[..., Any] = script.run
        self._replies = replies
        self._raw = script.raw_http
        self._timeout_ms = timeout_ms

    def answer(self, request: Request) -> Reply | None:
        """The reply to a request that needs no `run()`, else None."""
        path = request.target.partition("?")[0]
        method = request.method
        if path == "/score" and (method in ("POST", "GET") or (self._raw and method in SCORE_METHODS)):
            return None
        headers = request.headers
        ids, problem = correlate(headers)
        methods = {"/": HEALTH_METHODS, "/score": SCORE_METHODS}.get(path)
        if methods is None:
            return self._replies.error(headers, ids, 404, NOT_FOUND)
        if method not in methods or (path == "/score" and method == "HEAD"):
            return self._replies.error(headers, ids, 405, NOT_ALLOWED, allow=methods)
        if problem:
            return self._replies.error(headers, ids, 431, problem)
        if method == "OPTIONS":
            return self._replies.options(headers, ids)
        return self._replies.health(headers, ids)

    def score(self, request: Request) -> Reply:
        """Runs the script. Raises ScoringTimeout when a worker interrupts it, and nothing else."""
        headers = request.headers
        ids, problem = correlate(headers)
        if problem:
            return self._replies.error(headers, ids, 431, problem)
        try:
            arguments = self._parse(request)
        except InputError as error:
            return self._replies.error(headers, ids, error.status, error.text)
        started = time.perf_counter()
        try:
            output = self._run(**arguments)
            elapsed_ms = (time.perf_counter() - started) * 1000
            return self._replies.output(headers, ids, output, elapsed_ms)
        except ScoringTimeout:
            raise
        except UnsendableOutput as error:
            log.error("%s (%s)", error, _one_line(ids))
            return self._replies.error(headers, ids, 500, str(error), failed=True)
        except BaseException as error:
            log.error("Encountered Exception: %s(%s)", traceback.format_exc(), _one_line(ids))
            return self._replies.error(headers, ids, 500, SCRIPT_FAILED + _about_the_body(error, request), failed=True)

    def timed_out(self, request: Request) -> Reply:
        text = f"Scoring timeout after {self._timeout_ms} ms"
        ids, _ = correlate(request.headers)
        return self._replies.error(request.headers, ids, 500, text, failed=True)

    def refused(self, status: int, text: str) -> Reply:
        """The reply to bytes that are not a request."""
        return self._replies.error({}, correlate({})[0], status, text)


def _about_the_body(error: BaseException, request: Request) -> str:
    """Azure's text does not name the script's exception, which is not the caller's business. What is wrong with the
    caller's own body is, so that alone is told."""
    if isinstance(error, json.JSONDecodeError) and error.doc == request.body.decode("utf-8", "replace"):
        return f" The request's body is not JSON: {error}"
    return ""


def _one_line(ids: str) -> str:
    return ids.rstrip().replace("\r\n", ", ")
