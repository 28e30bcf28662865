"""Tensors of the v2 protocol, as tables: what is understood, what is refused and how it is told."""

import struct
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_server import tensors
from inference_server.tensors import DATATYPES, Tensor, TensorError, as_json, from_json, nested, pack, to_tensor

NUMBERS = [name for name in DATATYPES if name not in ("BYTES", "BOOL")]


def given(datatype: str, shape: list[int], data: Any, **parameters: Any) -> dict[str, Any]:
    return {"name": "x", "datatype": datatype, "shape": shape, "data": data, "parameters": parameters}


@pytest.mark.parametrize("data", [[1, 0, 1, 1, 0, 1], [[1, 0, 1], [1, 0, 1]]])
@pytest.mark.parametrize("datatype", NUMBERS)
def test_numbers_flat_or_nested(datatype: str, data: Any) -> None:
    tensor, offset = from_json(given(datatype, [2, 3], data), b"", 0)
    value = tensor.value()
    assert (value.dtype, value.tolist(), offset) == (DATATYPES[datatype][2], [[1, 0, 1], [1, 0, 1]], 0)


@pytest.mark.parametrize(
    ("datatype", "shape", "data", "value"),
    [
        ("BOOL", [2], [True, False], [True, False]),
        ("BYTES", [1, 2], ["a", "b"], [["a", "b"]]),
        ("FP32", [], [1.5], 1.5),
        ("INT8", [0, 2], [], []),
        ("INT8", [2, 0], [[], []], [[], []]),
        ("UINT64", [1], [2**64 - 1], [2**64 - 1]),
    ],
)
def test_other_tensors(monkeypatch: pytest.MonkeyPatch, datatype: str, shape: list[int], data: Any, value: Any) -> None:
    tensor, _ = from_json(given(datatype, shape, data), b"", 0)
    assert tensor.value().tolist() == value
    monkeypatch.setattr(tensors, "numpy_or_none", lambda: None)
    assert tensor.value() == value


@pytest.mark.parametrize("datatype", NUMBERS)
@pytest.mark.parametrize("numpy", [np, None])
def test_binary_numbers(monkeypatch: pytest.MonkeyPatch, datatype: str, numpy: Any) -> None:
    letter, size, _ = DATATYPES[datatype]
    monkeypatch.setattr(tensors, "numpy_or_none", lambda: numpy)
    raw = b"?" + struct.pack(f"<2{letter}", 1, 3) + b"rest"
    tensor, offset = from_json(given(datatype, [2, 1], None, binary_data_size=2 * size), raw, 1)
    assert nested(tensor.data, tensor.shape) == [[1], [3]]
    assert offset == 1 + 2 * size
    assert pack(tensor) == raw[1:offset]


def test_binary_bytes() -> None:
    raw = b"\x02\x00\x00\x00\xff\x00" + b"\x00\x00\x00\x00"
    tensor, _ = from_json(given("BYTES", [2], None, binary_data_size=len(raw)), raw, 0)
    assert tensor.value().tolist() == [b"\xff\x00", b""]


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ([], "each of 'inputs' must be an object with a 'name'"),
        ({"name": 1}, "each of 'inputs' must be an object with a 'name'"),
        (given("FP8", [1], [1]), "input 'x': the datatype 'FP8' is none of BOOL, UINT8,"),
        (given("INT8", [-1], [1]), "input 'x': 'shape' must be a list of whole numbers, 0 or more"),
        (given("INT8", [True], [1]), "input 'x': 'shape' must be a list of whole numbers, 0 or more"),
        (given("INT8", [1], "1"), "input 'x': 'data' must be a list"),
        (given("INT8", [2, 2], [1, 2, 3]), r"input 'x': 3 elements do not make the shape \[2, 2\], which has 4"),
        (given("INT8", [2, 2], [[1, 2], [3]]), r"input 'x': nested 'data' does not have the shape \[2, 2\]"),
        (given("INT8", [1, 2], [[1, 2], [3, 4]]), r"input 'x': nested 'data' does not have the shape \[1, 2\]"),
        (given("INT8", [4], [[1, 2], [3, 4]]), r"input 'x': nested 'data' does not have the shape \[4\]"),
        (given("INT8", [1], [128]), "input 'x': not every element of 'data' is a INT8"),
        (given("UINT8", [1], [-1]), "input 'x': not every element of 'data' is a UINT8"),
        (given("INT64", [1], [1.0]), "input 'x': not every element of 'data' is a INT64"),
        (given("INT64", [1], [True]), "input 'x': not every element of 'data' is a INT64"),
        (given("FP32", [1], ["1"]), "input 'x': not every element of 'data' is a FP32"),
        (given("BOOL", [1], [1]), "input 'x': not every element of 'data' is a BOOL"),
        (given("BYTES", [1], [1]), "input 'x': not every element of 'data' is a BYTES"),
        (given("INT8", [9], None, binary_data_size=9), "input 'x': binary_data_size=9 is more than the body holds"),
        (given("INT8", [1], None, binary_data_size=-1), "input 'x': binary_data_size=-1 is more than the body holds"),
        (given("INT32", [1], None, binary_data_size=3), "input 'x': 3 bytes are no whole number of INT32"),
        (given("BYTES", [1], None, binary_data_size=3), "input 'x': its last element is cut off"),
    ],
)
def test_refused_inputs(document: Any, says: str) -> None:
    with pytest.raises(TensorError, match=says):
        from_json(document, b"\x09\x00\x00", 0)


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "data"),
    [
        (np.array([[1, 2]], dtype="float16"), "FP16", [1, 2], [1.0, 2.0]),
        (np.array([True]), "BOOL", [1], [True]),
        (np.array(["a", "b"]), "BYTES", [2], ["a", "b"]),
        (np.array([b"a"], dtype=object), "BYTES", [1], ["a"]),
        (np.float32(1.5), "FP32", [], [1.5]),
        (pd.Series([1, 2]), "INT64", [2], [1, 2]),
        ([[1, 2], [3, 4]], "INT64", [2, 2], [1, 2, 3, 4]),
        ([1, 2.5], "FP64", [2], [1, 2.5]),
        ([np.int32(1), 2], "INT64", [2], [1, 2]),
        ([True, False], "BOOL", [2], [True, False]),
        ("word", "BYTES", [], ["word"]),
        ([], "FP64", [0], []),
        (7, "INT64", [], [7]),
    ],
)
def test_outputs(value: Any, datatype: str, shape: list[int], data: list[Any]) -> None:
    assert as_json(to_tensor("y", value)) == {"name": "y", "datatype": datatype, "shape": shape, "data": data}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([[1], [2, 3]], "output 'y': lists of different lengths make no tensor"),
        ([1, [2]], "output 'y': lists of different lengths make no tensor"),
        ([1, "a"], "output 'y': a int is no element of a tensor"),
        ({"a": 1}, "output 'y': a dict is no element of a tensor"),
        (np.array([1j]), "output 'y': the protocol has no datatype for numpy's complex128"),
    ],
)
def test_outputs_that_are_no_tensor(value: Any, says: str) -> None:
    with pytest.raises(TensorError, match=says):
        to_tensor("y", value)


def test_packed_words() -> None:
    assert pack(Tensor("y", "BYTES", (2,), ["ä", ""])) == b"\x02\x00\x00\x00\xc3\xa4\x00\x00\x00\x00"
