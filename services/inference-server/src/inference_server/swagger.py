"""`GET /swagger.json?version=2|3|3.1`: the description of a deployment's interface.

The shapes, texts, version aliases (2.0, 3.0) and which file wins are azureml-inference-server-http's (1.5):
`swagger.json` in the app root replaces version 2, as do `swagger2.json`, `swagger3.json` and `swagger3.1.json` theirs.
The documents are made at the first request, after `init()`, which may write such a file.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from inference_server.http import Request
from inference_server.inputs import InputError
from inference_server.routes import Page
from inference_server.settings import Settings

VERSIONS = ("2", "3", "3.1")
ALIASES = {"2.0": "2", "3.0": "3", **{version: version for version in VERSIONS}}
FILES = {"2": ("swagger.json", "swagger2.json"), "3": ("swagger3.json",), "3.1": ("swagger3.1.json",)}
Document = dict[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Interface:
    """The JSON schemas of a model's input and output, and the versions that they can be written in."""

    inputs: Document
    outputs: Document
    versions: frozenset[str] = frozenset(ALIASES)


ANYTHING = Interface({"type": "object", "example": {}}, {"type": "object", "example": {}})


def page(settings: Settings, interface: Callable[[], Interface]) -> Page:
    """The page of `/swagger.json`. `interface` is asked once, at the first request."""

    @functools.cache
    def all_documents() -> dict[str, bytes]:
        users = users_documents(settings.app_root)
        made = {} if len(users) == len(VERSIONS) else documents(settings, interface())
        return {version: json.dumps(document).encode() for version, document in {**made, **users}.items()}

    def answer(request: Request) -> tuple[str, bytes]:
        asked = parse_qs(request.target.partition("?")[2], keep_blank_values=True).get("version", ["2"])[0]
        try:
            have = all_documents()
        except (OSError, ValueError) as error:
            log.error("The user's swagger file cannot be used: %s", error)
            raise InputError(500, f"The user's swagger file cannot be used: {error}") from error
        except Exception as error:  # schemas and files are the user's: they must not end the server
            log.exception("The interface cannot be described")
            raise InputError(500, f"The interface cannot be described: {type(error).__name__}") from error
        supported = f"[{', '.join(sorted(have))}]."
        if asked not in ALIASES:
            raise InputError(404, f"Swagger version [{asked}] is not valid. Supported versions: {supported}")
        if ALIASES[asked] not in have:
            raise InputError(
                404,
                f"Swagger version [{asked}] is not supported for the scoring script. "
                f"Supported swagger versions: {supported}",
            )
        return "application/json", have[ALIASES[asked]]

    return answer


def users_documents(app_root: Path) -> dict[str, Document]:
    """The user's own documents by version. Raises OSError, or ValueError with the file's name."""
    found = {}
    for version, names in FILES.items():
        path = next((app_root / name for name in names if (app_root / name).is_file()), None)
        if path is not None:
            try:
                found[version] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
    return found


def documents(settings: Settings, interface: Interface) -> dict[str, Document]:
    """The generated documents by version, for the versions that the interface can be written in."""
    made = {}
    for version in VERSIONS:
        if not any(alias in interface.versions for alias, meant in ALIASES.items() if meant == version):
            continue
        made[version] = _swagger2(settings, interface) if version == "2" else _openapi(settings, interface, version)
    return made


_HEALTHY = "If service is up and running, this response will be returned with the content 'Healthy'"
_SCORED = "The service processed the input correctly and provided a result prediction, if applicable."
_FAILED = "The service failed to execute due to an error."
_PAYLOAD = "The input payload for executing the real-time machine learning service."
_BEARER = {
    "type": "apiKey",
    "name": "Authorization",
    "in": "header",
    "description": "For example: Bearer abc123",
}
_ERROR = {"type": "object", "properties": {"message": {"type": "string"}}}
_STRING = {"type": "string"}


