"""The rows of a mini-batch's result, against what Azure's guides read back."""

import io
from ast import literal_eval
from typing import Any

import numpy as np
import pandas as pd
import pytest

from inference_server.rows import rows


@pytest.mark.parametrize(
    ("output", "lines"),
    [
        ([], []),
        (["a", "b c", "d\ne"], ["a", "b c", "d\ne"]),
        ([1, 2.5, None, ["f", 1]], ["1", "2.5", "None", "['f', 1]"]),
        ([np.array([1, 2])], ["[1 2]"]),
        (pd.DataFrame(), []),
        (pd.DataFrame({"f": ["a", "b"], "n": [1, 2]}, index=[7, 8]), ["a 1", "b 2"]),
        (pd.DataFrame({"f": ["a b", 'q"', "l\nm", None]}), ['"a b"', '"q"""', '"l\nm"', '""']),
        (pd.DataFrame({"f": ['\n"\n', "x"], "n": [1, 2]}), ['"\n""\n" 1', "x 2"]),
    ],
)
def test_rows(output: Any, lines: list[str]) -> None:
    assert rows(output) == lines


def test_a_frame_is_read_back() -> None:
    frame = pd.DataFrame({"file": ["a b.png", "c.png"], "class": [161, 5], "probability": [0.994745, 0.25]})
    written = "\n".join(rows(frame)) + "\n"
    read = pd.read_csv(io.StringIO(written), header=None, names=["file", "class", "probability"], sep=" ")
    pd.testing.assert_frame_equal(read, frame)


def test_a_list_is_read_back() -> None:
    predictions = [["heart-0.csv", 0], ["heart-1.csv", 1]]
    assert literal_eval(",".join(rows(predictions))) == tuple(predictions)


@pytest.mark.parametrize("output", [None, "rows", {"a": 1}, ("a",), np.array([1]), pd.Series([1])])
def test_other_types_are_refused(output: Any) -> None:
    with pytest.raises(TypeError, match=f"actual type of output is {type(output).__name__}."):
        rows(output)
