"""Documents in the formats of `az`."""

from typing import Any

import pytest

from endpunkt_cli.output import BadQuery, Format, flat, render, select

ENDPOINTS = [
    {"name": "diabetes", "traffic": {"blue": 90, "green": 10}, "tags": {}, "state": "Succeeded", "error": None},
    {"name": "iris", "traffic": {}, "tags": {}, "state": "[bold]", "error": {"log_tail": ["ä"]}},
]


def test_the_specification_stands_beside_the_state() -> None:
    document = {"name": "blue", "kind": "online", "properties": {"tags": {"a": "b"}, "properties": {"c": "d"}}}
    assert flat(document) == {"name": "blue", "tags": {"a": "b"}, "properties": {"c": "d"}, "kind": "online"}


@pytest.mark.parametrize(
    ("document", "format", "text"),
    [
        ({"a": "ä"}, Format.json, '{\n  "a": "ä"\n}'),
        (None, Format.json, "null"),
        ({"b": [1], "a": "ä"}, Format.yaml, "b:\n- 1\na: ä"),
        ("text", Format.yaml, "text"),
        ("text", Format.tsv, "text"),
        (7, Format.tsv, "7"),
        (None, Format.tsv, ""),
        (True, Format.tsv, "true"),
        (["a", "b"], Format.tsv, "a\nb"),
        ([["a", 1], ["b", None]], Format.tsv, "a\t1\nb\t"),
        (
            ENDPOINTS,
            Format.tsv,
            'diabetes\tblue=90 green=10\t\tSucceeded\t\niris\t\t\t[bold]\t{"log_tail": ["ä"]}',
        ),
        ([], Format.tsv, ""),
    ],
)
def test_formats(document: Any, format: Format, text: str) -> None:
    assert render(document, format) == text


def test_a_table_has_the_columns_that_are_asked_for() -> None:
    lines = render(ENDPOINTS, Format.table, ("name", "traffic", "state", "error.log_tail", "no.such")).splitlines()
    assert lines[0].split() == ["name", "traffic", "state", "log_tail", "such"]
    assert lines[2].split() == ["diabetes", "blue=90", "green=10", "Succeeded"]
    assert lines[3].split() == ["iris", "[bold]", '["ä"]']
    assert len(lines) == 4


def test_a_table_without_columns_has_the_fields_with_one_value() -> None:
    assert render(ENDPOINTS, Format.table).splitlines()[0].split() == ["name", "state", "error"]
    assert render(["a"], Format.table).splitlines()[0].split() == ["result"]


def test_a_query_is_jmespath() -> None:
    assert select(ENDPOINTS, "[?state=='Succeeded'].name | [0]") == "diabetes"
    with pytest.raises(BadQuery, match="expression"):
        select(ENDPOINTS, "[?")
