"""`python -m inference_server [--fd N | --host H --port P]`: serves one script over HTTP.

Exit codes: 0 after draining, 2 for bad arguments, 3 for settings or a script that cannot be served (the reason is on
stderr and in ENDPUNKT_STATUS_FILE), 143 or 130 at a second signal.
"""

import argparse
import faulthandler
import os
import socket
import sys

from inference_server import script
from inference_server.console import set_up
from inference_server.replies import Replies
from inference_server.scoring import Scoring
from inference_server.server import Server
from inference_server.settings import Settings, SettingsError
from inference_server.status import StatusFile


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
        settings = Settings.from_environ(os.environ)
    except SettingsError as error:
        return _fail(status, "BadArgument", f"The server's environment variables cannot be used:\n{error}")
    set_up(settings.log_level)
    try:
        listener = listening_socket(options.fd, options.host, options.port)
    except OSError as error:
        where = f"--fd {options.fd}" if options.fd is not None else f"{options.host}:{options.port}"
        return _fail(status, "InternalServerError", f"Cannot listen on {where}: {error}")
    try:
        loaded = script.load(settings)
        replies = Replies(settings.server_version, settings.cors_origins)
        scoring = Scoring(loaded, replies, settings.scoring_timeout_ms)
        loaded.initialise()
    except script.ScriptError as error:
        script.report(error, settings)
        status.write("failed", error.code, error.message)
        return script.EXIT_CODE
    Server(listener, scoring, settings, status).run()
    return 0


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
