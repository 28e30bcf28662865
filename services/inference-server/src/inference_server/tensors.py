"""Tensors of the Open Inference Protocol v2: a request's to values that `run()` can use, and `run()`'s values back.

Pure: JSON values and bytes in and out. Source: the protocol's REST page ("Inference Request JSON Object") and its
binary tensor data extension, where a tensor's bytes (little-endian, row-major; BYTES elements each after a 4-byte
length) follow the JSON part of the body.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

# datatype -> struct's letter, bytes of an element, numpy's name
DATATYPES = {
    "BOOL": ("?", 1, "bool"),
    "UINT8": ("B", 1, "uint8"),
    "UINT16": ("H", 2, "uint16"),
    "UINT32": ("I", 4, "uint32"),
    "UINT64": ("Q", 8, "uint64"),
    "INT8": ("b", 1, "int8"),
    "INT16": ("h", 2, "int16"),
    "INT32": ("i", 4, "int32"),
    "INT64": ("q", 8, "int64"),
    "FP16": ("e", 2, "float16"),
    "FP32": ("f", 4, "float32"),
    "FP64": ("d", 8, "float64"),
    "BYTES": ("", 0, "object"),
}
MAX_DIMENSIONS = 32  # numpy's, before its version 2
MAX_EMPTY = 2**20  # lists that a tensor without elements may be made of
_FROM_NUMPY = {name: datatype for datatype, (_, _, name) in DATATYPES.items()}
_RANGES = {
    f"{sign}INT{bits}": ((0, 2**bits - 1) if sign else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1))
    for sign in ("", "U")
    for bits in (8, 16, 32, 64)
}


class TensorError(ValueError):
    """A tensor that is none; the text names it and says why."""


@dataclass(frozen=True)
class Tensor:
    """`data` is flat, in row-major order."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Sequence[Any]

    def value(self) -> Any:
        """A numpy array where the environment has numpy, else nested lists. Raises TensorError."""
        numpy = numpy_or_none()
        if numpy is None:
            floats = self.datatype.startswith("FP")
            return nested([float(item) for item in self.data] if floats else self.data, self.shape)
        try:
            return numpy.array(self.data, dtype=DATATYPES[self.datatype][2]).reshape(self.shape)
        except (OverflowError, TypeError, ValueError) as error:
            raise TensorError(f"input {self.name!r}: {error}") from error


def numpy_or_none() -> Any:
    """numpy, where the user's environment has it; it is imported by the first call."""
    try:
        import numpy
    except ImportError:
        return None
    return numpy


def from_json(document: object, binary: bytes, offset: int) -> tuple[Tensor, int]:
    """One of a request's `inputs`, and where the next one's binary data starts. Raises TensorError."""
    if not isinstance(document, dict) or not isinstance(document.get("name"), str):
        raise TensorError("each of 'inputs' must be an object with a 'name'")
    name = document["name"]
    datatype, shape = document.get("datatype"), document.get("shape")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise TensorError(f"input {name!r}: the datatype {datatype!r} is none of {', '.join(DATATYPES)}")
    if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**63 for n in shape):
        raise TensorError(f"input {name!r}: 'shape' must be a list of whole numbers, 0 or more")
    if len(shape) > MAX_DIMENSIONS or math.prod(n for n in shape if n) > max(MAX_EMPTY, math.prod(shape)):
        raise TensorError(f"input {name!r}: 'shape' has more than {MAX_DIMENSIONS} dimensions, or too many empty ones")
    parameters = document.get("parameters") or {}
    size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
    count = math.prod(shape)
    if size is None:
        data: Sequence[Any] = _flat(document.get("data"), name, shape)
        _check_elements(data, name, datatype)
    else:
        if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size <= len(binary) - offset:
            raise TensorError(f"input {name!r}: binary_data_size={size!r} is more than the body holds")
        data = _unpack(binary[offset : offset + size], name, datatype)
        offset += size
    if len(data) != count:
        raise TensorError(f"input {name!r}: {len(data)} elements do not make the shape {shape}, which has {count}")
    return Tensor(name, datatype, tuple(shape), data), offset


def _flat(data: object, name: str, shape: Sequence[int]) -> list[Any]:
    """Flat or nested lists as a flat one; nested ones must have the shape."""
    if not isinstance(data, list):
        raise TensorError(f"input {name!r}: 'data' must be a list")
    if not any(isinstance(item, list) for item in data):
        return data
    level: list[Any] = data
    for axis in range(len(shape)):
        if len(level) != math.prod(shape[: axis + 1]):
            raise TensorError(f"input {name!r}: nested 'data' does not have the shape {list(shape)} (axis {axis})")
        if axis + 1 == len(shape):
            break
        inner: list[Any] = []
        for item in level:
            if not isinstance(item, list) or len(item) != shape[axis + 1]:
                raise TensorError(f"input {name!r}: nested 'data' does not have the shape {list(shape)}")
            inner += item
        level = inner
    return level


