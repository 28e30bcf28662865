"""MLflow models, saved and loaded by the real mlflow, and the Open Inference Protocol v2."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import mlflow.sklearn
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression
from tests.integration.instances import Serve, ServerProcess, servers


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    with servers(tmp_path) as start:
        yield start


# -- MLflow


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "model"
    table = pd.DataFrame({"a": [1.0, 2.0, 4.0], "b": [0.0, 1.0, 0.0]})
    fitted = LinearRegression().fit(table, [1.0, 3.0, 4.0])  # a + b
    mlflow.sklearn.save_model(
        fitted,
        folder,
        signature=infer_signature(table, fitted.predict(table)),
        input_example=table,
        serialization_format="cloudpickle",
        pip_requirements=["scikit-learn"],
    )
    return folder


class Scaled(mlflow.pyfunc.PythonModel):  # type: ignore[name-defined, misc]
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def] # mlflow reads type hints
        return model_input * (params or {"factor": 1})["factor"]


@pytest.fixture(scope="module")
def tensors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow") / "tensors"
    example = np.array([[1.0, 2.0]])
    signature = infer_signature(example, example, params={"factor": 1})
    mlflow.pyfunc.save_model(folder, python_model=Scaled(), signature=signature, pip_requirements=["numpy"])
    return folder


SPLIT = {"columns": ["a", "b"], "index": [0, 1], "data": [[1.0, 1.0], [2.0, 0.5]]}
RECORDS = [{"a": 1.0, "b": 1.0}, {"a": 2.0, "b": 0.5}]


def about(numbers: list[float]) -> Any:
    return pytest.approx(numbers)


def test_an_mlflow_model(serve: Serve, model: Path) -> None:
    server = serve(ENDPUNKT_MLFLOW_MODEL=str(model))
    assert server.ask("GET", "/")[1] == b"Healthy"
    for given in (SPLIT, RECORDS, SPLIT["data"], {"data": SPLIT["data"]}, {"a": [1.0, 2.0], "b": [1.0, 0.5]}):
        assert server.post("/score", {"input_data": given}) == (200, about([2.0, 2.5]))
    for name, given in {
        "dataframe_split": SPLIT,
        "dataframe_records": RECORDS,
        "inputs": {"a": [1.0, 2.0], "b": [1.0, 0.5]},
        "instances": RECORDS,
    }.items():
        assert server.post("/invocations", {name: given}) == (200, {"predictions": about([2.0, 2.5])})
    response, body = server.ask("POST", "/invocations", "a,b\n1,1\n2,0.5\n", Content_Type="text/csv")
    assert (response.status, json.loads(body)) == (200, {"predictions": about([2.0, 2.5])})
    assert [server.ask("GET", path)[1] for path in ("/ping", "/health")] == [b"\n", b"\n"]
    assert server.ask("GET", "/version")[1].decode() == mlflow.__version__


@pytest.mark.parametrize(
    ("path", "document", "status", "reason"),
    [
        ("/score", {"data": 1}, 400, "Request must contain a top level key named 'input_data'"),
        ("/score", [1], 400, "Request must contain a top level key named 'input_data'. Received a list."),
        ("/score", {"input_data": {"columns": ["a"], "data": [[1.0]]}}, 400, "Model is missing inputs ['b']"),
        ("/score", {"input_data": {"columns": ["a", "b"], "data": [["x", 1.0]]}}, 400, "Failed to convert column a"),
        ("/invocations", {"inputs": [], "instances": []}, 400, "exactly one of the input fields dataframe_split"),
        ("/invocations", {"dataframe_split": [1]}, 400, "Dataframe split format must be a dictionary. Got list."),
    ],
)
def test_input_that_an_mlflow_model_refuses(
    mlflow_server: ServerProcess, path: str, document: object, status: int, reason: str
) -> None:
    answered, answer = mlflow_server.post(path, document)
    assert answered == status, mlflow_server.log
    assert reason in answer["message"]
    assert ("error_code" in answer) == (path == "/invocations")


@pytest.fixture(scope="module")
def mlflow_server(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path_factory.mktemp("root"), ENDPUNKT_MLFLOW_MODEL=str(model))
    yield server
    server.process.kill()
    server.wait()


def test_an_mlflow_models_other_answers(mlflow_server: ServerProcess) -> None:
    response, body = mlflow_server.ask("POST", "/invocations", "x", Content_Type="image/png")
    assert (response.status, json.loads(body)["error_code"]) == (415, "INTERNAL_ERROR")
    response, body = mlflow_server.ask("POST", "/score", b"\xff")
    assert response.status == 400
    response, _ = mlflow_server.ask("GET", "/score")
    assert (response.status, response.getheader("Allow")) == (405, "POST, OPTIONS")
    schema = mlflow_server.get("/swagger.json")[1]["definitions"]["ServiceInput"]
    assert schema["properties"]["input_data"]["properties"]["columns"]["items"]["enum"] == ["a", "b"]
    assert schema["example"]["input_data"]["columns"] == ["a", "b"]
    assert mlflow_server.post("/score", schema["example"])[0] == 200


def test_params_and_tensors_of_an_mlflow_model(serve: Serve, tensors: Path) -> None:
    server = serve(ENDPUNKT_MLFLOW_MODEL=str(tensors))
    assert server.post("/score", {"input_data": [[1.0, 2.0]], "params": {"factor": 3}}) == (200, [[3.0, 6.0]])
    answer = server.post("/invocations", {"inputs": [[1.0, 2.0]], "params": {"factor": 2}})
    assert answer == (200, {"predictions": [[2.0, 4.0]]})
    assert server.post("/score", {"input_data": [[1.0, 2.0, 3.0]]})[0] == 400


def test_an_mlflow_model_that_cannot_be_loaded(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {python_function: {loader_module: nowhere.at_all}}\n")
    server = serve(ENDPUNKT_MLFLOW_MODEL=str(tmp_path))
    assert server.wait() == 3
    assert server.status()["code"] == "UserScriptInitFailed"
    assert "nowhere" in server.status()["message"]
    assert "Traceback" in server.log


# -- the v2 protocol


def tensor(name: str, datatype: str, shape: list[int], data: list[Any]) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


V2 = """
import numpy as np
def init(): pass
def run(inputs, request_headers):
    x = inputs["x"]
    assert isinstance(x, np.ndarray) and x.dtype == np.float32, x
    return {"y": x * 2, "rows": [row.tolist() for row in x], "word": [request_headers["X-Word"]]}
