"""docs/router.md names what there is, and all that a user may set for an endpoint."""

import re
from pathlib import Path

from contracts.endpoint_rules import rules_of
from router.settings import RouterSettings

PAGE = (Path(__file__).parents[3] / "docs" / "router.md").read_text()


def default(name: str) -> str:
    value = RouterSettings.model_fields[name].default
    return f"{value:g}" if isinstance(value, float) else str(value or "")


def test_every_variable_is_a_setting_with_the_default_that_is_told() -> None:
    told = {}
    for names, defaults in re.findall(r"^\| (`ENDPUNKT_[^|]*) \| ([^|]*) \|", PAGE, re.MULTILINE):
        values = [each.strip("` ") for each in defaults.split(",")]
        told |= dict(zip((each.lower() for each in re.findall(r"ENDPUNKT_(\w+)", names)), values, strict=True))
    assert told == {name: default(name) for name in told}
    assert {"router_port", "router_processes", "max_body_bytes"} <= told.keys()


def test_every_property_of_an_endpoint_is_told() -> None:
    _, problems = rules_of({"endpunkt.nothing": ""})
    known = problems["endpunkt.nothing"].partition("those are ")[2].split(", ")
    assert re.findall(r"^\| `(endpunkt\.\w+)`", PAGE, re.MULTILINE) == known
