"""What a deployment can ask of its server beyond a plain script: schemas (the real inference-schema), a configuration
file, sample requests, the data collector."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tests.integration.instances import DEADLINE, Serve, servers


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with servers(tmp_path) as start:
        yield start


SCHEMA = """
import numpy as np, pandas as pd
from inference_schema.schema_decorators import input_schema, output_schema
from inference_schema.parameter_types.numpy_parameter_type import NumpyParameterType
from inference_schema.parameter_types.pandas_parameter_type import PandasParameterType
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
def init(): pass
@input_schema("array", NumpyParameterType(np.array([[1.0, 2.0]])))
@input_schema("table", PandasParameterType(pd.DataFrame({"a": [1], "b": ["x"]})))
@input_schema("flag", StandardPythonParameterType(True))
@output_schema(StandardPythonParameterType({"sum": 1.0}))
def run(array, table, flag=False):
    if array.sum() < 0: raise ValueError("secret")
    assert isinstance(array, np.ndarray) and isinstance(table, pd.DataFrame)
    return {"sum": float(array.sum() + table["a"].sum()), "flag": flag}
"""
INPUT = {"array": [[1.0, 2.0]], "table": [{"a": 4, "b": "x"}], "flag": True}


def test_schema_mode(serve: Serve) -> None:
    server = serve(SCHEMA)
    assert server.post("/score", INPUT) == (200, {"sum": 7.0, "flag": True})
    without = {name: INPUT[name] for name in ("array", "table")}
    assert server.post("/score", without) == (200, {"sum": 7.0, "flag": False})
    response, body = server.ask("POST", "/score", json.dumps(INPUT), Content_Type="text/plain")
    assert (response.status, json.loads(body)) == (415, {"message": "Expects Content-Type to be application/json"})
    for document, reason in [
        ({"array": [[1.0, 2.0]]}, "A value is not provided for the 'table' parameter."),
        ([1], "POST body should be a JSON dictionary."),
        ({**INPUT, "array": [["x", 1.0]]}, "The input does not fit the schema of run(): "),
        ({**INPUT, "table": 1}, "The input does not fit the schema of run(): "),
    ]:
        status, answer = server.post("/score", document)
        assert (status, answer["message"][: len(reason)]) == (400, reason)
    status, answer = server.post("/score", {**INPUT, "array": [[-1.0, 0.0]]})
    assert status == 500
    assert "secret" not in answer["message"]


def test_the_schemas_are_in_swagger(serve: Serve) -> None:
    server = serve(SCHEMA, SERVICE_NAME="diabetes")
    status, document = server.get("/swagger.json")
    assert (status, document["swagger"], document["info"]["title"]) == (200, "2.0", "diabetes")
    schema = document["definitions"]["ServiceInput"]
    assert schema["properties"]["array"]["items"]["items"] == {"type": "number", "format": "double"}
    assert schema["example"]["table"] == [{"a": 1, "b": "x"}]
    assert document["definitions"]["ServiceOutput"]["example"] == {"sum": 1.0}
    for version, name in (("3", "3.0.3"), ("3.0", "3.0.3"), ("3.1", "3.1.0")):
        status, document = server.get(f"/swagger.json?version={version}")
        assert (status, document["openapi"]) == (200, name)
        assert document["components"]["schemas"]["ServiceInput"] == schema
    assert server.get("/swagger.json?version=4") == (
        404,
        {"message": "Swagger version [4] is not valid. Supported versions: [2, 3, 3.1]."},
    )


def test_schemas_with_the_v2_protocol(serve: Serve) -> None:
    server = serve(SCHEMA.replace('return {"sum"', 'return {"z"'), ENDPUNKT_PROTOCOL="v2")
    inputs = [
        {"name": "array", "datatype": "FP64", "shape": [1, 2], "data": [1.0, 2.0]},
        {"name": "table", "datatype": "INT64", "shape": [1], "data": [1]},
    ]
    status, answer = server.post("/v2/models/deployment/infer", {"inputs": inputs})
    assert (status, answer["error"][:42]) == (400, "The input does not fit the schema of run()")
    status, answer = server.post("/v2/models/deployment/infer", {"inputs": inputs[:1]})
    assert (status, answer) == (400, {"error": "An input is not provided for the 'table' parameter."})


def test_both_decorators(serve: Serve) -> None:
    raw = "from azureml.contrib.services.aml_request import rawhttp\n"
    server = serve(raw + SCHEMA.replace('@input_schema("array"', '@rawhttp\n@input_schema("array"'))
    assert server.wait() == 3
    assert server.status()["code"] == "BadArgument"
    assert "both @rawhttp and @input_schema" in server.status()["message"]


PLAIN = "def init(): print('init was here')\ndef run(data):\n  return {'got': data}\n"


def test_a_configuration_file(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"AZUREML_ENTRY_SCRIPT": "score.py", "SERVICE_NAME": "file"}))
    (tmp_path / "score.py").write_text(PLAIN)
    server = serve(SERVICE_VERSION="7")
    info = server.get("/swagger.json")[1]["info"]
    assert (info["title"], info["version"]) == ("file", "7")


WARM = """
import os
def init(): print("init")
def run(data):
    print("warm", data, os.path.exists(os.environ["ENDPUNKT_STATUS_FILE"] + ".seen"))
    if data == "bad": raise ValueError("cold")
    return "x" * int(os.environ.get("SIZE", "1"))
