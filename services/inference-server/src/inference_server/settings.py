"""Settings of one server process, read from its environment variables once, at start.

Pure: the environment is an argument; nothing here opens a file or reads a clock. The names without `ENDPUNKT_`
are Azure's (azureml-inference-server-http 1.5), with its defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from inference_server import __version__

LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
PROTOCOLS = ("azure", "v2")


class SettingsError(ValueError):
    """One or more environment variables cannot be used; the text has a line for each."""


@dataclass(frozen=True)
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
    worker_count: int = 1  # processes, each with an init() of its own; always one under a debugger
    worker_timeout_seconds: float = 300  # to start; and for one of several workers to be silent, see `processes`
    worker_preload: bool = False  # import the script once, before the worker processes are forked
    max_response_bytes: int = 100 * 2**20  # of an answer, streamed or not
    service_name: str = "ML service"  # this, version and prefix stand in /swagger.json
    service_version: str = "1.0"
    service_path_prefix: str = ""
    debug_port: int | None = None
    debug_wait: bool = False  # import the script when a debugger has attached
    mlflow_model: Path | None = None  # the model's folder: there is no script
    protocol: str = "azure"
    warm_up_file: Path | None = None
    endpoint: str = "endpoint"
    deployment: str = "deployment"
    collector: str = ""  # JSON, see `collection`
    collector_folder: Path | None = None

    @property
    def places(self) -> int:
        """How many calls of run() one process makes at a time."""
        return -(-self.concurrency // self.worker_count)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
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
        protocol = environ.get("ENDPUNKT_PROTOCOL", "") or "azure"
        if protocol not in PROTOCOLS:
            problems.append(f"ENDPUNKT_PROTOCOL={protocol!r}: must be one of {', '.join(PROTOCOLS)}")
        debug_port = int(number("AZUREML_DEBUG_PORT", 0, 0, whole=True))
        if debug_port > 65535:
            problems.append(f"AZUREML_DEBUG_PORT={debug_port}: must be a port, 65535 or less")
        if environ.get("ENDPUNKT_COLLECTOR") and not environ.get("ENDPUNKT_COLLECTOR_DIR"):
            problems.append("ENDPUNKT_COLLECTOR is set without ENDPUNKT_COLLECTOR_DIR, the folder to collect in")
        worker_count = int(number("WORKER_COUNT", 1, 1, whole=True))

        def path(name: str) -> Path | None:
            return Path(environ[name]) if environ.get(name) else None

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
            worker_count=1 if debug_port else worker_count,
            worker_timeout_seconds=number("WORKER_TIMEOUT", 300, 1, whole=False),
            worker_preload=environ.get("WORKER_PRELOAD", "").lower() == "true",
            max_response_bytes=int(number("ENDPUNKT_MAX_RESPONSE_BYTES", 100 * 2**20, 1, whole=True)),
            service_name=environ.get("SERVICE_NAME") or "ML service",
            service_version=environ.get("SERVICE_VERSION") or "1.0",
            service_path_prefix=environ.get("SERVICE_PATH_PREFIX", ""),
            debug_port=debug_port or None,
            debug_wait=environ.get("ENDPUNKT_DEBUG_WAIT", "").lower() == "true",
            mlflow_model=path("ENDPUNKT_MLFLOW_MODEL"),
            protocol=protocol,
            warm_up_file=path("ENDPUNKT_WARMUP_FILE"),
            endpoint=environ.get("ENDPUNKT_ENDPOINT") or "endpoint",
            deployment=environ.get("ENDPUNKT_DEPLOYMENT") or "deployment",
            collector=environ.get("ENDPUNKT_COLLECTOR", ""),
            collector_folder=path("ENDPUNKT_COLLECTOR_DIR"),
        )
        if problems:
            raise SettingsError("\n".join(problems))
        return settings
