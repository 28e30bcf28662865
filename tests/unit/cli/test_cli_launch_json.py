"""VS Code's launch.json keeps what its owner wrote."""

import json

import pytest

from endpunkt_cli.local.launch_json import NoLaunchFile, attach, merged

BLUE = attach("triage", "blue", 5678)
OWN = """\
{
    // Mine.
    "version": "0.2.0",
    "configurations": [
        /* the tests */
        {"name": "Tests", "type": "debugpy", "args": ["-k", "a // b, }"],},
        {
            "name": "Attach to triage/blue", // of yesterday
            "type": "debugpy",
            "connect": {"port": 1},
        },
    ],
    "compounds": [],
}
"""


def plain(text: str) -> dict[str, object]:
    """Without the comments and commas of `OWN`."""
    for comment in ("// Mine.", "/* the tests */", "// of yesterday"):
        text = text.replace(comment, "")
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    joined = "\n".join(lines)
    for close in "}]":
        joined = joined.replace(f",{close}", close)
        for blanks in range(0, 13, 4):
            joined = joined.replace(f",\n{' ' * blanks}{close}", f"\n{close}")
    found: dict[str, object] = json.loads(joined)
    return found


@pytest.mark.parametrize("text", [None, "", " \n"])
def test_a_new_file(text: str | None) -> None:
    assert json.loads(merged(text, BLUE)) == {"version": "0.2.0", "configurations": [BLUE]}


def test_the_configuration_of_that_name_is_replaced_and_nothing_else() -> None:
    text = merged(OWN, BLUE)
    assert text.startswith(OWN[: OWN.index('{\n            "name": "Attach')])
    assert text.endswith(OWN[OWN.index(',\n    ],\n    "compounds"') :])
    assert plain(text)["configurations"] == [
        {"name": "Tests", "type": "debugpy", "args": ["-k", "a // b, }"]},
        BLUE,
    ]
    assert merged(text, BLUE) == text


def test_a_new_configuration_is_put_before_the_others() -> None:
    green = attach("triage", "green", 5679)
    text = merged(OWN, green)
    assert "// Mine." in text
    assert "// of yesterday" in text
    names = [each["name"] for each in plain(text)["configurations"]]  # type: ignore[attr-defined]
    assert names == ["Attach to triage/green", "Tests", "Attach to triage/blue"]


@pytest.mark.parametrize("text", ["{}", '{"configurations": []}', '{"version": "0.2.0"}', "{ // nothing yet\n}"])
def test_a_file_without_configurations(text: str) -> None:
    made = json.loads(merged(text, BLUE).replace("// nothing yet", ""))
    assert made["configurations"] == [BLUE]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "line 1: it must be an object"),
        ('{"a": 1} x', "line 1: something follows"),
        ('{\n"a" 1}', 'line 2: a member must be "name": value'),
        ('{"a": }', "line 1: a value is missing"),
        ('{"a": [1 2]}', "line 1: `,` or `]` is missing"),
        ('{"configurations": {}}', "line 1: `configurations` must be an array"),
        ('{"a": 1', "line 1: `,` or `}` is missing"),
    ],
)
def test_what_is_no_launch_file_is_left_alone(text: str, told: str) -> None:
    with pytest.raises(NoLaunchFile, match="^" + told.replace("[", r"\[").replace("(", r"\(")):
        merged(text, BLUE)
