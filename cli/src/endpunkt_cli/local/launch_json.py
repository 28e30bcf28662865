"""VS Code's launch.json: one configuration put in, everything else as its owner wrote it, comments included.

PURE: text in, text out. The file is JSON with comments and trailing commas.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_SCALAR = re.compile(r'"(?:[^"\\\n]|\\.)*"|[-+.\w]+')


class NoLaunchFile(ValueError):
    """The text is no launch.json; it says where it stops being one."""


@dataclass
class _Node:
    """A value and where it stands; the members of an object by name, the items of an array in order."""

    start: int
    end: int
    text: str
    members: dict[str, "_Node"] = field(default_factory=dict)
    items: list["_Node"] = field(default_factory=list)


def attach(endpoint: str, deployment: str, port: int) -> dict[str, Any]:
    """The configuration that attaches to a local deployment. Paths here and there are the same."""
    return {
        "name": f"Attach to {endpoint}/{deployment}",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": port},
    }


def merged(text: str | None, configuration: dict[str, Any]) -> str:
    """launch.json with `configuration`, in the place of the one of its name or as the first one; None: there is no file
    yet. Raises NoLaunchFile."""
    if text is None or not text.strip():
        return json.dumps({"version": "0.2.0", "configurations": [configuration]}, indent=4) + "\n"
    root, end = _value(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise NoLaunchFile(f"line {_line(text, end)}: something follows the end")
    if root.text != "{":
        raise NoLaunchFile("line 1: it must be an object")
    configurations = root.members.get("configurations")
    if configurations is None:
        rendered = f'\n    "configurations": [\n        {_rendered(configuration)}\n    ]'
        return _inserted(text, root, rendered, bool(root.members))
    if configurations.text != "[":
        raise NoLaunchFile(f"line {_line(text, configurations.start)}: `configurations` must be an array")
    for item in configurations.items:
        name = item.members.get("name")
        if name is not None and name.text == json.dumps(configuration["name"]):
            return text[: item.start] + _rendered(configuration) + text[item.end :]
    return _inserted(text, configurations, f"\n        {_rendered(configuration)}", bool(configurations.items))


def _rendered(configuration: dict[str, Any]) -> str:
    return json.dumps(configuration, indent=4).replace("\n", "\n        ")


def _inserted(text: str, within: _Node, rendered: str, has_more: bool) -> str:
    """`rendered` as the first part of an object or array."""
    at = within.start + 1
    return text[:at] + rendered + ("," if has_more else "\n    ") + text[at:]


def _value(text: str, at: int) -> tuple[_Node, int]:
    """The value that begins at `at`, and where it ends."""
    opened = text[at : at + 1]
    if opened in ("{", "["):
        return _container(text, at, "}" if opened == "{" else "]")
    scalar = _SCALAR.match(text, at)
    if scalar is None:
        raise NoLaunchFile(f"line {_line(text, at)}: a value is missing")
    return _Node(at, scalar.end(), scalar.group()), scalar.end()


def _container(text: str, start: int, close: str) -> tuple[_Node, int]:
    node = _Node(start, start, text[start])
    at = _skip(text, start + 1)
    while text[at : at + 1] != close:
        name = None
        if close == "}":
            key, at = _value(text, at)
            at = _skip(text, at)
            if not key.text.startswith('"') or text[at : at + 1] != ":":
                raise NoLaunchFile(f'line {_line(text, at)}: a member must be "name": value')
            name, at = key.text[1:-1], _skip(text, at + 1)
        value, at = _value(text, at)
        if name is None:
            node.items.append(value)
        else:
            node.members[name] = value
        at = _skip(text, at)
        if text[at : at + 1] == ",":
            at = _skip(text, at + 1)
        elif text[at : at + 1] != close:
            raise NoLaunchFile(f"line {_line(text, at)}: `,` or `{close}` is missing")
    node.end = at + 1
    return node, node.end


def _skip(text: str, at: int) -> int:
    """Past blanks and comments."""
    match = _SPACE.match(text, at)
    assert match is not None
    return match.end()


def _line(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1
