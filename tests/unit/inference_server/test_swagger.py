"""`/swagger.json`: which version is answered with what, and whose file wins. The shapes were compared with those of
azureml-inference-server-http 1.5.1, document for document."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inference_server import swagger
from inference_server.http import Request
from inference_server.inputs import InputError
from inference_server.settings import Settings

NUMBER = swagger.Interface({"type": "object", "example": {"n": 1}}, {"type": "number", "example": 1})


def settings(root: Path = Path("/nowhere"), **environ: str) -> Settings:
    return Settings.from_environ({"AML_APP_ROOT": str(root), **environ})


def asked(query: str, root: Path = Path("/nowhere"), interface: swagger.Interface = NUMBER) -> Any:
    request = Request("GET", f"/swagger.json{query}", {}, b"", False, False)
    kind, body = swagger.page(settings(root), lambda: interface)(request)
    assert kind == "application/json"
    return json.loads(body)


@pytest.mark.parametrize(
    ("query", "key", "value"),
    [
        ("", "swagger", "2.0"),
        ("?other=1", "swagger", "2.0"),
        ("?version=2", "swagger", "2.0"),
        ("?version=2.0", "swagger", "2.0"),
        ("?version=3", "openapi", "3.0.3"),
        ("?version=3.0", "openapi", "3.0.3"),
        ("?version=3.1", "openapi", "3.1.0"),
    ],
)
def test_versions(query: str, key: str, value: str) -> None:
    assert asked(query)[key] == value


@pytest.mark.parametrize("query", ["?version=", "?version=1", "?version=4", "?version=3.1.0"])
def test_versions_that_nobody_has(query: str) -> None:
    with pytest.raises(InputError) as refused:
        asked(query)
    version = query.partition("=")[2]
    assert (refused.value.status, refused.value.text) == (
        404,
        f"Swagger version [{version}] is not valid. Supported versions: [2, 3, 3.1].",
    )


def test_a_version_that_the_schemas_cannot_be_written_in() -> None:
    """inference-schema's lists of mixed types are not for Swagger 2."""
    mixed = swagger.Interface({}, {}, frozenset({"3.0", "3.1"}))
    assert asked("?version=3", interface=mixed)["openapi"] == "3.0.3"
    with pytest.raises(InputError) as refused:
        asked("", interface=mixed)
    assert refused.value.status == 404
    assert refused.value.text == (
        "Swagger version [2] is not supported for the scoring script. Supported swagger versions: [3, 3.1]."
    )


def test_the_documents() -> None:
    made = swagger.documents(settings(SERVICE_NAME="S", SERVICE_VERSION="7", SERVICE_PATH_PREFIX="/a/b/"), NUMBER)
    for version, schemas in (("2", "definitions"), ("3", "components/schemas"), ("3.1", "components/schemas")):
        document = made[version]
        assert document["info"] == {
            "title": "S",
            "description": "API specification for the Azure Machine Learning service S",
            "version": "7",
        }
        assert list(document["paths"]) == ["/a/b/", "/a/b/score", "/a/b/swagger.json"]
        found = document
        for part in schemas.split("/"):
            found = found[part]
        assert (found["ServiceInput"], found["ServiceOutput"]) == (NUMBER.inputs, NUMBER.outputs)
        assert set(references(document)) == {f"#/{schemas}/{name}" for name in found}


def references(document: Any) -> list[str]:
    if isinstance(document, dict):
        own = [document["$ref"]] if "$ref" in document else []
        return own + [found for value in document.values() for found in references(value)]
    return [found for value in document for found in references(value)] if isinstance(document, list) else []


@pytest.mark.parametrize(
    ("files", "versions"),
    [
        (["swagger.json"], {"2": "swagger.json"}),
        (["swagger2.json"], {"2": "swagger2.json"}),
        (["swagger.json", "swagger2.json"], {"2": "swagger.json"}),
        (["swagger3.json", "swagger3.1.json"], {"3": "swagger3.json", "3.1": "swagger3.1.json"}),
    ],
)
def test_the_users_own_files_win(tmp_path: Path, files: list[str], versions: dict[str, str]) -> None:
    for name in files:
        (tmp_path / name).write_text(json.dumps({"mine": name}))
    for version in swagger.VERSIONS:
        assert asked(f"?version={version}", tmp_path).get("mine") == versions.get(version)


def test_a_file_that_is_not_json(tmp_path: Path) -> None:
    (tmp_path / "swagger3.json").write_text("{")
    with pytest.raises(InputError, match=r"swagger3\.json: Expecting property name"):
        asked("", tmp_path)


def test_the_interface_is_asked_once() -> None:
    calls: list[int] = []

    def interface() -> swagger.Interface:
        calls.append(1)
        return NUMBER

    answer: Callable[[Request], Any] = swagger.page(settings(), interface)
    for _ in range(2):
        answer(Request("GET", "/swagger.json", {}, b"", False, False))
    assert calls == [1]
