"""The rows that a mini-batch's `run()` returned, as they go into the output file.

Azure's ParallelRunStep, which runs batch deployments there, takes a list or a pandas DataFrame and nothing else (it
fails others with the text used here). An element of a list is one row, written as `str()` gives it: the guide
"Deploy MLflow models in batch deployments" reads such rows back with `literal_eval`. A DataFrame is written without
index and header and with a space between values: the guide "Image processing with batch model deployments" reads
`predictions.csv` back with `pandas.read_csv(header=None, sep=" ")`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

NOT_ROWS = (
    "The run() method in the entry script should return a list or a pandas DataFrame. The length of returned result "
    "is considered as succeeded number of items. For --output_action=append_row, the returned result is what to "
    "write into the result file. The actual type of output is {}."
)


def rows(output: Any) -> list[str]:
    """One string per row, without a line end; a row may hold line ends itself. Raises TypeError for other types."""
    if isinstance(output, list):
        return [element if isinstance(element, str) else str(element) for element in output]
    pandas = sys.modules.get("pandas")  # the script made the frame, so it is loaded
    if pandas is not None and isinstance(output, pandas.DataFrame):
        text = output.to_csv(None, sep=" ", header=False, index=False, lineterminator="\n")
        return list(_records(text))
    raise TypeError(NOT_ROWS.format(type(output).__name__))


def _records(text: str) -> Iterator[str]:
    """Lines, except that one inside a quoted value ends nothing. A quote inside a value is written twice, so a record
    is whole when its quotes are even."""
    record = ""
    for line in text.split("\n")[:-1]:
        record += line
        if record.count('"') % 2 == 0:
            yield record
            record = ""
        else:
            record += "\n"
