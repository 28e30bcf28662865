"""Azure's configuration file: a JSON object of environment variables' names and values. The environment beats it.

It is the file that `AZUREML_CONFIG_FILE` names, else `config.json` in `AML_APP_ROOT` or beside the entry script. An
empty or absent file is no file, as in azureml-inference-server-http. Many models bring a `config.json` of their own:
one that was found, not named, is used only as far as it is an object with names of this server.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inference_server.settings import SettingsError

NAMES = frozenset(
    {
        "AML_APP_ROOT",
        "AML_CORS_ORIGINS",
        "AZUREML_DEBUG_PORT",
        "AZUREML_ENTRY_SCRIPT",
        "AZUREML_LOG_LEVEL",
        "AZUREML_MODEL_DIR",
        "AZUREML_SOURCE_DIRECTORY",
        "HTTP_X_MS_SERVER_VERSION",
        "SCORING_TIMEOUT_MS",
        "SERVICE_NAME",
        "SERVICE_PATH_PREFIX",
        "SERVICE_VERSION",
        "WORKER_COUNT",
        "WORKER_PRELOAD",
        "WORKER_TIMEOUT",
    }
)
IGNORED = frozenset(  # Azure's server knows them; they mean nothing here
    {
        "AML_APP_INSIGHTS_ENABLED",
        "AML_APP_INSIGHTS_KEY",
        "AML_MODEL_DC_STORAGE_ENABLED",
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
        "HOSTNAME",
        "WORKSPACE_NAME",
    }
)

log = logging.getLogger(__name__)


def with_config_file(environ: Mapping[str, str]) -> Mapping[str, str]:
    """The environment, completed by the configuration file if there is one. Raises SettingsError."""
    named = environ.get("AZUREML_CONFIG_FILE", "")
    path = _usable(Path(named)) if named else None
    if named and path is None:
        log.warning("AZUREML_CONFIG_FILE=%s is absent or empty; it is not used.", named)
    path = path or next(filter(None, map(_usable, _places(environ))), None)
    if path is None:
        return environ
    try:
        values = _values(path)
    except (OSError, ValueError, RecursionError) as error:
        if named and path == Path(named):
            raise SettingsError(f"AZUREML_CONFIG_FILE={named}: {error}") from error
        log.warning("%s is not used as a configuration file: %s", path, error)
        return environ
    known = {name: value for name, value in values.items() if name in NAMES}
    if extra := sorted(set(values) - NAMES - IGNORED):
        log.warning("Keys of %s that are not this server's: %s", path, ", ".join(extra))
    return {**known, **environ}


def _places(environ: Mapping[str, str]) -> list[Path]:
    root = Path(environ.get("AML_APP_ROOT") or "/var/azureml-app")
    entry = environ.get("AZUREML_ENTRY_SCRIPT")
    folders = [root, (root / entry).parent] if entry else [root]
    return [folder / "config.json" for folder in folders]


def _usable(path: Path) -> Path | None:
    return path if path.is_file() and path.stat().st_size else None


def _values(path: Path) -> dict[str, str]:
    """Raises OSError, or ValueError with the reason."""
    values: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise ValueError("it must hold a JSON object of variable names and values")
    wrong = [name for name, value in values.items() if name in NAMES and isinstance(value, (list, dict))]
    if wrong:
        raise ValueError(f"the values of {', '.join(wrong)} must be strings, numbers or booleans")
    return {name: _text(value) for name, value in values.items() if value is not None}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
