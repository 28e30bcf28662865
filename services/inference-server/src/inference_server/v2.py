"""The Open Inference Protocol v2 (REST), for deployments with `ENDPUNKT_PROTOCOL=v2`. It comes beside Azure's routes:
`/score` and `/swagger.json` are as without it.

`GET /v2`, `/v2/health/live`, `/v2/health/ready`, `/v2/models`, `/v2/models/<m>` and `/v2/models/<m>/ready`;
`POST /v2/models/<m>/infer`; the last three also below `/versions/1`. `<m>` is the deployment's name. A warm-up's sample
that is an inference request goes to `/v2/models/<m>/infer`, every other one to `/score`.

What a script's `run()` gets: its first parameter a dict of input name to numpy array (nested lists where the
environment has no numpy; elements of BYTES are str, or bytes when they came in binary). With `@input_schema` each
parameter gets the input of its name as nested lists, which the schema converts. `@rawhttp` is refused. A parameter
`request_headers` is filled in as ever.

What `run()` may return: a dict of output name to array, nested lists or scalar; one array, list or scalar, which is
named `output-0`; a DataFrame, whose columns are outputs; an `AMLResponse`, sent as it is. Datatypes are those of
numpy's arrays, and BOOL, INT64, FP64 and BYTES for Python's bool, int, float and str. NaN and infinities are null in
an answer's JSON; binary data keeps them.

The binary tensor data extension is understood in both directions. Errors below `/v2` are `{"error": …}`, with 400 for
a bad tensor.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from inference_server import __version__
from inference_server.http import Request
from inference_server.inputs import Arguments, InputError, SignatureError, refusing_unfit_input, request_headers
from inference_server.replies import UnsendableOutput
from inference_server.response import AMLResponse
from inference_server.routes import Call, Page, Routes, fixed
from inference_server.settings import Settings
from inference_server.tensors import Tensor, TensorError, as_json, from_json, nested, pack, to_tensor

VERSION = "1"
JSON_LENGTH = "inference-header-content-length"
Predict = Callable[["dict[str, Tensor]", "Mapping[str, str]"], Any]  # inputs and headers to what the model returned


def routes(settings: Settings, platform: str, predict: Predict, tensors: Callable[[], Mapping[str, Any]]) -> Routes:
    """`tensors` tells the metadata's `inputs` and `outputs`; it is asked at each request for them."""
    name = settings.deployment

    def infer(inputs: dict[str, Tensor], headers: Mapping[str, str], asked: Mapping[str, Any]) -> Any:
        try:
            output = predict(inputs, headers)
        except TensorError as error:
            raise InputError(400, str(error)) from error
        return _answer(name, output, asked)

    def model(request: Request) -> tuple[str, bytes]:
        return _JSON, _dump({"name": name, "versions": [VERSION], "platform": platform, **tensors()})

    call = Call(_parse, infer)
    ready = fixed(_JSON, _dump({"name": name, "ready": True}))
    server = {"name": "endpunkt", "version": __version__, "extensions": ["binary_tensor_data"]}
    pages: dict[str, Page] = {
        "/v2": fixed(_JSON, _dump(server)),
        "/v2/health/live": fixed(_JSON, _dump({"live": True})),
        "/v2/health/ready": fixed(_JSON, _dump({"ready": True})),
        "/v2/models": fixed(_JSON, _dump({"models": [name]})),
    }
    calls = {}
    for path in (_model_path(settings), f"{_model_path(settings)}/versions/{VERSION}"):
        pages[path] = model
        pages[f"{path}/ready"] = ready
        calls[f"{path}/infer"] = call
    return Routes(calls, pages)


def sample_path(settings: Settings, body: bytes) -> str:
    """Where a sample request belongs."""
    try:
        inputs = json.loads(body)["inputs"]
        tensors = bool(inputs) and all({"name", "datatype", "shape"} <= set(each) for each in inputs)
    except (ValueError, TypeError, LookupError, RecursionError):
        tensors = False
    return f"{_model_path(settings)}/infer" if tensors else "/score"


def _model_path(settings: Settings) -> str:
    return f"/v2/models/{quote(settings.deployment)}"