def _info(settings: Settings) -> Document:
    return {
        "title": settings.service_name,
        "description": f"API specification for the Azure Machine Learning service {settings.service_name}",
        "version": settings.service_version,
    }


def _paths(
    settings: Settings,
    answer: Callable[[str, Mapping[str, Any], str], Document],
    scoring: Document,
    version: Document,
) -> Document:
    """The three operations. `answer(description, schema, media type)` writes a response as the version does; `scoring`
    is how it writes a request's body, `version` the parameter of `/swagger.json`."""
    prefix = settings.service_path_prefix.strip("/")
    prefix = f"/{prefix}" if prefix else ""
    error = {"$ref": "ErrorResponse"}

    def responses(description: str, schema: Mapping[str, Any], media: str) -> Document:
        return {
            "200": answer(description, schema, media),
            "default": answer(_FAILED, error, "application/json"),
        }

    return {
        f"{prefix}/": {
            "get": {
                "operationId": "ServiceHealthCheck",
                "description": "Simple health check endpoint to ensure the service is up at any given point.",
                "responses": responses(_HEALTHY, {**_STRING, "example": "Healthy"}, "text/plain"),
            }
        },
        f"{prefix}/score": {
            "post": {
                "operationId": "RunMLService",
                "description": "Run web service's model and get the prediction output",
                "security": [{"Bearer": []}],
                **scoring,
                "responses": responses(_SCORED, {"$ref": "ServiceOutput"}, "application/json"),
            }
        },
        f"{prefix}/swagger.json": {
            "get": {
                "operationId": "GetSwaggerSpec",
                "description": "Get the Swagger specification.",
                "parameters": [{"name": "version", "in": "query", "required": False, **version}],
                "responses": responses("The Swagger specification.", _STRING, "text/plain"),
            }
        },
    }


def _swagger2(settings: Settings, interface: Interface) -> Document:
    def answer(description: str, schema: Mapping[str, Any], media: str) -> Document:
        reference = schema.get("$ref")
        if reference:
            return {"description": description, "schema": {"$ref": f"#/definitions/{reference}"}}
        written: Document = {"description": description, "schema": _STRING}
        return {**written, "examples": {"application/json": schema["example"]}} if "example" in schema else written

    body = {
        "name": "serviceInputPayload",
        "in": "body",
        "description": _PAYLOAD,
        "schema": {"$ref": "#/definitions/ServiceInput"},
    }
    return {
        "swagger": "2.0",
        "info": _info(settings),
        "schemes": ["https"],
        "consumes": ["application/json"],
        "produces": ["application/json"],
        "securityDefinitions": {"Bearer": _BEARER},
        "paths": _paths(settings, answer, {"parameters": [body]}, {"type": "integer", "enum": [2, 3]}),
        "definitions": {
            "ServiceInput": interface.inputs,
            "ServiceOutput": interface.outputs,
            "ErrorResponse": _ERROR,
        },
    }


def _openapi(settings: Settings, interface: Interface, version: str) -> Document:
    def answer(description: str, schema: Mapping[str, Any], media: str) -> Document:
        reference = schema.get("$ref")
        written = {"$ref": f"#/components/schemas/{reference}"} if reference else schema
        return {"description": description, "content": {media: {"schema": written}}}

    body = {
        "description": _PAYLOAD,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ServiceInput"}}},
    }
    asked = {"schema": {"type": "integer", "enum": [2, 3]}}
    return {
        "openapi": "3.1.0" if version == "3.1" else "3.0.3",
        "info": _info(settings),
        "security": [{"Bearer": []}],
        "paths": _paths(settings, answer, {"requestBody": body}, asked),
        "components": {
            "schemas": {
                "ServiceInput": interface.inputs,
                "ServiceOutput": interface.outputs,
                "ErrorResponse": _ERROR,
            },
            "securitySchemes": {"Bearer": _BEARER},
        },
    }
