"""`endpunkt model|environment|data|code` with a real broker, studio and provisioner: local files become versions."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.command import Command

from contracts.artifacts.store import ArtifactStore
from contracts.artifacts.tree import parse_artifact_uri
from endpunkt_infra.services import ServiceProcess

StartService = Callable[..., ServiceProcess]


@pytest.fixture
def endpunkt(start_service: StartService, tmp_path: Path) -> Command:
    studio = start_service("studio", studio_port="0")
    start_service("provisioner", drain_seconds="0")
    folder = tmp_path / "work"
    folder.mkdir()
    url = studio.readiness()["addresses"]["management"]
    return Command(folder, {"ENDPUNKT_HOME": str(tmp_path), "ENDPUNKT_STUDIO_URL": url})


async def test_assets_are_uploaded_and_numbered(endpunkt: Command, tmp_path: Path) -> None:
    store = ArtifactStore(str(tmp_path / "store"), tmp_path / "elsewhere", 1 << 20)
    endpunkt.write("linear/weights", "1")
    endpunkt.write("yaml/model.yml", "name: linear\npath: ../linear\ntags: {team: health}\n")

    first = (await endpunkt("model", "create", "-f", "yaml/model.yml")).json
    assert (first["id"], first["type"], first["tags"]) == ("azureml:linear:1", "custom_model", {"team": "health"})
    assert (store.fetch(parse_artifact_uri(first["path"])) / "weights").read_text() == "1"
    endpunkt.write("linear/weights", "2")
    second = (await endpunkt("model", "create", "-f", "yaml/model.yml")).json
    assert second["id"] == "azureml:linear:2"
    assert second["digest"] != first["digest"]
    taken = await endpunkt("model", "create", "-f", "yaml/model.yml", "--version", "1")
    assert (taken.code, "never replaced" in taken.errors) == (1, True), taken.errors
    assert (await endpunkt("model", "create", "-n", "linear", "-v", "7", "-p", "linear/weights")).code == 0
    assert (await endpunkt("model", "create", "-n", "linear", "-p", "linear")).json["version"] == "8"
    listed = (await endpunkt("model", "list", "-n", "linear")).json
    assert [each["version"] for each in listed] == ["1", "2", "7", "8"]
    assert (await endpunkt("model", "show", "-n", "linear")).json["version"] == "8"

    endpunkt.write("env.yml", "name: sci\nconda_file: {dependencies: [python=3.11, {pip: [six==1.17.0]}]}\n")
    environment = (await endpunkt("environment", "create", "-f", "env.yml")).json
    assert environment["id"] == "azureml:sci:1"
    assert b"six==1.17.0" in store.read(parse_artifact_uri(environment["path"]), "", 1000)
    bad = await endpunkt("environment", "create", "-f", endpunkt.write("bad.yml", "name: sci\nimage: i\n"))
    assert (bad.code, bad.errors[:32]) == (1, "endpunkt: bad.yml:1: conda_file:"), bad.errors

    endpunkt.write("src/score.py", "def init(): ...\ndef run(data): ...\n")
    assert (await endpunkt("code", "create", "-n", "scoring", "-p", "src")).json["id"] == "azureml:scoring:1"
    data = (await endpunkt("data", "create", "-n", "rows", "-p", "linear/weights", "-t", "uri_file")).json
    assert (data["id"], data["type"]) == ("azureml:rows:1", "uri_file")
    wrong = await endpunkt("data", "create", "-n", "rows", "-p", "linear/weights", "-t", "uri_folder")
    assert wrong.code == 1
    missing = await endpunkt("model", "create", "-n", "linear", "-p", "ghost")
    assert (missing.code, "does not exist: check the path" in missing.errors) == (1, True), missing.errors
    kinds = {kind: (await endpunkt(kind, "list")).json for kind in ("model", "environment", "code", "data")}
    assert {kind: len(each) for kind, each in kinds.items()} == {"model": 4, "environment": 1, "code": 1, "data": 1}
