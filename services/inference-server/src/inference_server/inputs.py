"""What `run()` is called with: the three input modes of a scoring script, decided once from its signature.

Pure: a request in, keyword arguments out. Rules and texts are azureml-inference-server-http's (1.5):

- undecorated: the first parameter gets the body as a string; a GET's query as a string of JSON;
- `@rawhttp`: the first parameter gets an `AMLRequest`, whatever the method;
- `@input_schema` (package inference-schema): each parameter gets its value of a JSON object.

A parameter named `request_headers` gets the headers as a dict in every mode.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import parse_qs

from inference_server.http import Request
from inference_server.request import AMLRequest, is_json, title_case

Arguments = dict[str, Any]


class InputError(Exception):
    """The request does not fit the script: answer `status` with the text."""

    def __init__(self, status: int, text: str):
        super().__init__(text)
        self.status = status
        self.text = text


class SignatureError(Exception):
    """`run()` is declared in a way that cannot be called."""


def input_parser(run: Callable[..., Any], raw: bool, schema: bool) -> Callable[[Request], Arguments]:
    """The function from a request to `run()`'s arguments; it raises InputError.

    `raw` and `schema` say which decorators the script used. Raises SignatureError.
    """
    parameters = list(inspect.signature(run).parameters.values())
    if any(parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) for parameter in parameters):
        raise SignatureError("run() cannot accept positional-only arguments, *args, or **kwargs.")
    if inspect.iscoroutinefunction(run) or inspect.isasyncgenfunction(run):
        raise SignatureError("run() cannot be async: it is called like a plain function.")
    inputs = [parameter for parameter in parameters if parameter.name != "request_headers"]
    if not inputs:
        needed = 'other than "request_headers"' if parameters else "for input data"
        raise SignatureError(f"run() needs to accept an argument {needed}.")
    if raw and schema:
        raise SignatureError("run() cannot be decorated with both @rawhttp and @input_schema")
    first = inputs[0].name
    parse: Callable[[Request], Arguments]
    if raw:
        parse = lambda request: {first: AMLRequest(request)}  # noqa: E731
    elif schema:
        parse = lambda request: _schema_arguments(request, inputs)  # noqa: E731
    else:

        def parse(request: Request) -> Arguments:
            try:
                return {first: json.dumps(_query(request)) if request.method == "GET" else str(request.body, "utf-8")}
            except UnicodeDecodeError as error:
                raise InputError(400, f"Input cannot be decoded as UTF-8: {error}") from None

    if len(inputs) == len(parameters):
        return parse
    return lambda request: parse(request) | {"request_headers": request_headers(request)}


def refusing_unfit_input(run: Callable[..., Any]) -> Callable[..., Any]:
    """`run()` with `@input_schema`, whose decorators convert the arguments before the user's own code is reached.

    Where such a conversion fails, the request is at fault: InputError 400 with the reason. (Azure's server answers
    500 without it.)
    """

    def checked(**arguments: Any) -> Any:
        try:
            return run(**arguments)
        except Exception as error:
            # The user's run() is called outside of that function, so no exception of it passes through.
            if not passed_through(error, "inference_schema", "_deserialize_input_argument"):
                raise
            name = type(error).__name__
            raise InputError(400, f"The input does not fit the schema of run(): {name}: {error}") from error

    return checked


def passed_through(error: BaseException, package: str, function: str) -> bool:
    """Whether the exception was raised in a call of that package's function."""
    frame = error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        if code.co_name == function and f"/{package}/" in code.co_filename:
            return True
        frame = frame.tb_next
    return False


def request_headers(request: Request) -> dict[str, str]:
    """The headers as a plain dict, names as `X-Request-Id`."""
    return {title_case(name): value for name, value in request.headers.items()}


def _schema_arguments(request: Request, parameters: Sequence[inspect.Parameter]) -> Arguments:
    given = _query(request) if request.method == "GET" else _json_object(request)
    arguments = {}
    for parameter in parameters:
        value = given.get(parameter.name, parameter.default)
        if value is parameter.empty:
            raise InputError(400, f"A value is not provided for the {parameter.name!r} parameter.")
        arguments[parameter.name] = value
    return arguments


def _json_object(request: Request) -> Arguments:
    if not is_json(request.headers):
        raise InputError(415, "Expects Content-Type to be application/json")
    if not request.body:
        raise InputError(400, "POST body is empty. Expecting a JSON dictionary.")
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise InputError(400, f"POST body could not be decoded as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(400, "POST body should be a JSON dictionary.")
    return value


def _query(request: Request) -> Arguments:
    """`?a=1&b=x&b=2` -> `{"a": 1, "b": ["x", 2]}`: values are JSON where they can be."""
    query = request.target.partition("?")[2]
    parsed = parse_qs(query, keep_blank_values=True)
    return {
        name: _value(values[0]) if len(values) == 1 else [_value(value) for value in values]
        for name, values in parsed.items()
    }


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text
