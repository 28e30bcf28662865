"""An MLflow model's signature, told as swagger schemas and as tensors of the v2 protocol.

Pure. A signature is what `ModelSignature.to_dict()` gives, its parts parsed: lists of
`{"type": "double", "name": "a", "required": true}` or
`{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float64", "shape": [-1, 4]}}`; None where there is none.
Source: mlflow.org/docs, "Model Signatures".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from inference_server.swagger import Interface
from inference_server.tensors import DATATYPES

Fields = Optional[Sequence[Mapping[str, Any]]]  # of the inputs or of the outputs

_SCHEMAS: Mapping[str, Mapping[str, str]] = {
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "float": {"type": "number", "format": "float"},
    "double": {"type": "number", "format": "double"},
    "string": {"type": "string"},
    "binary": {"type": "string", "format": "byte"},
    "datetime": {"type": "string", "format": "date-time"},
}
_COLUMNS = {
    "boolean": "BOOL",
    "integer": "INT32",
    "long": "INT64",
    "float": "FP32",
    "double": "FP64",
    "string": "BYTES",
    "binary": "BYTES",
    "datetime": "BYTES",
}
_TENSORS = {name: datatype for datatype, (_, _, name) in DATATYPES.items()}


def fields(part: Any) -> Fields:
    """One part of the signature's dict: JSON text, or None."""
    parsed: Fields = json.loads(part) if isinstance(part, str) else part
    return parsed


def is_table(inputs: Fields) -> bool:
    """Whether the input is a table of named columns, rather than tensors."""
    return bool(inputs) and all(field.get("type") != "tensor" and "name" in field for field in inputs or ())


def column_names(inputs: Fields) -> list[str]:
    return [str(field["name"]) for field in inputs or ()] if is_table(inputs) else []


def interface(inputs: Fields, outputs: Fields, example: Any) -> Interface:
    """`/score`'s body and answer. `example`: the `input_data` of the model's own example, or None."""
    names = column_names(inputs)
    if names:
        row = {"type": "array", "items": _row(inputs or ())}
        data: dict[str, Any] = {
            "type": "object",
            "required": ["columns", "data"],
            "properties": {
                "columns": {"type": "array", "items": {"type": "string", "enum": names}},
                "index": {"type": "array", "items": {"type": "integer"}},
                "data": {"type": "array", "items": row},
            },
        }
    elif inputs and len(inputs) == 1 and "tensor-spec" in inputs[0]:
        data = _array(inputs[0]["tensor-spec"])
    else:
        data = {"type": "object"}
    if example is None:
        example = {"columns": names, "index": [], "data": []} if names else {}
    schema = {"type": "object", "required": ["input_data"], "properties": {"input_data": data}}
    return Interface({**schema, "example": {"input_data": example}}, _output(outputs))


def _row(columns: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The schema of a cell: the columns' type where they share one. (Swagger 2 has no lists of mixed types.)"""
    kinds = {str(column["type"]) for column in columns}
    return _SCHEMAS.get(kinds.pop(), {}) if len(kinds) == 1 else {}


def _array(spec: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(spec["dtype"])
    leaf = "boolean" if kind == "bool" else "number" if kind.startswith("float") else "integer" if "int" in kind else ""
    schema: dict[str, Any] = {"type": leaf or "string"}
    for _ in spec["shape"]:
        schema = {"type": "array", "items": schema}
    return schema


def _output(outputs: Fields) -> dict[str, Any]:
    if outputs and len(outputs) == 1 and "tensor-spec" in outputs[0]:
        return {**_array(outputs[0]["tensor-spec"]), "example": []}
    names = column_names(outputs)
    if not names:
        return {"type": "array", "items": {"type": "object"}, "example": []}
    properties = {name: _SCHEMAS.get(str(field["type"]), {}) for name, field in zip(names, outputs or ())}
    return {"type": "array", "items": {"type": "object", "properties": properties}, "example": []}


def tensors(part: Fields, unnamed: str) -> list[dict[str, Any]]:
    """The v2 metadata of one part; `unnamed` names a lone tensor that has no name."""
    described = []
    for field in part or ():
        spec = field.get("tensor-spec")
        datatype = _TENSORS.get(str(spec["dtype"]), "BYTES") if spec else _COLUMNS.get(str(field.get("type")), "BYTES")
        shape = list(spec["shape"]) if spec else [-1]
        described.append({"name": str(field.get("name", unnamed)), "datatype": datatype, "shape": shape})
    return described
