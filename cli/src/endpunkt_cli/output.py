"""Documents as text, in the formats of `az`.

PURE: values in, text out. Rich, PyYAML and jmespath cost start-up time: each is imported where it is needed.
"""

import io
import json
from collections.abc import Sequence
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """What `-o` takes."""

    json = "json"
    yaml = "yaml"
    table = "table"
    tsv = "tsv"


class BadQuery(ValueError):
    """A `--query` that is no JMESPath; the text points at the place."""


def flat(document: dict[str, Any]) -> dict[str, Any]:
    """An API document in the form of `az ml`: the specification's fields stand beside the state, not below it."""
    rest = {name: value for name, value in document.items() if name not in ("name", "properties")}
    return {"name": document["name"], **document["properties"], **rest}


def select(document: Any, query: str) -> Any:
    """What a JMESPath expression finds. Raises BadQuery."""
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.search(query, document)
    except JMESPathError as error:
        raise BadQuery(str(error)) from None


def render(document: Any, format: Format, columns: Sequence[str] = (), width: int = 160) -> str:
    """`document` as text without a last line end. `columns` are a table's: paths with dots; by default every field that
    holds a single value."""
    if format is Format.json:
        return json.dumps(document, indent=2, ensure_ascii=False)
    if format is Format.yaml:
        import yaml

        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip("\n").removesuffix("\n...")
    if format is Format.tsv:
        return "\n".join(_tsv(row) for row in _rows(document))
    return _table(document, columns, width)


def _rows(document: Any) -> list[Any]:
    return document if isinstance(document, list) else [document]


def _tsv(row: Any) -> str:
    if isinstance(row, dict):
        row = list(row.values())
    return "\t".join(_cell(value) for value in row) if isinstance(row, list) else _cell(row)


def _table(document: Any, columns: Sequence[str], width: int) -> str:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    rows = [row if isinstance(row, dict) else {"result": row} for row in _rows(document)]
    names = list(columns) or list(
        dict.fromkeys(name for row in rows for name, value in row.items() if not isinstance(value, dict | list))
    )
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in names:
        table.add_column(name.rpartition(".")[2], overflow="fold")
    for row in rows:
        table.add_row(*(_cell(_at(row, name)) for name in names))
    text = io.StringIO()
    Console(file=text, width=width, markup=False, highlight=False, emoji=False).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().strip("\n").splitlines())


def _at(row: Any, path: str) -> Any:
    for part in path.split("."):
        row = row.get(part) if isinstance(row, dict) else None
    return row


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and not any(isinstance(each, dict | list) for each in value.values()):
        return " ".join(f"{name}={each}" for name, each in value.items())
    return json.dumps(value, ensure_ascii=False)
