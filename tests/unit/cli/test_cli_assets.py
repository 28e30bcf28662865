"""Azure's YAML files of models, environments, data and code: what is taken, and what is told about the rest."""

from pathlib import Path
from typing import cast

import pytest
import yaml

from endpunkt_cli.asset_form import Kind, read_asset
from endpunkt_cli.files import BadFile, load
from endpunkt_cli.upload import _ignored

EXAMPLES = Path(__file__).parents[3] / "examples" / "diabetes"


def troubles(kind: str, text: str) -> list[str]:
    with pytest.raises(BadFile) as bad:
        read_asset(cast(Kind, kind), load(text, "a.yml"), "/home/ana")
    return [str(trouble) for trouble in bad.value.troubles]


@pytest.mark.parametrize("file", ["model-linear.yml", "model-boosting.yml"])
def test_the_examples_parse_unchanged(file: str) -> None:
    made = read_asset("model", load((EXAMPLES / file).read_text(), file), "/examples")
    assert (set(made.address), made.paths) == ({"name", "version"}, ("path",))


@pytest.mark.parametrize(
    ("kind", "text", "address", "body"),
    [
        (
            "model",
            "$schema: x\nname: m\nversion: 2\npath: ../m\ntype: mlflow_model\ntags: {a: 1}\n",
            {"name": "m", "version": "2"},
            {"path": "file:///home/m", "type": "mlflow_model", "tags": {"a": "1"}},
        ),
        ("code", "name: c\npath: src\n", {"name": "c"}, {"path": "file:///home/ana/src"}),
        (
            "data",
            "name: d\ntype: uri_file\npath: /d.csv\n",
            {"name": "d"},
            {"type": "uri_file", "path": "file:///d.csv"},
        ),
        (
            "environment",
            "name: e\nimage: i:1\nos_type: linux\nconda_file: env/conda.yml\ndescription: d\n",
            {"name": "e"},
            {"image": "i:1", "path": "file:///home/ana/env/conda.yml", "description": "d"},
        ),
    ],
)
def test_a_file_becomes_an_address_and_a_body(
    kind: Kind, text: str, address: dict[str, str], body: dict[str, object]
) -> None:
    made = read_asset(kind, load(text, "a.yml"), "/home/ana")
    assert (made.address, made.body, made.texts) == (address, body, {})


def test_an_environment_may_stand_in_the_file_itself() -> None:
    made = read_asset("environment", load("name: e\nconda_file: {dependencies: [python=3.11, pip]}\n", "a.yml"), "/")
    assert made.body == {"path": "file:///conda.yml"}
    assert yaml.safe_load(made.texts["path"]) == {"dependencies": ["python=3.11", "pip"]}


@pytest.mark.parametrize(
    ("kind", "text", "told"),
    [
        ("model", "name: m\npath: m\ntype: triton_model\n", ["a.yml:3: type: there is no Triton server here"]),
        ("data", "name: m\npath: m\ntype: mltable\n", ["a.yml:3: type: this version reads no MLTable"]),
        ("data", "name: m\npath: https://x/y\n", ["a.yml:2: path: this version takes a local file or folder"]),
        ("environment", "name: e\nimage: i\n", ["a.yml:1: conda_file: this version runs instances as processes"]),
        ("environment", "name: e\nbuild: {path: .}\n", ["a.yml:2: build: this version runs instances as processes"]),
        (
            "environment",
            "name: e\nconda_file: c\ninference_config: {}\nos_type: windows\n",
            ["a.yml:3: inference_config: this version", "a.yml:4: os_type: instances run on Linux"],
        ),
        ("environment", "name: e\nconda_file: azureml://x\n", ["a.yml:2: conda_file: this version takes a local file"]),
        (
            "environment",
            "name: -e\nconda_file: c\nextra: 1\n",
            ["a.yml:1: name: String should match", "a.yml:3: extra: "],
        ),
        ("code", "version: 1\n", ["a.yml:1: name: Field required", "a.yml:1: path: Field required"]),
    ],
)
def test_every_trouble_is_told_with_its_line(kind: str, text: str, told: list[str]) -> None:
    actual = troubles(kind, text)
    assert len(actual) == len(told), actual
    for line, beginning in zip(actual, told, strict=True):
        assert line.startswith(beginning)


@pytest.mark.parametrize(
    ("files", "path", "is_folder", "left_out"),
    [
        ({}, "a.bin", False, False),
        ({".gitignore": "*.bin\n"}, "a.bin", False, True),
        # .amlignore stands in for .gitignore, it does not add to it.
        ({".gitignore": "*.bin\n", ".amlignore": "logs/\n"}, "a.bin", False, False),
        ({".amlignore": "logs/\n"}, "logs", True, True),
        ({".amlignore": "logs/\n"}, "logs", False, False),
        ({".amlignore": "*.bin\n!keep.bin\n# comment\n"}, "sub/keep.bin", False, False),
        ({".amlignore": "/top\n"}, "sub/top", False, False),
    ],
)
def test_ignore_files_follow_gits_rules(
    tmp_path: Path, files: dict[str, str], path: str, is_folder: bool, left_out: bool
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert _ignored(tmp_path)(path, is_folder) is left_out
