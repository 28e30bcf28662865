"""What can be told of a scoring script before it is sent: that it is Python, and that it defines `init` and `run`.

PURE: text in (bytes may say their encoding, as Python's files do), troubles out; the script is not run.
"""

import ast
from collections.abc import Iterator, Sequence

from endpunkt_cli.files import Trouble

REQUIRED = ("init", "run")


def check_script(text: str | bytes, name: str) -> list[Trouble]:
    """What is wrong with the script `text` of the file `name`."""
    try:
        module = ast.parse(text, name)
    except SyntaxError as error:
        place = f"{name}:{error.lineno}" if error.lineno else name
        return [Trouble(place, "", f"is no Python: {error.msg}")]
    except ValueError as error:
        return [Trouble(name, "", f"is no Python: {error}")]
    names = set(_bound(module.body))
    if "*" in names:
        # What another module brings along is known only when it is imported.
        return []
    return [
        Trouble(name, "", f"defines no `{missing}`: a scoring script needs init() and run(...) at its top level")
        for missing in REQUIRED
        if missing not in names
    ]


def _bound(statements: Sequence[ast.stmt]) -> Iterator[str]:
    """The names that a module's statements bind, those within `if`, `try`, `with` and loops too."""
    for statement in statements:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (each.asname or each.name for each in names)
            case _:
                for node in ast.iter_child_nodes(statement):
                    if isinstance(node, ast.stmt):
                        yield from _bound([node])
                    else:
                        yield from _in_other(node)


def _in_other(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
            yield inner.id
        elif isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
            yield inner.name
