"""`python -m inference_server [--fd N | --host H --port P]`: serves one script over HTTP.

Exit codes: 0 after draining, 2 for bad arguments, 3 for settings or a script that cannot be served, 4 where worker
processes died again and again (the reason of 3 and 4 is on stderr and in ENDPUNKT_STATUS_FILE), 143 or 130 at a second
signal.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import logging
import os
import socket
import sys
import time
from collections.abc import Callable

from inference_server import debug, models, script, warm_up
from inference_server.config_file import with_config_file
from inference_server.console import set_up
from inference_server.processes import Link, Processes
from inference_server.replies import Replies
from inference_server.routes import Model
from inference_server.scoring import Scorer, Scoring
from inference_server.server import Server
from inference_server.settings import Settings, SettingsError
from inference_server.start_limit import limited
from inference_server.status import StatusFile

log = logging.getLogger("inference_server")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference_server", description="Serves a score.py over HTTP.")
    parser.add_argument("--fd", type=int, help="an inherited listening socket, instead of --host and --port")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5001)
    options = parser.parse_args(arguments)
    faulthandler.enable()
    status = StatusFile(os.environ)
    status.write("starting")
    try:
        settings = Settings.from_environ(with_config_file(os.environ))
    except SettingsError as error:
        return _fail(status, "BadArgument", f"The server's environment variables cannot be used:\n{error}")
    set_up(settings.log_level)
    try:
        listener = listening_socket(options.fd, options.host, options.port)
    except OSError as error:
        where = f"--fd {options.fd}" if options.fd is not None else f"{options.host}:{options.port}"
        return _fail(status, "InternalServerError", f"Cannot listen on {where}: {error}")
    if settings.worker_count == 1:
        return _serve(listener, settings, None, lambda: status.write("ready"), _failer(status))
    loaded: Loaded | None = None
    if settings.worker_preload:
        try:
            with limited(settings.worker_timeout_seconds, _failer(status)):
                loaded = _load(settings)
        except _REFUSALS as error:
            return _refused(error, settings, _failer(status))

    def serve(link: Link) -> int:
        return _serve(listener, settings, loaded, link.ready, link.failed, link)

    return Processes(
        listener,
        settings.worker_count,
        settings.places,
        settings.worker_timeout_seconds,
        serve,
        lambda: status.write("ready"),
        _failer(status),
    ).run()


Loaded = tuple[Model, "Callable[[Scorer], Scorer] | None"]
_REFUSALS = (SettingsError, script.ScriptError)


def _load(settings: Settings) -> Loaded:
    debug.listen(settings)
    watched = models.watched(settings)
    return models.load(settings), watched


def _serve(
    listener: socket.socket,
    settings: Settings,
    loaded: Loaded | None,
    ready: Callable[[], None],
    failed: Callable[[str, str], None],
    link: Link | None = None,
) -> int:
    """Serves in this process until it has drained; the exit code."""
    try:
        with _start_limit(settings, link, failed):
            began = time.perf_counter()
            model, watched = loaded or _load(settings)
            replies = Replies(settings.server_version, settings.cors_origins)
            routes = model.routes(settings)
            scoring = Scoring(routes, replies, settings.scoring_timeout_ms, settings.max_response_bytes, watched)
            imported = time.perf_counter()
            model.initialise()
            initialised = time.perf_counter()
            warm_up.run(scoring, settings)
    except _REFUSALS as error:
        return _refused(error, settings, failed)
    seconds = (imported - began, initialised - imported, time.perf_counter() - initialised)
    log.info("The script was imported in %.3f s, init() took %.3f s, the warm-up %.3f s", *seconds)
    server = Server(listener, scoring, settings, ready, link.row if link is not None else None)
    if link is not None:
        link.attach(server)
    server.run()
    return 0


def _start_limit(
    settings: Settings, link: Link | None, failed: Callable[[str, str], None]
) -> contextlib.AbstractContextManager[None]:
    """A worker is watched by the process that forked it; a person at a debugger takes any time."""
    if link is not None or settings.debug_port is not None:
        return contextlib.nullcontext()
    return limited(settings.worker_timeout_seconds, failed)


def _refused(error: SettingsError | script.ScriptError, settings: Settings, failed: Callable[[str, str], None]) -> int:
    if isinstance(error, script.ScriptError):
        script.report(error, settings)
        failed(error.code, error.message)
    else:
        message = f"The server's environment variables cannot be used:\n{error}"
        print(message, file=sys.stderr)
        failed("BadArgument", message)
    return script.EXIT_CODE


def _failer(status: StatusFile) -> Callable[[str, str], None]:
    return lambda code, message: status.write("failed", code, message)


def _fail(status: StatusFile, code: str, message: str) -> int:
    print(message, file=sys.stderr)
    status.write("failed", code, message)
    return script.EXIT_CODE


def listening_socket(fd: int | None, host: str, port: int) -> socket.socket:
    """A bound socket; it takes connections only when the server starts, after `init()`. Raises OSError."""
    if fd is not None:
        listener = socket.socket(fileno=fd)
        listener.set_inheritable(False)
        return listener
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
