"""`python -m inference_server.batch --fd N`: a worker that runs one script over mini-batches.

The parent keeps one end of a stream socket pair and passes the other as file descriptor N. Both directions are JSON
objects, one a line, in UTF-8. The parent must treat what it reads as hostile: it comes from a process that runs user
code.

1. The worker loads the script, calls `init()` and says either of
   `{"state": "ready"}`
   `{"state": "failed", "code": C, "message": M, "traceback": T}`, after which it exits with code 3. C is
   `UserScriptImportError`, `UserScriptFunctionNotFound`, `UserScriptInitFailed` or `BadArgument` (settings).
2. The parent sends `{"id": I, "files": [absolute paths]}`, I being any JSON value; the worker calls `run(files)` and
   answers, in the order of the requests, either of
   `{"id": I, "ok": true, "rows": [strings], "seconds": S}`
   `{"id": I, "ok": false, "error": {"type": E, "message": M, "traceback": T}, "seconds": S}`.
   S is what `run()` took, in seconds. E is the exception's class, without module.
3. When the parent closes its end (or is gone), the worker ends the mini-batch that it is in, calls the script's
   `shutdown()` if there is one, and exits with 0, or with 1 where `shutdown()` raised.

A line that is not such a request ends the worker with code 2. Deadlines are the parent's: it kills the worker. What
the script prints goes to stdout and stderr, never into the protocol. Files of the script are found as online
(`AML_APP_ROOT`, `AZUREML_ENTRY_SCRIPT`), and the environment is passed on as it is (`AZUREML_MODEL_DIR`,
`AZUREML_BI_OUTPUT_PATH`).
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from inference_server import script
from inference_server.config_file import with_config_file
from inference_server.console import set_up
from inference_server.rows import rows
from inference_server.settings import Settings, SettingsError

BAD_REQUEST = 2


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m inference_server.batch", description="Scores mini-batches.")
    parser.add_argument("--fd", type=int, required=True, help="the worker's end of a stream socket pair")
    channel = socket.socket(fileno=parser.parse_args(arguments).fd)
    channel.set_inheritable(False)
    # Else a child of the script that lives on would hide from the parent that this process has ended.
    os.register_at_fork(after_in_child=lambda: os.close(channel.detach()))
    faulthandler.enable()

    def say(message: dict[str, Any]) -> None:
        channel.sendall(json.dumps(message).encode() + b"\n")

    try:
        settings = Settings.from_environ(with_config_file(os.environ))
    except SettingsError as error:
        message = f"The worker's environment variables cannot be used:\n{error}"
        print(message, file=sys.stderr)
        say({"state": "failed", "code": "BadArgument", "message": message, "traceback": ""})
        return script.EXIT_CODE
    set_up(settings.log_level)
    try:
        loaded = script.load(settings)
        loaded.initialise()
    except script.ScriptError as error:
        script.report(error, settings)
        say({"state": "failed", "code": error.code, "message": error.message, "traceback": error.details()})
        return script.EXIT_CODE
    say({"state": "ready"})
    try:
        for identity, files in _requests(channel):
            say({"id": identity} | _score(loaded.run, files))
    except BadRequestError as error:
        print(f"The parent sent a line that is not a mini-batch: {error}", file=sys.stderr)
        return BAD_REQUEST
    except (BrokenPipeError, ConnectionResetError):
        print("The parent is gone; its mini-batch is lost.", file=sys.stderr)
    return _shut_down(loaded.shutdown)


class BadRequestError(ValueError):
    """The parent does not speak the protocol."""


def _requests(channel: socket.socket) -> Iterator[tuple[Any, list[str]]]:
    with channel.makefile("rb") as lines:
        for line in lines:
            if not line.endswith(b"\n"):
                return  # the parent died while it was writing
            try:
                request = json.loads(line)
                identity, files = request["id"], request["files"]
            except (ValueError, TypeError, KeyError) as error:
                raise BadRequestError(f"{error!r} in {line[:200]!r}") from error
            if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
                raise BadRequestError(f"'files' is not a list of strings in {line[:200]!r}")
            yield identity, files


def _score(run: Callable[[list[str]], Any], files: list[str]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        output = run(files)
        seconds = time.perf_counter() - started
        return {"ok": True, "rows": rows(output), "seconds": seconds}
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        seconds = time.perf_counter() - started
        text = traceback.format_exc()
        print(text, file=sys.stderr)
        fault = {"type": type(error).__name__, "message": script.text_of(error), "traceback": text}
        return {"ok": False, "error": fault, "seconds": seconds}


def _shut_down(shutdown: Callable[[], Any] | None) -> int:
    if shutdown is None:
        return 0
    try:
        shutdown()
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
