"""What a client may send to have a server fail: it is answered, says what is wrong, and the same process serves on."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from tests.integration.instances import ServerProcess

DEEP = "[" * 100_000

V2 = """
import os
import numpy as np
def init(): pass
def run(inputs):
    return {"pid": [os.getpid()], "y": np.float64([1.0]) / np.asarray(inputs["x"], dtype="float64").reshape(-1)}
"""
SCHEMA = """
import os
from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType
from inference_schema.schema_decorators import input_schema
def init(): pass
@input_schema("x", StandardPythonParameterType(1))
def run(x): return [os.getpid(), x]
"""
PLAIN = """
import json, os
def init(): pass
def run(raw):
    value = json.loads(raw) if raw.startswith("{") else None
    if value == {"make": "cycle"}:
        row = []; row.append(row); return row
    if value == {"make": "depth"}:
        row = []
        for _ in range(100_000): row = [row]
        return row
    if value == {"make": "endless"}:
        return (b"x" * 65536 for _ in iter(int, 1))
    return os.getpid()
"""


def started(folder: Path, script: str | None = None, **environ: str) -> Iterator[ServerProcess]:
    server = ServerProcess(folder, script, **environ)
    yield server
    server.process.kill()
    server.wait()


@pytest.fixture(scope="module")
def v2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from started(tmp_path_factory.mktemp("v2"), V2, ENDPUNKT_PROTOCOL="v2", ENDPUNKT_DEPLOYMENT="blue")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from started(tmp_path_factory.mktemp("plain"), PLAIN, ENDPUNKT_MAX_RESPONSE_BYTES="1000000")


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    yield from started(tmp_path_factory.mktemp("schema"), SCHEMA)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("mlflow")
    table = pd.DataFrame({"a": [1.0, 2.0], "b": [0.0, 1.0]})
    fitted = LinearRegression().fit(table, [1.0, 3.0])
    signature = infer_signature(table, fitted.predict(table))
    mlflow.sklearn.save_model(
        fitted,
        folder / "model",
        signature=signature,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    yield from started(
        folder, ENDPUNKT_MLFLOW_MODEL=str(folder / "model"), ENDPUNKT_PROTOCOL="v2", ENDPUNKT_DEPLOYMENT="blue"
    )


def told(server: ServerProcess, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    response, answer = server.ask(method, path, body, Content_Type="application/json")
    return response.status, json.loads(answer)


def v2_body(**changes: Any) -> str:
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
    return json.dumps({"id": "7", "inputs": [tensor | changes]})


@pytest.mark.parametrize(
    ("body", "about"),
    [
        (DEEP, "JSON"),
        ('{"inputs": ' + DEEP, "JSON"),
        ('{"inputs": {"name": "x"}}', "inputs"),
        ('{"inputs": [7]}', "input"),
        (v2_body(datatype=[]), "datatype"),
        (v2_body(datatype={"FP64": 1}), "datatype"),
        (v2_body(datatype="FP65"), "datatype"),
        (v2_body(shape=[-1]), "shape"),
        (v2_body(shape=[True]), "shape"),
        (v2_body(shape=[2**70]), "shape"),
        (v2_body(shape=[1] * 40), "shape"),
        (v2_body(shape=[0, 10**12], data=[]), "shape"),
        (v2_body(shape=[10**9]), "shape"),
        (v2_body(data=[10**400]), "input 'x'"),
        (v2_body(data=["one"]), "input 'x'"),
        (v2_body(data={}), "input 'x'"),
        (v2_body()[:-1] + ', "outputs": [{}]}', "outputs"),
        (v2_body()[:-1] + ', "outputs": [{"name": []}]}', "outputs"),
        (v2_body()[:-1] + ', "outputs": [{"name": "z"}]}', "z"),
    ],
)
def test_tensors(v2: ServerProcess, body: str, about: str) -> None:
    _, before = told(v2, "POST", "/v2/models/blue/infer", v2_body())
    status, answer = told(v2, "POST", "/v2/models/blue/infer", body)
    assert (status, about in answer["error"]) == (400, True), answer
    assert told(v2, "POST", "/v2/models/blue/infer", v2_body()) == (200, before)


def test_a_number_that_json_has_not(v2: ServerProcess) -> None:
    status, answer = told(v2, "POST", "/v2/models/blue/infer", v2_body(data=[0.0]))
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert (status, outputs["y"]) == (200, [None])


def test_a_length_of_the_head_that_is_none(v2: ServerProcess) -> None:
    for length in ("-1", "9" * 5000, "²", "1e3"):
        headers = {"Inference_Header_Content_Length": length.encode().decode("latin-1")}
        response, body = v2.ask("POST", "/v2/models/blue/infer", v2_body(), **headers)
        assert response.status == 400, body
        assert len(body) < 400


@pytest.mark.parametrize("body", [DEEP, '{"x": ' + DEEP, '{"x": ' + "9" * 10_000 + "}", "7"])
def test_arguments_by_schema(schema: ServerProcess, body: str) -> None:
    before = schema.post("/score", {"x": 2})
    status, answer = told(schema, "POST", "/score", body)
    assert (status, bool(answer["message"])) == (400, True)
    assert schema.post("/score", {"x": 2}) == before


def test_a_query_that_is_nested_deeply_is_a_text(plain: ServerProcess) -> None:
    before = plain.post("/score", {})
    assert plain.get("/score?x=" + "[" * 20_000)[0] == 200
    assert plain.post("/score", {}) == before


@pytest.mark.parametrize("made", ["cycle", "depth"])
def test_a_value_that_json_cannot_tell(plain: ServerProcess, made: str) -> None:
    before = plain.post("/score", {})
    status, answer = plain.post("/score", {"make": made})
    assert status == 500, answer
    assert plain.post("/score", {}) == before


def test_an_answer_without_an_end_is_cut_off(plain: ServerProcess) -> None:
    before = plain.post("/score", {})
    with pytest.raises((OSError, http.client.HTTPException)):
        plain.ask("POST", "/score", '{"make": "endless"}')
    plain.wait_for_log("ENDPUNKT_MAX_RESPONSE_BYTES")
    assert plain.post("/score", {}) == before


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", DEEP),
        ("/score", '{"input_data": ' + DEEP),
        ("/score", '{"input_data": {"columns": ["a", "b"], "data": [[[], {}]]}}'),
        ("/score", '{"input_data": {"columns": [["a"], {}], "data": [[1, 2]]}}'),
        ("/score", '{"input_data": {"columns": ["a", "a"], "data": [[1, 2]]}}'),
        ("/score", '{"input_data": {"columns": ["a", "b"], "index": [1, 2, 3], "data": [[1, 2], [3, 4]]}}'),
        ("/invocations", '{"dataframe_split": {"columns": 7, "data": "x"}}'),
        ("/invocations", '{"dataframe_records": [1, [2], null]}'),
        ("/invocations", '{"inputs": {"a": [1], "b": [1, 2]}}'),
        ("/v2/models/blue/infer", v2_body(name="a", shape=[])),
        ("/v2/models/blue/infer", v2_body(name="a", shape=[1, 1, 1])),
        (
            "/v2/models/blue/infer",
            json.dumps(
                {
                    "inputs": [
                        {"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]},
                        {"name": "b", "shape": [2], "datatype": "FP64", "data": [1.0, 2.0]},
                    ]
                }
            ),
        ),
    ],
)
def test_tables(tables: ServerProcess, path: str, body: str) -> None:
    good = {"input_data": {"columns": ["a", "b"], "data": [[1.0, 1.0]]}}
    before = tables.post("/score", good)
    status, answer = told(tables, "POST", path, body)
    assert (status, bool(answer)) == (400, True)
    assert (tables.process.poll(), tables.post("/score", good)) == (None, before)
