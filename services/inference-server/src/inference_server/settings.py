"""Settings of one server process, read from its environment variables once, at start.

Pure: the environment is an argument; nothing here opens a file or reads a clock. The names without `ENDPUNKT_`
are Azure's (azureml-inference-server-http 1.5), with its defaults.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_server import __version__

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


class SettingsError(ValueError):
    """One or more environment variables cannot be used; the text has a line for each."""


@dataclass(frozen=True, slots=True)
class Settings:
    app_root: Path
    entry_script: str | None  # None: `import main`
    source_directory: str | None
    model_dir: str | None
    scoring_timeout_ms: int
    log_level: str
    cors_origins: tuple[str, ...]
    concurrency: int  # calls of run() at a time
    max_body_bytes: int
    drain_seconds: float
    linger_seconds: float  # how long connections must have been quiet before a draining server exits
    send_timeout_seconds: float  # a client that takes nothing of a stream for this long is dropped
    server_version: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Settings":
        """Raises SettingsError, which tells every bad variable at once."""
        problems: list[str] = []

        def number(name: str, default: float, least: float, whole: bool) -> float:
            text = environ.get(name, "")
            if not text:
                return default
            try:
                value = int(text) if whole else float(text)
            except ValueError:
                value = -1
            if not least <= value < float("inf"):
                kind = "a whole number" if whole else "a number"
                problems.append(f"{name}={text!r}: must be {kind}, {least:g} or more")
                return default
            return value

        level = environ.get("AZUREML_LOG_LEVEL", "").upper() or "INFO"
        if level not in LOG_LEVELS:
            problems.append(f"AZUREML_LOG_LEVEL={level!r}: must be one of {', '.join(LOG_LEVELS)}")
        origins = (origin.strip() for origin in environ.get("AML_CORS_ORIGINS", "").split(","))
        settings = cls(
            app_root=Path(environ.get("AML_APP_ROOT") or "/var/azureml-app"),
            entry_script=environ.get("AZUREML_ENTRY_SCRIPT") or None,
            source_directory=environ.get("AZUREML_SOURCE_DIRECTORY") or None,
            model_dir=environ.get("AZUREML_MODEL_DIR") or None,
            scoring_timeout_ms=int(number("SCORING_TIMEOUT_MS", 3_600_000, 1, whole=True)),
            log_level=level,
            cors_origins=tuple(origin for origin in origins if origin),
            concurrency=int(number("ENDPUNKT_CONCURRENCY", 1, 1, whole=True)),
            max_body_bytes=int(number("ENDPUNKT_MAX_BODY_BYTES", 100 * 2**20, 1, whole=True)),
            drain_seconds=number("ENDPUNKT_DRAIN_SECONDS", 30, 0, whole=False),
            linger_seconds=number("ENDPUNKT_LINGER_SECONDS", 1, 0, whole=False),
            send_timeout_seconds=number("ENDPUNKT_SEND_TIMEOUT_SECONDS", 60, 0, whole=False),
            server_version=environ.get("HTTP_X_MS_SERVER_VERSION") or f"endpunkt/{__version__}",
        )
        if problems:
            raise SettingsError("\n".join(problems))
        return settings
