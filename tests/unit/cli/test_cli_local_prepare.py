"""What a local deployment is given besides what its file says."""

from pathlib import Path

import pytest
import yaml

from contracts.environments import builder
from contracts.environments.lines import Trouble
from endpunkt_cli.errors import CliError
from endpunkt_cli.files import BadFile
from endpunkt_cli.local.prepare import EnvironmentFile, interpreter, with_debugpy
from endpunkt_cli.local.verbs import workspace_of


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["python=3.11"], ["python=3.11", "pip", {"pip": ["debugpy"]}]),
        (["pip", {"pip": ["numpy"]}], ["pip", {"pip": ["numpy", "debugpy"]}]),
        (["debugpy=1.8"], ["debugpy=1.8"]),
    ],
)
def test_debugpy_joins_a_conda_environment(before: list[object], after: list[object]) -> None:
    text = with_debugpy("conda.yml", yaml.safe_dump({"name": "x", "dependencies": before}))
    assert yaml.safe_load(text) == {"name": "x", "dependencies": after}


@pytest.mark.parametrize(
    ("before", "after"),
    [("numpy", "numpy\ndebugpy\n"), ("# mine\nnumpy\n", "# mine\nnumpy\ndebugpy\n"), ("debugpy==1.8", "debugpy==1.8")],
)
def test_debugpy_joins_requirements(before: str, after: str) -> None:
    assert with_debugpy("requirements.txt", before) == after


@pytest.mark.parametrize(
    ("variables", "builds", "seconds"),
    [
        ({}, False, 1800),
        ({"ENDPUNKT_ENVIRONMENT_BUILDS": "true", "ENDPUNKT_ENVIRONMENT_SECONDS": "60"}, True, 60),
        ({"ENDPUNKT_ENVIRONMENT_BUILDS": "false", "ENDPUNKT_LOG_LEVEL": "none of the build's"}, False, 1800),
    ],
)
def test_an_environment_is_built_as_the_services_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], builds: bool, seconds: int
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    for name in ("ENDPUNKT_ENVIRONMENT_BUILDS", "ENDPUNKT_ENVIRONMENT_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    made: list[builder.EnvironmentBuilder] = []

    def check(one: builder.EnvironmentBuilder, name: str, text: str) -> list[Trouble]:
        made.append(one)
        return [Trouble(1, "no further")]

    monkeypatch.setattr(builder.EnvironmentBuilder, "check", check)
    with pytest.raises(BadFile, match="no further"):
        interpreter(EnvironmentFile("requirements.txt", "numpy", "here"), debug=False)
    [one] = made
    assert (one._builds, one._seconds, one._compiles) == (builds, seconds, False)


def test_a_setting_of_the_build_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ENDPUNKT_ENVIRONMENT_BUILDS", "perhaps")
    with pytest.raises(CliError, match="ENDPUNKT_ENVIRONMENT_BUILDS: Input should be a valid boolean"):
        interpreter(EnvironmentFile("requirements.txt", "numpy", "here"), debug=False)


@pytest.mark.parametrize(
    ("folders", "workspace"),
    [
        ((), "repository/deploy/blue"),
        ((".vscode",), "repository/deploy/blue"),
        (("repository/.git",), "repository/deploy/blue"),
        (("repository/.git", "repository/.vscode"), "repository"),
        (("repository/.vscode", "repository/deploy/.vscode"), "repository/deploy"),
        (("repository/deploy/.git", "repository/.vscode"), "repository/deploy/blue"),
    ],
)
def test_the_workspace_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folders: tuple[str, ...], workspace: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for folder in ("repository/deploy/blue", *folders):
        (tmp_path / folder).mkdir(parents=True)
    assert workspace_of(tmp_path / "repository/deploy/blue") == tmp_path / workspace
