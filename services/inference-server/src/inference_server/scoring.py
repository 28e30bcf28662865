"""One request, one reply: route, input, user code, output. Knows nothing of connections, threads or deadlines.

`answer` is for the event loop and never runs user code; `score` is for a worker and does. Which paths there are is the
model's matter (`routes`): a script has `/score`, where with `@rawhttp` every method goes to `run()`.
"""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable

from inference_server.http import Request
from inference_server.inputs import InputError
from inference_server.replies import (
    NOT_ALLOWED,
    NOT_FOUND,
    SCRIPT_FAILED,
    Replies,
    Reply,
    UnsendableOutput,
    correlate,
)
from inference_server.routes import PAGE_METHODS, Routes, fault
from inference_server.workers import ScoringTimeout

log = logging.getLogger(__name__)

Scorer = Callable[[Request], Reply]
UNREADABLE = "The request could not be read. Check the logs for more info."


class Scoring:
    def __init__(
        self,
        routes: Routes,
        replies: Replies,
        timeout_ms: int,
        max_response_bytes: int = 2**63,
        watched: Callable[[Scorer], Scorer] | None = None,
    ):
        """`watched` wraps `score`, for whoever wants to see each request and its reply."""
        self._calls = routes.calls
        self._pages = routes.pages
        self._replies = replies
        self._timeout_ms = timeout_ms
        self._max_response_bytes = max_response_bytes
        self.score: Scorer = self.invoke if watched is None else watched(self.invoke)

    def answer(self, request: Request) -> Reply | None:
        """The reply to a request that needs no user code, else None."""
        target = request.target
        call = self._calls.get(target) or self._calls.get(target.partition("?")[0])
        if call is not None and request.method in call.methods:
            return None
        path = target.partition("?")[0]
        headers = request.headers
        ids, problem = correlate(headers)
        page = self._pages.get(path)
        if call is None and page is None and path != "/":
            return self._error(request, ids, 404, NOT_FOUND)
        allow = PAGE_METHODS if call is None else call.allow
        if request.method not in allow or (call is not None and request.method == "HEAD"):
            return self._error(request, ids, 405, NOT_ALLOWED, allow=allow)
        if problem:
            return self._error(request, ids, 431, problem)
        if request.method == "OPTIONS":
            return self._replies.options(headers, ids)
        if page is None:
            return self._replies.health(headers, ids)
        try:
            return self._replies.page(headers, ids, *page(request))
        except InputError as error:
            return self._error(request, ids, error.status, error.text)

    def invoke(self, request: Request) -> Reply:
        """Calls user code. Raises ScoringTimeout when a worker interrupts it, and nothing else."""
        headers = request.headers
        ids, problem = correlate(headers)
        if problem:
            return self._error(request, ids, 431, problem)
        call = self._calls.get(request.target) or self._calls[request.target.partition("?")[0]]
        try:
            arguments = call.parse(request)
        except InputError as error:
            return self._error(request, ids, error.status, error.text)
        except ScoringTimeout:
            raise
        except Exception:  # what no parser foresaw must not end the worker
            log.error("The request cannot be read: %s(%s)", traceback.format_exc(), _one_line(ids))
            return self._error(request, ids, 500, UNREADABLE)
        started = time.perf_counter()
        try:
            output = call.run(**arguments)
            elapsed_ms = (time.perf_counter() - started) * 1000
            reply = self._replies.output(headers, ids, output, elapsed_ms)
            if len(reply.body) > self._max_response_bytes:
                raise UnsendableOutput(
                    f"run() returned {len(reply.body)} bytes; an answer may have {self._max_response_bytes}."
                )
            return reply
        except ScoringTimeout:
            raise
        except InputError as error:
            return self._error(request, ids, error.status, error.text)
        except UnsendableOutput as error:
            log.error("%s (%s)", error, _one_line(ids))
            return self._error(request, ids, 500, str(error), failed=True)
        except BaseException as error:
            log.error("Encountered Exception: %s(%s)", traceback.format_exc(), _one_line(ids))
            return self._error(request, ids, 500, SCRIPT_FAILED + _about_the_body(error, request), failed=True)

    def timed_out(self, request: Request) -> Reply:
        text = f"Scoring timeout after {self._timeout_ms} ms"
        ids, _ = correlate(request.headers)
        return self._error(request, ids, 500, text, failed=True)

    def refused(self, status: int, text: str) -> Reply:
        """The reply to bytes that are not a request."""
        return self._replies.error({}, correlate({})[0], status, text)

    def _error(
        self,
        request: Request,
        ids: str,
        status: int,
        text: str,
        *,
        failed: bool = False,
        allow: tuple[str, ...] = (),
    ) -> Reply:
        document = fault(request.target.partition("?")[0], status, text)
        return self._replies.error(request.headers, ids, status, text, failed=failed, allow=allow, document=document)


def _about_the_body(error: BaseException, request: Request) -> str:
    """Azure's text does not name the script's exception, which is not the caller's business. What is wrong with the
    caller's own body is, so that alone is told."""
    if isinstance(error, json.JSONDecodeError) and error.doc == request.body.decode("utf-8", "replace"):
        return f" The request's body is not JSON: {error}"
    return ""


def _one_line(ids: str) -> str:
    return ids.rstrip().replace("\r\n", ", ")