"""


def test_a_warm_up_comes_before_readiness(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "sample.json").write_text("sample")
    server = serve(WARM, ENDPUNKT_WARMUP_FILE=str(tmp_path / "sample.json"))
    assert server.ask("GET", "/")[0].status == 200
    server.wait_for_log("ready for serving")
    assert server.log.index("init") < server.log.index("warm sample") < server.log.index("ready for serving")


@pytest.mark.parametrize(
    ("body", "environ", "says"),
    [
        ("bad", {}, 'was answered with the status 500: {"message": "An unexpected error'),
        ("good", {"SIZE": "9", "ENDPUNKT_MAX_RESPONSE_BYTES": "10"}, "run() returned 11 bytes; an answer may have 10."),
        (None, {}, "cannot be read"),
    ],
)
def test_a_failed_warm_up_fails_the_start(
    serve: Serve, tmp_path: Path, body: str | None, environ: dict[str, str], says: str
) -> None:
    if body is not None:
        (tmp_path / "sample.json").write_text(body)
    server = serve(WARM, ENDPUNKT_WARMUP_FILE=str(tmp_path / "sample.json"), **environ)
    assert server.wait() == 3
    assert server.status()["state"] == "failed"
    assert server.status()["code"] == "UserScriptInitFailed"
    assert says in server.status()["message"]


# -- the data collector

COLLECTING = """
import json, os
import pandas as pd
from azureml.ai.monitoring import Collector
from azureml.ai.monitoring.context import BasicCorrelationContext
def init():
    global inputs, outputs, off
    inputs, outputs = Collector(name="model_inputs"), Collector(name="model_outputs")
    off = Collector(name="off", on_error=lambda error: print("refused:", error))
def run(data):
    frame = pd.DataFrame(json.loads(data))
    context = inputs.collect(frame, BasicCorrelationContext(id=str(len(data)), headers={"X-Who": "me"}))
    outputs.collect(frame * 2, context)
    return {"n": len(frame)}
"""
SETTINGS = {
    "sampling_rate": 1.0,
    "collections": {
        "request": {"enabled": True},
        "response": {"enabled": "True"},
        "model_inputs": {"enabled": True, "data": None},
        "model_outputs": {},
        "off": {"enabled": False},
    },
    "request_logging": {"capture_headers": ["X-User-Id"]},
}


def collected(folder: Path, collection: str) -> list[dict[str, Any]]:
    files = sorted((folder / "e/d" / collection).glob("[0-9]*/[0-9]*/[0-9]*/[0-9]*/*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def test_the_data_collector(serve: Serve, tmp_path: Path) -> None:
    folder = tmp_path / "collected"
    server = serve(
        COLLECTING,
        ENDPUNKT_COLLECTOR=json.dumps(SETTINGS),
        ENDPUNKT_COLLECTOR_DIR=str(folder),
        ENDPUNKT_ENDPOINT="e",
        ENDPUNKT_DEPLOYMENT="d",
    )
    assert server.post("/score", [{"a": 1}], x_request_id="R1", X_User_Id="u")[0] == 200
    response, _ = server.ask("POST", "/score?q=1", b"\xff\x00", Content_Type="image/png")
    assert response.status == 400
    assert server.stop() == 0
    assert "refused: collection off is not enabled, drop the data" in server.log
    assert not list(folder.rglob("*.part"))
    first, second = collected(folder, "request")
    assert first.pop("id")
    assert first.pop("time")
    assert first == {
        "specversion": "1.0",
        "source": "/onlineEndpoints/e/deployments/d",
        "type": "azureml.inference.request",
        "datacontenttype": "application/json",
        "data": [{"a": 1}],
        "correlationid": "R1",
        "xrequestid": "R1",
        "modelversion": "default",
        "agent": "endpunkt/0.1.0",
        "contentrange": "bytes 0-9/10",
        "xuserid": "u",
        "path": "/score",
        "method": "POST",
    }
    assert (second["data_base64"], second["path"]) == ("/wA=", "/score?q=1")
    answers = collected(folder, "response")
    assert (answers[0]["data"], answers[0]["statuscode"], answers[0]["xrequestid"]) == ({"n": 1}, "200", "R1")
    assert (answers[1]["statuscode"], answers[1]["xrequestid"]) == ("400", second["xrequestid"])
    (given,), (made,) = collected(folder, "model_inputs"), collected(folder, "model_outputs")
    assert (given["data"], made["data"]) == ([{"a": 1}], [{"a": 2}])
    assert given["correlationid"] == made["correlationid"] == "10"
    assert (given["xwho"], given["collectdatatype"]) == ("me", f"{pd.DataFrame.__module__}.DataFrame")


def test_what_was_collected_is_finished_when_the_drain_time_is_over(serve: Serve, tmp_path: Path) -> None:
    script = """