"""


def test_the_v2_protocol(serve: Serve) -> None:
    server = serve(V2, ENDPUNKT_PROTOCOL="v2", ENDPUNKT_DEPLOYMENT="blue")
    assert server.get("/v2/health/live") == (200, {"live": True})
    assert server.get("/v2/health/ready") == (200, {"ready": True})
    assert server.get("/v2")[1]["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/models/blue/ready") == (200, {"name": "blue", "ready": True})
    assert server.get("/v2/models/blue/versions/1")[1]["name"] == "blue"
    assert list(server.get("/v2/models/green")[1]) == ["error"]
    body = {"id": "7", "inputs": [tensor("x", "FP32", [2, 2], [1, 2, 3, 4])]}
    expected = {
        "model_name": "blue",
        "model_version": "1",
        "id": "7",
        "outputs": [
            tensor("y", "FP32", [2, 2], [2.0, 4.0, 6.0, 8.0]),
            tensor("rows", "FP64", [2, 2], [1.0, 2.0, 3.0, 4.0]),
            tensor("word", "BYTES", [1], ["w"]),
        ],
    }
    for path in ("/v2/models/blue/infer", "/v2/models/blue/versions/1/infer"):
        assert server.post(path, body, X_Word="w") == (200, expected)
    only = {**body, "outputs": [{"name": "word"}]}
    assert server.post("/v2/models/blue/infer", only, X_Word="w")[1]["outputs"] == expected["outputs"][2:]
    status, answer = server.post("/v2/models/blue/infer", {"inputs": [tensor("x", "FP32", [3], [1, 2])]})
    assert (status, answer) == (400, {"error": "input 'x': 2 elements do not make the shape [3], which has 3"})


def exchanged(server: ServerProcess, method: str, path: str, body: str | None = None) -> tuple[object, ...]:
    """An answer without what differs from one to the next."""
    response, answer = server.ask(method, path, body, x_request_id="R")
    changes = ("date", "x-ms-run-fn-exec-ms")
    return response.status, [field for field in response.getheaders() if field[0].lower() not in changes], answer


EITHER = "def init(): ...\ndef run(data): return {'got': data if isinstance(data, str) else sorted(data)}\n"
BODY = json.dumps({"inputs": [tensor("x", "FP32", [1], [1])]})


def test_the_v2_protocol_comes_beside_azures(serve: Serve) -> None:
    plain, both = serve(EITHER), serve(EITHER, ENDPUNKT_PROTOCOL="v2")
    for method, path, body in [
        ("POST", "/score", BODY),
        ("GET", "/score?a=1&a=2", None),
        ("OPTIONS", "/score", None),
        ("DELETE", "/score", None),
        *(("GET", f"/swagger.json?version={version}", None) for version in ("2", "3", "3.1", "4")),
        ("GET", "/", None),
    ]:
        assert exchanged(both, method, path, body) == exchanged(plain, method, path, body)
    assert both.post("/score", 7) == (200, {"got": "7"})
    status, answer = both.post("/v2/models/deployment/infer", json.loads(BODY))
    assert (status, answer["outputs"]) == (200, [tensor("got", "BYTES", [1], ["x"])])
    assert plain.ask("GET", "/v2")[0].status == 404


@pytest.mark.parametrize(("sample", "got"), [(BODY, "dict"), ('{"inputs": [1]}', "str"), ("[", "str")])
def test_a_sample_warms_up_the_protocol_that_it_is_for(serve: Serve, tmp_path: Path, sample: str, got: str) -> None:
    (tmp_path / "sample.json").write_text(sample)
    script = "def init(): ...\ndef run(data): print('a sample as', type(data).__name__); return [1]\n"
    server = serve(script, ENDPUNKT_PROTOCOL="v2", ENDPUNKT_WARMUP_FILE=str(tmp_path / "sample.json"))
    server.wait_for_log("ready for serving traffic")
    assert server.log.count("a sample as") == server.log.count(f"a sample as {got}") == 1


def test_binary_tensors(serve: Serve) -> None:
    server = serve(V2, ENDPUNKT_PROTOCOL="v2", ENDPUNKT_DEPLOYMENT="blue")
    binary = struct.pack("<2f", 1, 2)
    described = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": len(binary)}}
    outputs = [
        {"name": "word", "parameters": {"binary_data": True}},
        {"name": "y", "parameters": {"binary_data": True}},
    ]
    head = json.dumps({"inputs": [described], "outputs": outputs}).encode()
    length = {"Inference_Header_Content_Length": str(len(head)), "X_Word": "ä".encode().decode("latin-1")}
    response, body = server.ask("POST", "/v2/models/blue/infer", head + binary, **length)
    assert response.status == 200, body
    size = int(response.getheader("Inference-Header-Content-Length") or 0)
    document, tail = json.loads(body[:size]), body[size:]
    assert [output["parameters"]["binary_data_size"] for output in document["outputs"]] == [8, 8]
    assert tail == struct.pack("<I", 4) + "Ã¤".encode() + struct.pack("<2f", 2, 4)
    response, body = server.ask("POST", "/v2/models/blue/infer", head + binary[:3], **length)
    assert (response.status, json.loads(body)["error"]) == (
        400,
        "input 'x': binary_data_size=8 is more than the body holds",
    )


def test_an_mlflow_model_with_the_v2_protocol(serve: Serve, model: Path) -> None:
    server = serve(ENDPUNKT_MLFLOW_MODEL=str(model), ENDPUNKT_PROTOCOL="v2", ENDPUNKT_DEPLOYMENT="blue")
    assert server.get("/v2/models/blue") == (
        200,
        {
            "name": "blue",
            "versions": ["1"],
            "platform": "mlflow",
            "inputs": [
                {"name": "a", "datatype": "FP64", "shape": [-1]},
                {"name": "b", "datatype": "FP64", "shape": [-1]},
            ],
            "outputs": [{"name": "output-0", "datatype": "FP64", "shape": [-1]}],
        },
    )
    columns = [tensor("a", "FP64", [2], [1.0, 2.0]), tensor("b", "FP64", [2, 1], [1.0, 0.5])]
    for inputs in (columns, [tensor("all", "FP64", [2, 2], [1.0, 1.0, 2.0, 0.5])]):
        status, answer = server.post("/v2/models/blue/infer", {"inputs": inputs})
        assert (status, answer["outputs"][0]["data"]) == (200, about([2.0, 2.5]))
    status, answer = server.post("/v2/models/blue/infer", {"inputs": columns[:1]})
    assert (status, "missing inputs ['b']" in answer["error"]) == (400, True)
    assert server.post("/invocations", {"dataframe_split": SPLIT})[0] == 200
    assert server.post("/score", {"input_data": SPLIT}) == (200, about([2.0, 2.5]))
    assert server.get("/swagger.json")[1]["definitions"]["ServiceInput"]["properties"]["input_data"]