def _check_elements(data: Iterable[Any], name: str, datatype: str) -> None:
    if datatype == "BYTES":
        fits = all(isinstance(item, str) for item in data)
    elif datatype == "BOOL":
        fits = all(item is True or item is False for item in data)
    elif datatype in _RANGES:
        low, high = _RANGES[datatype]
        fits = all(type(item) is int and low <= item <= high for item in data)
    else:
        largest = sys.float_info.max
        fits = all(type(item) is float or (type(item) is int and abs(item) <= largest) for item in data)
    if not fits:
        raise TensorError(f"input {name!r}: not every element of 'data' is a {datatype}")


def _unpack(raw: bytes, name: str, datatype: str) -> Sequence[Any]:
    letter, size, _ = DATATYPES[datatype]
    if letter:
        if len(raw) % size:
            raise TensorError(f"input {name!r}: {len(raw)} bytes are no whole number of {datatype}")
        numpy = numpy_or_none()
        if numpy is not None:
            array: Sequence[Any] = numpy.frombuffer(raw, dtype=numpy.dtype(DATATYPES[datatype][2]).newbyteorder("<"))
            return array
        return struct.unpack(f"<{len(raw) // size}{letter}", raw)
    items, at = [], 0
    while at < len(raw):
        length = int.from_bytes(raw[at : at + 4], "little")
        at += 4 + length
        if at > len(raw):
            raise TensorError(f"input {name!r}: its last element is cut off")
        items.append(raw[at - length : at])
    return items


def nested(data: Sequence[Any], shape: Sequence[int]) -> Any:
    """Flat data as nested lists of the shape; a shape without dimensions is a scalar."""
    level = data.tolist() if hasattr(data, "tolist") else list(data)
    if not shape:
        return level[0]
    for axis in range(len(shape) - 1, 0, -1):
        length = shape[axis]
        groups = math.prod(shape[:axis])
        level = [level[start * length : (start + 1) * length] for start in range(groups)]
    return level


def to_tensor(name: str, value: Any) -> Tensor:
    """What `run()` gave for one output: an array of numpy's or one alike, a scalar, or nested lists of these.
    Raises TensorError."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and not isinstance(value, (list, tuple, str, bytes, bool, int, float, dict)):
        array = numpy.asarray(value)
        datatype = _FROM_NUMPY.get(array.dtype.name, "BYTES" if array.dtype.kind in "OSU" else "")
        if not datatype:
            raise TensorError(f"output {name!r}: the protocol has no datatype for numpy's {array.dtype.name}")
        return Tensor(name, datatype, tuple(array.shape), _plain(name, datatype, array.reshape(-1).tolist()))
    level: list[Any] = [value]
    shape: list[int] = []
    while True:
        if numpy is not None:
            level = [item.tolist() if isinstance(item, (numpy.ndarray, numpy.generic)) else item for item in level]
        if not any(isinstance(item, (list, tuple)) for item in level):
            break
        if not all(isinstance(item, (list, tuple)) and len(item) == len(level[0]) for item in level):
            raise TensorError(f"output {name!r}: lists of different lengths make no tensor")
        shape.append(len(level[0]))
        level = [inner for item in level for inner in item]
    datatype = _datatype_of(level)
    return Tensor(name, datatype, tuple(shape), _plain(name, datatype, level))


def _datatype_of(items: Iterable[Any]) -> str:
    kinds = {type(item) for item in items}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return "INT64"
    return "FP64" if kinds <= {int, float} else "BYTES"


def _plain(name: str, datatype: str, items: list[Any]) -> list[Any]:
    if datatype != "BYTES":
        return items
    plain = [item.decode("utf-8", "replace") if isinstance(item, (bytes, bytearray)) else item for item in items]
    for item in plain:
        if not isinstance(item, str):
            raise TensorError(f"output {name!r}: a {type(item).__name__} is no element of a tensor")
    return plain


def pack(tensor: Tensor) -> bytes:
    """The tensor's bytes in the binary extension."""
    letter = DATATYPES[tensor.datatype][0]
    if letter:
        return struct.pack(f"<{len(tensor.data)}{letter}", *tensor.data)
    return b"".join(struct.pack("<I", len(item)) + item for item in (text.encode() for text in tensor.data))


def as_json(tensor: Tensor) -> dict[str, Any]:
    """One of an answer's `outputs`. JSON has no NaN and no infinity: they are null, as KServe and MLServer send."""
    data = list(tensor.data)
    if tensor.datatype.startswith("FP"):
        data = [item if -math.inf < item < math.inf else None for item in data]
    return {"name": tensor.name, "shape": list(tensor.shape), "datatype": tensor.datatype, "data": data}
