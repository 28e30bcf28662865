"""What a local deployment is given besides what its file says."""

from pathlib import Path

import pytest
import yaml

from endpunkt_cli.local.prepare import with_debugpy
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
