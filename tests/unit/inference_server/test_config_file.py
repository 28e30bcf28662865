"""Azure's configuration file: which one is read, what of it counts, and that the environment beats it."""

import json
import logging
from pathlib import Path

import pytest

from inference_server.config_file import with_config_file
from inference_server.settings import SettingsError


@pytest.mark.parametrize("place", ["config.json", "src/config.json", "named"])
def test_the_environment_beats_the_file(tmp_path: Path, place: str) -> None:
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"WORKER_COUNT": 3, "AZUREML_LOG_LEVEL": "DEBUG", "SERVICE_NAME": None}))
    environ = {"AML_APP_ROOT": str(tmp_path), "AZUREML_ENTRY_SCRIPT": "src/score.py", "AZUREML_LOG_LEVEL": "ERROR"}
    if place == "named":
        environ["AZUREML_CONFIG_FILE"] = str(path)
    assert with_config_file(environ) == environ | {"WORKER_COUNT": "3"}


def test_a_named_file_comes_before_those_that_are_found(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"SERVICE_NAME": "found"}')
    (tmp_path / "named").write_text('{"SERVICE_NAME": "named"}')
    environ = {"AML_APP_ROOT": str(tmp_path), "AZUREML_CONFIG_FILE": str(tmp_path / "named")}
    assert with_config_file(environ)["SERVICE_NAME"] == "named"
    (tmp_path / "named").write_text("")  # an empty file is no file
    assert with_config_file(environ)["SERVICE_NAME"] == "found"


def test_no_file(tmp_path: Path) -> None:
    environ = {"AML_APP_ROOT": str(tmp_path)}
    assert with_config_file(environ) == environ


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting property name"),
        ("[]", "it must hold a JSON object of variable names and values"),
        ('{"WORKER_COUNT": [1]}', "the values of WORKER_COUNT must be strings, numbers or booleans"),
    ],
)
def test_a_bad_file_is_an_error_only_where_it_was_named(
    tmp_path: Path, text: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SettingsError, match=says):
        with_config_file({"AZUREML_CONFIG_FILE": str(path)})
    with caplog.at_level(logging.WARNING):
        environ = {"AML_APP_ROOT": str(tmp_path)}
        assert with_config_file(environ) == environ


def test_only_the_servers_names_are_taken(tmp_path: Path) -> None:
    """A model's own config.json must not change the process's environment."""
    (tmp_path / "config.json").write_text('{"model_type": "bert", "PATH": "/evil", "ENDPUNKT_CONCURRENCY": 9}')
    environ = {"AML_APP_ROOT": str(tmp_path)}
    assert with_config_file(environ) == environ
