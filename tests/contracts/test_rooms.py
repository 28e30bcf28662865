"""Who says that it is pure is held to it: the modules whose docstring says PURE are those that .importlinter checks."""

import ast
import configparser
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "contracts/src", ROOT / "cli/src", ROOT / "infra/src", *(ROOT / "services").glob("*/src")]


@cache
def claims() -> set[str]:
    """Modules that open with the rule of what may not enter them."""
    found = set()
    for source in SOURCES:
        for file in source.rglob("*.py"):
            docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
            if re.search(r"^PURE", docstring, re.MULTILINE):
                found.add(".".join(file.relative_to(source).with_suffix("").parts).removesuffix(".__init__"))
    return found


def checked() -> list[str]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / ".importlinter")
    return parser["importlinter:contract:pure"]["source_modules"].split()


def test_every_module_that_says_pure_is_checked() -> None:
    missing = {name for name in claims() if not any(name == each or name.startswith(f"{each}.") for each in checked())}
    assert not missing, "add them to the contract `pure` in .importlinter"


def test_every_checked_module_exists_and_says_so() -> None:
    silent = [name for name in checked() if not any(each == name or each.startswith(f"{name}.") for each in claims())]
    assert not silent, "open them with the rule of what may not enter them"
