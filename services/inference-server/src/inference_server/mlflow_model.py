"""An MLflow model without a script: loaded with the mlflow of the user's environment, scored in three protocols.

`POST /score` as Azure's no-code deployments: `{"input_data": D, "params": {…}}`, answered with the bare predictions.
D is `{"columns": […], "index": […], "data": [[…]]}` (columns and index may be left out), a list of records, a list of
rows (columns in the signature's order), or the tensors of a model with a tensor signature. MLflow's own formats are
taken too, as is `text/csv`.

`POST /invocations` as MLflow's scoring server (2.x, 3.x): JSON with one of `dataframe_split`, `dataframe_records`,
`instances` and `inputs`, beside `params`; `text/csv`; answered with `{"predictions": …}`. `GET /ping`, `/health`,
`/version` as there.

With `ENDPUNKT_PROTOCOL=v2`, the v2 protocol beside them: an input is a column or a named tensor of the signature; a
lone tensor stands for all columns in their order (shape [n, columns]) or for the unnamed input.

Input that the signature refuses is answered with 400 and mlflow's reason. Only functions that mlflow has had since
2.0 are used, and `mlflow.pyfunc.scoring_server` is not imported, as that wants more packages than mlflow-skinny has.
"""

from __future__ import annotations

import importlib
import io
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from inference_server import signature, swagger
from inference_server.http import Request
from inference_server.inputs import Arguments, InputError, passed_through
from inference_server.request import mimetype
from inference_server.response import AMLResponse
from inference_server.routes import Call, Page, Routes, fixed
from inference_server.script import ScriptError, said
from inference_server.settings import Settings
from inference_server.swagger import Interface
from inference_server.tensors import Tensor
from inference_server.workers import ScoringTimeout

log = logging.getLogger(__name__)

JSON = "application/json"
FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
NO_INPUT_DATA = "Request must contain a top level key named 'input_data'"
ONE_FORMAT = f"The input must be a JSON dictionary with exactly one of the input fields {', '.join(FORMATS)}"