def script_predict(run: Callable[..., Any], raw: bool, schema: bool) -> Predict:
    """How a script's `run()` is called. Raises SignatureError; `run`'s signature has been checked before."""
    if raw:
        raise SignatureError("run() with @rawhttp cannot be served with the v2 protocol: it would get no tensors.")
    parameters = list(inspect.signature(run).parameters.values())
    inputs = [parameter for parameter in parameters if parameter.name != "request_headers"]
    wants_headers = len(inputs) < len(parameters)
    call = refusing_unfit_input(run) if schema else run

    def predict(tensors: dict[str, Tensor], headers: Mapping[str, str]) -> Any:
        arguments: Arguments = {}
        if schema:
            for parameter in inputs:
                if parameter.name in tensors:
                    tensor = tensors[parameter.name]
                    arguments[parameter.name] = nested(tensor.data, tensor.shape)
                elif parameter.default is parameter.empty:
                    raise InputError(400, f"An input is not provided for the {parameter.name!r} parameter.")
        else:
            arguments[inputs[0].name] = {name: tensor.value() for name, tensor in tensors.items()}
        if wants_headers:
            arguments["request_headers"] = dict(headers)
        return call(**arguments)

    return predict


_JSON = "application/json"


def _dump(document: object) -> bytes:
    return json.dumps(document).encode()


def _parse(request: Request) -> Arguments:
    """A request's tensors by name. Raises InputError."""
    text, binary = request.body, b""
    length = request.headers.get(JSON_LENGTH)
    if length is not None:
        digits = length.isascii() and length.isdigit() and len(length) < 20
        if not digits or int(length) > len(request.body):
            raise InputError(400, f"Inference-Header-Content-Length={length[:40]!r} is not a length within the body.")
        text, binary = request.body[: int(length)], request.body[int(length) :]
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(400, f"The inference request could not be decoded as JSON: {error}") from None
    if not isinstance(document, dict) or not isinstance(document.get("inputs"), list) or not document["inputs"]:
        raise InputError(400, "An inference request is an object with a list 'inputs' of one or more tensors.")
    inputs: dict[str, Tensor] = {}
    offset = 0
    try:
        for item in document["inputs"]:
            tensor, offset = from_json(item, binary, offset)
            if tensor.name in inputs:
                raise TensorError(f"input {tensor.name!r} is given twice")
            inputs[tensor.name] = tensor
    except TensorError as error:
        raise InputError(400, str(error)) from None
    if offset != len(binary):
        raise InputError(400, f"{len(binary) - offset} bytes of binary data belong to no input.")
    outputs = document.get("outputs") or []
    if not isinstance(outputs, list) or not all(
        isinstance(item, dict) and isinstance(item.get("name"), str) for item in outputs
    ):
        raise InputError(400, "'outputs' must be a list of objects with a 'name'.")
    return {"inputs": inputs, "headers": request_headers(request), "asked": {**document, "outputs": outputs}}


def _answer(model: str, output: Any, asked: Mapping[str, Any]) -> Any:
    """The inference response. Raises InputError for an output that the model does not have, and UnsendableOutput."""
    if hasattr(output, "status_code") and hasattr(output, "get_data"):
        return output
    try:
        tensors = _tensors(output)
    except TensorError as error:
        raise UnsendableOutput(f"run() returned what the v2 protocol cannot send: {error}") from error
    wanted = asked["outputs"]
    if wanted:
        by_name = {tensor.name: tensor for tensor in tensors}
        missing = [item["name"] for item in wanted if item["name"] not in by_name]
        if missing:
            raise InputError(400, f"The model has no output {', '.join(missing)}; it gave {', '.join(by_name)}.")
        tensors = [by_name[item["name"]] for item in wanted]
    all_binary = bool(_parameters(asked).get("binary_data_output"))
    binary = [
        bool(_parameters(item).get("binary_data", all_binary))
        for item in (wanted or [{"name": tensor.name} for tensor in tensors])
    ]
    identity = asked.get("id") or str(uuid4())
    document: dict[str, Any] = {"model_name": model, "model_version": VERSION, "id": identity}
    outputs, tail = [], b""
    for tensor, packed in zip(tensors, binary):
        described = as_json(tensor)
        if packed:
            del described["data"]
            data = pack(tensor)
            described["parameters"] = {"binary_data_size": len(data)}
            tail += data
        outputs.append(described)
    head = _dump({**document, "outputs": outputs})
    if not any(binary):
        return AMLResponse(head, 200, {"Content-Type": _JSON})
    length = {"Inference-Header-Content-Length": str(len(head))}
    return AMLResponse(head + tail, 200, {"Content-Type": "application/octet-stream", **length})


def _parameters(document: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = document.get("parameters")
    return parameters if isinstance(parameters, dict) else {}


def _tensors(output: Any) -> Sequence[Tensor]:
    if hasattr(output, "columns") and hasattr(output, "to_numpy"):
        output = {str(column): output[column].to_numpy() for column in output.columns}
    if isinstance(output, dict):
        return [to_tensor(str(name), value) for name, value in output.items()]
    if output is None:
        raise TensorError("None")
    return [to_tensor("output-0", output)]
