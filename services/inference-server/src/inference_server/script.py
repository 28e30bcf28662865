"""The user's script: found, imported, checked and initialised. Everything here runs hostile code on the main thread.

The script is `AZUREML_ENTRY_SCRIPT` (relative to `AML_APP_ROOT`), else the module `main` from the same folders.
`ScriptError` carries the Azure error code that the deployment will show.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import itertools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from inference_server import compat, swagger
from inference_server.http import Request
from inference_server.inputs import Arguments, SignatureError, input_parser, refusing_unfit_input
from inference_server.routes import Call, Routes
from inference_server.settings import Settings

EXIT_CODE = 3  # of a process whose script cannot be served, as Azure's
TREE_LINES = 200
SCORE_METHODS = ("GET", "POST", "OPTIONS", "HEAD")  # HEAD only for a script that sees every method
MODULE_NAME = "entry_module"  # Azure's name for the imported entry script

log = logging.getLogger(__name__)


class ScriptError(Exception):
    """The script cannot be served. `__cause__` is the exception that it raised, if it raised one."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    def details(self) -> str:
        """The traceback within the user's files, or just the message."""
        cause = self.__cause__
        if cause is None:
            return self.message
        frames = cause.__traceback__
        while frames is not None and frames.tb_next is not None and _is_ours(frames.tb_frame.f_code.co_filename):
            frames = frames.tb_next
        text = "".join(traceback.format_exception(type(cause), cause, frames))
        return f"{self.message}\n{text.rstrip()}"


def _is_ours(filename: str) -> bool:
    return filename.startswith("<frozen importlib") or Path(filename).parent == Path(__file__).parent


@dataclass(frozen=True)
class Script:
    path: str
    init: Callable[[], Any]
    run: Callable[..., Any]
    shutdown: Callable[[], Any] | None  # batch only

    @property
    def raw_http(self) -> bool:
        return compat.raw_http_requested()

    def initialise(self) -> None:
        """Calls `init()`. Raises ScriptError."""
        log.info("Invoking user's init function")
        try:
            self.init()
        except BaseException as error:
            raise ScriptError("UserScriptInitFailed", f"User's init function failed: {said(error)}") from error
        log.info("Users's init has completed successfully")

    @property
    def schema_decorated(self) -> bool:
        schemas = sys.modules.get("inference_schema.schema_util")
        return schemas is not None and bool(schemas.is_schema_decorated(self.run))

    def input_parser(self) -> Callable[[Request], Arguments]:
        """How a request becomes `run()`'s arguments. Raises ScriptError."""
        try:
            return input_parser(self.run, raw=self.raw_http, schema=self.schema_decorated)
        except SignatureError as error:
            raise ScriptError("BadArgument", f"{self.path}: {error}") from None

    def routes(self, settings: Settings) -> Routes:
        """`/score` and `/swagger.json`, beside them the v2 protocol's if that is asked for. Raises ScriptError."""
        methods = SCORE_METHODS if self.raw_http else ("GET", "POST")
        run = refusing_unfit_input(self.run) if self.schema_decorated else self.run
        score = Call(self.input_parser(), run, frozenset(methods), SCORE_METHODS)
        routes = Routes({"/score": score}, {"/swagger.json": swagger.page(settings, self.interface)})
        if settings.protocol != "v2":
            return routes
        from inference_server import v2

        try:
            predict = v2.script_predict(self.run, self.raw_http, self.schema_decorated)
        except SignatureError as error:
            raise ScriptError("BadArgument", f"{self.path}: {error}") from None
        return routes.beside(v2.routes(settings, "python", predict, lambda: {"inputs": [], "outputs": []}))

    def interface(self) -> swagger.Interface:
        """The schemas of `run()`'s decorators, if it has any."""
        if not self.schema_decorated:
            return swagger.ANYTHING
        schemas = sys.modules["inference_schema.schema_util"]
        return swagger.Interface(
            schemas.get_input_schema(self.run),
            schemas.get_output_schema(self.run),
            frozenset(schemas.get_supported_versions(self.run)),
        )


def load(settings: Settings) -> Script:
    """Imports the script, with the import path and `sys.argv` that it expects. Raises ScriptError."""
    compat.install()
    sys.path.append(str(settings.app_root))
    if settings.source_directory:
        sys.path.append(str(settings.app_root / settings.source_directory))
    entry = settings.app_root / settings.entry_script if settings.entry_script else None
    sys.argv = [str(entry or "main")]  # ours are no business of the script's
    try:
        module = _import_file(entry) if entry else importlib.import_module("main")
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and entry is None and error.name == "main":
            message = f"No score script found. Expected score script main.py in {', '.join(sys.path[-2:])}."
        elif isinstance(error, FileNotFoundError) and entry is not None and not entry.exists():
            message = f"No score script found at {entry} (AML_APP_ROOT and AZUREML_ENTRY_SCRIPT)."
        else:
            message = "Failed to import user script because it raised an unhandled exception: " + said(error)
        raise ScriptError("UserScriptImportError", message) from error
    path = str(module.__file__)
    missing = [name for name in ("init", "run") if not callable(getattr(module, name, None))]
    if missing:
        lacks = "\n".join(f"User script at {path} does not have a {name}() function defined." for name in missing)
        raise ScriptError("UserScriptFunctionNotFound", lacks)
    log.info("Found user script at %s", path)
    # Some of Azure's tools put a script before the user's; it hands arguments on in a way that schemas do not survive.
    driven = getattr(module, "driver_module", None)
    run = driven.run if isinstance(driven, ModuleType) and hasattr(driven, "run") else module.run
    return Script(path, module.init, run, getattr(module, "shutdown", None))


def _import_file(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE_NAME, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[MODULE_NAME] = module  # dataclasses and pickle look a class's module up by name
    spec.loader.exec_module(module)
    return module


def report(error: ScriptError, settings: Settings) -> None:
    """Writes the failure and the model folder's tree to stderr, where `get-logs` finds them."""
    sys.stdout.flush()
    lines = [error.details()]
    if settings.model_dir and os.path.exists(settings.model_dir):
        tree = _tree(Path(settings.model_dir))
        lines += ["Model Directory Contents:", *itertools.islice(tree, TREE_LINES)]
        if next(tree, None) is not None:
            lines.append(f"Output Truncated. First {TREE_LINES} lines shown.")
    elif settings.model_dir:
        lines.append(f"The model directory {settings.model_dir} (AZUREML_MODEL_DIR) does not exist.")
    print("\n".join(lines), file=sys.stderr, flush=True)


def _tree(path: Path, depth: int = 0) -> Iterator[str]:
    is_folder = path.is_dir()
    yield f"{' ' * 4 * depth}{path.name}{os.sep if is_folder else ''}"
    if is_folder and not (depth and path.is_symlink()):  # a link may lead back up
        children: list[Path] = []
        with contextlib.suppress(OSError):
            children = sorted(path.iterdir())
        for child in children:
            yield from _tree(child, depth + 1)


def text_of(error: BaseException) -> str:
    """`str(error)`, which is user code too."""
    try:
        return str(error)
    except Exception:
        return "<exception str() failed>"


def said(error: BaseException) -> str:
    """Its class and text."""
    return f"{type(error).__name__}: {text_of(error)}".removesuffix(": ")
