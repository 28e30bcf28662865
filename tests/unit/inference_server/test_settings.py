"""Settings and the status file."""

import json
import os
from pathlib import Path

import pytest

from inference_server import __version__
from inference_server.settings import Settings, SettingsError
from inference_server.status import StatusFile


def test_the_defaults_are_azures() -> None:
    settings = Settings.from_environ({})
    assert settings == Settings(
        app_root=Path("/var/azureml-app"),
        entry_script=None,
        source_directory=None,
        model_dir=None,
        scoring_timeout_ms=3_600_000,
        log_level="INFO",
        cors_origins=(),
        concurrency=1,
        max_body_bytes=104_857_600,
        drain_seconds=30,
        linger_seconds=1,
        send_timeout_seconds=60,
        server_version=f"endpunkt/{__version__}",
    )


def test_everything_can_be_set() -> None:
    settings = Settings.from_environ(
        {
            "AML_APP_ROOT": "/app",
            "AZUREML_ENTRY_SCRIPT": "src/score.py",
            "AZUREML_SOURCE_DIRECTORY": "src",
            "AZUREML_MODEL_DIR": "/model",
            "SCORING_TIMEOUT_MS": "5000",
            "AZUREML_LOG_LEVEL": "debug",
            "AML_CORS_ORIGINS": "https://a, https://b,",
            "ENDPUNKT_CONCURRENCY": "4",
            "ENDPUNKT_MAX_BODY_BYTES": "10",
            "ENDPUNKT_DRAIN_SECONDS": "0.5",
            "ENDPUNKT_LINGER_SECONDS": "0",
            "ENDPUNKT_SEND_TIMEOUT_SECONDS": "2",
            "HTTP_X_MS_SERVER_VERSION": "v",
        }
    )
    assert settings == Settings(
        app_root=Path("/app"),
        entry_script="src/score.py",
        source_directory="src",
        model_dir="/model",
        scoring_timeout_ms=5000,
        log_level="DEBUG",
        cors_origins=("https://a", "https://b"),
        concurrency=4,
        max_body_bytes=10,
        drain_seconds=0.5,
        linger_seconds=0,
        send_timeout_seconds=2,
        server_version="v",
    )


def test_what_a_deployment_can_ask_for() -> None:
    settings = Settings.from_environ(
        {
            "WORKER_COUNT": "3",
            "WORKER_TIMEOUT": "10",
            "SERVICE_NAME": "S",
            "SERVICE_VERSION": "2",
            "SERVICE_PATH_PREFIX": "p",
            "ENDPUNKT_MAX_RESPONSE_BYTES": "5",
            "ENDPUNKT_MLFLOW_MODEL": "/m",
            "ENDPUNKT_PROTOCOL": "v2",
            "ENDPUNKT_WARMUP_FILE": "/w",
            "ENDPUNKT_ENDPOINT": "e",
            "ENDPUNKT_DEPLOYMENT": "d",
            "ENDPUNKT_COLLECTOR": "{}",
            "ENDPUNKT_COLLECTOR_DIR": "/c",
        }
    )
    assert (settings.worker_count, settings.worker_timeout_seconds, settings.max_response_bytes) == (3, 10, 5)
    assert (settings.service_name, settings.service_version, settings.service_path_prefix) == ("S", "2", "p")
    assert (settings.mlflow_model, settings.protocol, settings.warm_up_file) == (Path("/m"), "v2", Path("/w"))
    assert (settings.endpoint, settings.deployment) == ("e", "d")
    assert (settings.collector, settings.collector_folder) == ("{}", Path("/c"))


def test_a_debugger_attaches_to_one_process() -> None:
    settings = Settings.from_environ({"AZUREML_DEBUG_PORT": "5678", "WORKER_COUNT": "3", "ENDPUNKT_DEBUG_WAIT": "True"})
    assert (settings.debug_port, settings.debug_wait, settings.worker_count) == (5678, True, 1)


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"AZUREML_DEBUG_PORT": "65536"}, "AZUREML_DEBUG_PORT=65536: must be a port, 65535 or less"),
        ({"ENDPUNKT_PROTOCOL": "v3"}, "ENDPUNKT_PROTOCOL='v3': must be one of azure, v2"),
        ({"WORKER_COUNT": "0"}, "WORKER_COUNT='0': must be a whole number, 1 or more"),
        ({"ENDPUNKT_COLLECTOR": "{}"}, "ENDPUNKT_COLLECTOR is set without ENDPUNKT_COLLECTOR_DIR"),
    ],
)
def test_what_a_deployment_cannot_ask_for(environ: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environ(environ)
    assert str(refusal.value).startswith(says)


def test_every_bad_variable_is_told_at_once() -> None:
    with pytest.raises(SettingsError) as refusal:
        Settings.from_environ(
            {
                "SCORING_TIMEOUT_MS": "soon",
                "ENDPUNKT_CONCURRENCY": "0",
                "ENDPUNKT_MAX_BODY_BYTES": "1.5",
                "ENDPUNKT_DRAIN_SECONDS": "nan",
                "ENDPUNKT_LINGER_SECONDS": "inf",
                "AZUREML_LOG_LEVEL": "loud",
            }
        )
    assert str(refusal.value).splitlines() == [
        "AZUREML_LOG_LEVEL='LOUD': must be one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
        "SCORING_TIMEOUT_MS='soon': must be a whole number, 1 or more",
        "ENDPUNKT_CONCURRENCY='0': must be a whole number, 1 or more",
        "ENDPUNKT_MAX_BODY_BYTES='1.5': must be a whole number, 1 or more",
        "ENDPUNKT_DRAIN_SECONDS='nan': must be a number, 0 or more",
        "ENDPUNKT_LINGER_SECONDS='inf': must be a number, 0 or more",
    ]


def test_the_status_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    status = StatusFile({"ENDPUNKT_STATUS_FILE": str(path)})
    status.write("starting")
    assert json.loads(path.read_text()) == {
        "state": "starting",
        "code": None,
        "message": None,
        "pid": os.getpid(),
    }
    status.write("failed", "UserScriptInitFailed", "no\nmodel")
    assert json.loads(path.read_text())["message"] == "no\nmodel"
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_variable_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    StatusFile({}).write("ready")
    assert list(tmp_path.iterdir()) == []