import time
def init(): pass
def run(data):
    if data == "hang":
        print("hangs")
        time.sleep(600)
"""
    folder = tmp_path / "collected"
    server = serve(
        script,
        ENDPUNKT_COLLECTOR=json.dumps(SETTINGS),
        ENDPUNKT_COLLECTOR_DIR=str(folder),
        ENDPUNKT_ENDPOINT="e",
        ENDPUNKT_DEPLOYMENT="d",
        ENDPUNKT_DRAIN_SECONDS="0.2",
    )
    assert server.ask("POST", "/score", "x")[1] == b"{}"
    with ThreadPoolExecutor() as threads:
        hangs = threads.submit(server.ask, "POST", "/score", "hang")
        server.wait_for_log("hangs")
        assert server.stop() == 0
        assert isinstance(hangs.exception(DEADLINE), ConnectionError)
    assert "The drain time is over with 1 requests unfinished" in server.log
    assert not list(folder.rglob("*.part"))
    assert [each["data"] for each in collected(folder, "request")] == ["x"]


@pytest.mark.parametrize("preload", ["false", "true"])
def test_each_worker_process_warms_up_and_collects(serve: Serve, tmp_path: Path, preload: str) -> None:
    (tmp_path / "sample.json").write_text('[{"a": 1}]')
    server = serve(
        COLLECTING,
        WORKER_COUNT="2",
        WORKER_PRELOAD=preload,
        ENDPUNKT_WARMUP_FILE=str(tmp_path / "sample.json"),
        ENDPUNKT_COLLECTOR=json.dumps(SETTINGS),
        ENDPUNKT_COLLECTOR_DIR=str(tmp_path / "collected"),
        ENDPUNKT_ENDPOINT="e",
        ENDPUNKT_DEPLOYMENT="d",
    )
    server.wait_for_log("The warm-up request was answered with 200", times=2)
    server.wait_for_log("ready for serving traffic", times=2)
    for _ in range(4):
        assert server.post("/score", [{"a": 1}])[0] == 200
    assert server.stop() == 0
    for collection in ("request", "response", "model_inputs", "model_outputs"):  # without the warm-ups
        assert len(collected(tmp_path / "collected", collection)) == 4
    assert not list((tmp_path / "collected").rglob("*.part"))


def test_a_collector_that_is_not_enabled_fails_init_as_on_azure(serve: Serve) -> None:
    server = serve(COLLECTING)
    assert server.wait() == 3
    assert "custom logging is not enabled, drop the data" in server.status()["message"]


def test_a_disk_that_fails_costs_no_answer(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    server = serve(PLAIN, ENDPUNKT_COLLECTOR=json.dumps(SETTINGS), ENDPUNKT_COLLECTOR_DIR=str(tmp_path / "file"))
    assert server.ask("POST", "/score", "x")[1] == b'{"got": "x"}'
    server.wait_for_log("A collected event is lost: NotADirectoryError")
    assert server.stop() == 0
    assert "has dropped 2 events" in server.log
