"""An MLflow signature as swagger schemas and as tensors of the v2 protocol."""

import json
from typing import Any

import pytest

from inference_server import signature

COLUMNS = [{"type": "double", "name": "a", "required": True}, {"type": "string", "name": "b", "required": True}]
IMAGE = [{"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, 28, 28]}}]
NAMED = [{"type": "tensor", "name": "x", "tensor-spec": {"dtype": "float32", "shape": [-1, 2]}}]
UNNAMED = [{"type": "long", "required": True}]


def test_parts_are_json_texts_or_nothing() -> None:
    assert signature.fields(json.dumps(COLUMNS)) == COLUMNS
    assert signature.fields(None) is None


@pytest.mark.parametrize(
    ("part", "table", "tensors"),
    [
        (COLUMNS, ["a", "b"], [("a", "FP64", [-1]), ("b", "BYTES", [-1])]),
        (IMAGE, [], [("in", "UINT8", [-1, 28, 28])]),
        (NAMED, [], [("x", "FP32", [-1, 2])]),
        (UNNAMED, [], [("in", "INT64", [-1])]),
        (None, [], []),
    ],
)
def test_tables_and_tensors(part: Any, table: list[str], tensors: list[tuple[str, str, list[int]]]) -> None:
    assert signature.column_names(part) == table
    found = [(tensor["name"], tensor["datatype"], tensor["shape"]) for tensor in signature.tensors(part, "in")]
    assert found == tensors


def test_a_tables_schema() -> None:
    made = signature.interface(COLUMNS, IMAGE, None)
    data = made.inputs["properties"]["input_data"]
    assert data["properties"]["columns"]["items"]["enum"] == ["a", "b"]
    assert data["properties"]["data"]["items"] == {"type": "array", "items": {}}  # the columns' types differ
    assert made.inputs["example"] == {"input_data": {"columns": ["a", "b"], "index": [], "data": []}}
    assert made.outputs["items"]["items"]["items"] == {"type": "integer"}


def test_a_tensors_schema_and_the_models_own_example() -> None:
    made = signature.interface(NAMED, COLUMNS, [[1.0, 2.0]])
    assert made.inputs["properties"]["input_data"] == {
        "type": "array",
        "items": {"type": "array", "items": {"type": "number"}},
    }
    assert made.inputs["example"] == {"input_data": [[1.0, 2.0]]}
    assert made.outputs["items"]["properties"]["b"] == {"type": "string"}


def test_no_signature() -> None:
    made = signature.interface(None, None, None)
    assert made.inputs["properties"] == {"input_data": {"type": "object"}}