class MlflowModel:
    def __init__(self, folder: Path):
        self._folder = folder
        self._model: Any = None
        self._mlflow: Any = None
        self._formats: Any = None  # mlflow.utils.proto_json_utils
        self._inputs: signature.Fields = None
        self._outputs: signature.Fields = None

    # -- start

    def initialise(self) -> None:
        """Loads the model. Raises ScriptError."""
        log.info("Loading the MLflow model %s", self._folder)
        try:
            self._mlflow = importlib.import_module("mlflow")
            self._formats = importlib.import_module("mlflow.utils.proto_json_utils")
            pyfunc = importlib.import_module("mlflow.pyfunc")
            config = os.environ.get("SERVING_MODEL_CONFIG")
            options = {"model_config": json.loads(config)} if config else {}
            self._model = pyfunc.load_model(str(self._folder), **options)
            signed = self._model.metadata.signature
            parts = signed.to_dict() if signed is not None else {}
            self._inputs = signature.fields(parts.get("inputs"))
            self._outputs = signature.fields(parts.get("outputs"))
        except BaseException as error:
            hint = ""
            if isinstance(error, ModuleNotFoundError) and error.name == "mlflow":
                hint = " Add mlflow or mlflow-skinny to the deployment's environment."
            message = f"The MLflow model {self._folder} cannot be loaded: {said(error)}.{hint}"
            raise ScriptError("UserScriptInitFailed", message) from error
        log.info("The MLflow model is loaded")

    def routes(self, settings: Settings) -> Routes:
        score = Call(self._parse_score, lambda **data: self._answer(self._predict(**data)))
        invoke = Call(self._parse_invocation, lambda **data: self._answer({"predictions": self._predict(**data)}))
        ping = fixed(JSON, b"\n")
        pages: dict[str, Page] = {
            "/swagger.json": swagger.page(settings, self._interface),
            "/ping": ping,
            "/health": ping,
            "/version": lambda request: (JSON, str(self._mlflow.__version__).encode()),
        }
        routes = Routes({"/score": score, "/invocations": invoke}, pages)
        if settings.protocol != "v2":
            return routes
        from inference_server import v2

        return routes.beside(v2.routes(settings, "mlflow", self._predict_tensors, self._tensors))

    def _interface(self) -> Interface:
        example = None
        path = self._folder / "serving_input_example.json"
        if path.is_file():
            given = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(given, dict):
                example = next((given[name] for name in FORMATS if name in given), None)
        return signature.interface(self._inputs, self._outputs, example)

    # -- input

    def _parse_score(self, request: Request) -> Arguments:
        if mimetype(request.headers) == "text/csv":
            return {"data": self._csv(request.body), "params": None}
        document = _json_object(request.body, NO_INPUT_DATA)
        params = document.get("params")
        if "input_data" in document:
            return {"data": self._read(lambda: self._input_data(document["input_data"])), "params": params}
        if not set(FORMATS) & set(document):
            raise InputError(400, NO_INPUT_DATA)
        return {"data": self._formatted(document), "params": params}

    def _parse_invocation(self, request: Request) -> Arguments:
        kind = mimetype(request.headers)
        if kind == "text/csv":
            return {"data": self._csv(request.body), "params": None}
        if kind != JSON:
            raise InputError(415, f"This predictor only supports the content types text/csv and {JSON}. Got '{kind}'.")
        document = _json_object(request.body, ONE_FORMAT)
        return {"data": self._formatted(document), "params": document.get("params")}

    def _formatted(self, document: Mapping[str, Any]) -> Any:
        given = [name for name in FORMATS if name in document]
        if len(given) != 1:
            raise InputError(400, f"{ONE_FORMAT}. Received dictionary with input fields: {list(document)}")
        name = given[0]
        value = document[name]
        typed = getattr(self._model.metadata, "_is_signature_from_type_hint", None)
        if name == "inputs" and typed is not None and typed():
            return value
        return self._read(lambda: self._format(name, value))

    def _format(self, name: str, value: Any) -> Any:
        if name.startswith("dataframe_"):
            orient = name[len("dataframe_") :]
            return self._formats.dataframe_from_parsed_json(value, pandas_orient=orient, schema=self._schema)
        return self._formats.parse_tf_serving_input({name: value}, schema=self._schema)

    def _input_data(self, data: Any) -> Any:
        columns = signature.column_names(self._inputs)
        if isinstance(data, dict) and "data" in data and set(data) <= {"columns", "index", "data"}:
            return self._format("dataframe_split", {**({"columns": columns} if columns else {}), **data})
        if isinstance(data, list) and data and all(isinstance(row, dict) for row in data):
            return self._format("dataframe_records", data)
        if isinstance(data, list) and columns:
            rows = data if all(isinstance(row, list) for row in data) else [[cell] for cell in data]
            return self._format("dataframe_split", {"columns": columns, "data": rows})
        return self._format("inputs", data)

    def _read(self, action: Callable[[], Any]) -> Any:
        """The caller's input in the model's form. What pandas cannot make of it is the caller's fault, too."""
        try:
            return self._fitting(action)
        except (InputError, ScoringTimeout):
            raise
        except Exception as error:
            raise InputError(400, f"The input cannot be read: {said(error)}") from error

    def _csv(self, body: bytes) -> Any:
        pandas = importlib.import_module("pandas")
        schema = self._schema
        try:
            types = dict(zip(schema.input_names(), schema.pandas_types())) if signature.is_table(self._inputs) else None
            return pandas.read_csv(io.StringIO(body.decode("utf-8")), dtype=types)
        except ScoringTimeout:
            raise
        except Exception as error:
            raise InputError(
                400,
                "Failed to parse input as a Pandas DataFrame. Ensure that the input is a valid CSV-formatted Pandas "
                f"DataFrame produced using the `pandas.DataFrame.to_csv()` method. Error: '{error}'",
            ) from error

    @property
    def _schema(self) -> Any:
        return self._model.metadata.get_input_schema()

    # -- user code

    def _predict(self, data: Any, params: Any) -> Any:
        """What the model gives for parsed data, as values of JSON and numpy."""
        predict = self._model.predict
        output = self._fitting(lambda: predict(data) if params is None else predict(data, params=params))
        return self._formats._get_jsonable_obj(output, pandas_orient="records")

    def _answer(self, document: Any) -> AMLResponse:
        text = json.dumps(document, cls=self._formats.NumpyEncoder)
        return AMLResponse(text, 200, {"Content-Type": JSON})

    def _fitting(self, action: Callable[[], Any]) -> Any:
        """What mlflow itself says about the caller's input becomes a 4xx with its reason."""
        try:
            return action()
        except self._mlflow.exceptions.MlflowException as error:
            status = error.get_http_status_code()
            if not 400 <= status < 500:
                if not passed_through(error, "mlflow", "_enforce_schema"):
                    raise
                status = 400  # mlflow before 2.4 calls this an internal error
            raise InputError(status, str(error.message)) from error

    # -- the v2 protocol

    def _tensors(self) -> Mapping[str, Any]:
        return {
            "inputs": signature.tensors(self._inputs, "input-0"),
            "outputs": signature.tensors(self._outputs, "output-0"),
        }

    def _predict_tensors(self, inputs: dict[str, Tensor], headers: Mapping[str, str]) -> Any:
        columns = signature.column_names(self._inputs)
        values = {name: tensor.value() for name, tensor in inputs.items()}
        lone = next(iter(values.values())) if len(values) == 1 else None
        data: Any = values
        if columns or not self._inputs:
            pandas = importlib.import_module("pandas")
            if lone is not None and not set(values) & set(columns) and lone.ndim == 2:
                fits = lone.shape[1] == len(columns) or not columns
                if not fits:
                    raise InputError(400, f"The model has {len(columns)} columns, the tensor {lone.shape[1]}.")
                data = pandas.DataFrame(lone, columns=columns) if columns else lone
            else:
                wrong = [name for name, value in values.items() if value.ndim == 0 or value.size != len(value)]
                if wrong:
                    raise InputError(400, f"Not a column (shape [n] or [n, 1]): {', '.join(wrong)}")
                if len({value.size for value in values.values()}) > 1:
                    raise InputError(400, f"Columns of different lengths: {', '.join(values)}")
                data = pandas.DataFrame({name: value.reshape(-1) for name, value in values.items()})
        elif lone is not None and "name" not in self._inputs[0]:
            data = lone
        return self._fitting(lambda: self._model.predict(data))


def _json_object(body: bytes, expected: str) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(400, f"Ensure that input is a valid JSON formatted string. Error: '{error!r}'") from None
    if not isinstance(document, dict):
        raise InputError(400, f"{expected}. Received a {type(document).__name__}.")
    return document
