"""What a conda YAML asks for, in PyPI's terms.

PURE: no I/O. Source of the format: conda's "Creating an environment file manually" and its match specification.
Channels are read and not used: every package comes from PyPI. A build string (`numpy=1.26.4=py310h5f9d8c6_0`) names
one of conda's own binaries; the version is what counts, so it is left out, and noted.
"""

import re
from collections.abc import Iterator

import yaml
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from contracts.environments.lines import Reading, Requirement, Trouble, logical, shown, take
from contracts.environments.names import PART_OF_PYTHON, PYPI, no_twin

_KEYS = {"name", "channels", "dependencies", "prefix"}
_UNUSED = {
    "variables": "is conda's way to set variables: put them into the deployment's environment_variables",
    "platforms": "has no meaning in an environment file: delete it",
}
_SPEC = re.compile(r"(?:[^\s:]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9._-]*)(?P<rest>.*)", re.DOTALL)
_PIECE = re.compile(r"(?P<operator>===|==|>=|<=|!=|~=|=|>|<)?(?P<version>[A-Za-z0-9][A-Za-z0-9.+!_-]*(?:\.?\*)?|\*)")


class Conda(Reading):
    """A reading with the Python that the file asks for (a version specifier and its line) and the line of `pip:`."""

    python: str | None = None
    python_line: int = 0
    pip_line: int = 0


def read_conda(text: str) -> Conda:
    """What the file asks for, with every trouble."""
    into = Conda()
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        into.troubles.append(_unreadable(error))
    except (yaml.YAMLError, RecursionError) as error:
        into.troubles.append(Trouble(1, f"is no YAML: {str(error).splitlines()[0][:200]}"))
    else:
        _file(root, into)
    return into


def _unreadable(error: yaml.MarkedYAMLError) -> Trouble:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else 1
    if "'\\t'" in (error.problem or ""):
        return Trouble(line, "a tab: YAML is indented with spaces")
    return Trouble(line, f"is no YAML: {error.problem or error.context}")


def _text(node: yaml.Node) -> str:
    """A scalar's text; what is none may be as deep as its author likes."""
    return str(node.value) if isinstance(node, yaml.ScalarNode) else "(no text)"


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _file(root: yaml.Node | None, into: Conda) -> None:
    if not isinstance(root, yaml.MappingNode):
        into.troubles.append(Trouble(1, "is no conda file: it has keys, name, channels and dependencies"))
        return
    seen: set[str] = set()
    for key, value in root.value:
        name, line = _text(key), _line(key)
        if name in seen:
            into.troubles.append(Trouble(line, f"'{name}' is there twice: put both together"))
        elif name in _UNUSED:
            into.troubles.append(Trouble(line, f"'{name}' {_UNUSED[name]}"))
        elif name not in _KEYS:
            into.troubles.append(
                Trouble(line, f"'{shown(name)}' is no key of a conda file: {', '.join(sorted(_KEYS))}")
            )
        elif name in ("channels", "dependencies") and not _is_list(value):
            into.troubles.append(Trouble(line, f"'{name}' is no list: write one entry a line, each after '- '"))
        elif name == "dependencies" and isinstance(value, yaml.SequenceNode):
            for node in value.value:
                _dependency(node, into)
        seen.add(name)
    if "dependencies" not in seen:
        into.troubles.append(Trouble(1, "has no 'dependencies': list the packages under that key"))


def _is_list(node: yaml.Node) -> bool:
    return isinstance(node, yaml.SequenceNode) or node.value == ""


def _dependency(node: yaml.Node, into: Conda) -> None:
    if isinstance(node, yaml.ScalarNode):
        try:
            _package(_line(node), str(node.value).strip(), into)
        except ValueError as error:
            into.troubles.append(Trouble(_line(node), f"'{shown(str(node.value))}' {error}"))
        return
    keys = [_text(key) for key, _ in node.value] if isinstance(node, yaml.MappingNode) else []
    if keys != ["pip"]:
        hint = f": write '- {shown(keys[0])}=VERSION'" if keys else ""
        into.troubles.append(Trouble(_line(node), f"is neither a package nor '- pip:' with a list below it{hint}"))
        return
    ((_, lines),) = node.value
    if into.pip_line:
        into.troubles.append(
            Trouble(_line(node), f"'pip' is there again, after line {into.pip_line}: put both together")
        )
    elif not _is_list(lines):
        into.troubles.append(Trouble(_line(lines), "'pip' is no list: write one requirement a line, each after '- '"))
    elif isinstance(lines, yaml.SequenceNode):
        into.pip_line = _line(node)
        take(_pip_lines(lines, into), into)


def _pip_lines(node: yaml.SequenceNode, into: Conda) -> Iterator[tuple[int, str]]:
    for item in node.value:
        if isinstance(item, yaml.ScalarNode):
            yield from ((_line(item) + number - 1, line) for number, line in logical(str(item.value)))
        else:
            into.troubles.append(Trouble(_line(item), "is no requirement: write it on one line, such as numpy==1.26.4"))


def _package(line: int, text: str, into: Conda) -> None:
    match = _SPEC.fullmatch(text)
    if match is None:
        raise ValueError("is no package: write a name and a version, such as numpy=1.26")
    name = match["name"].lower()
    specifier, build = translated(match["rest"])
    if build:
        into.notes.append(Trouble(line, f"conda's build '{build}' is left out: {name} comes from PyPI"))
    if reason := no_twin(name):
        raise ValueError(f"cannot be had from PyPI: {reason}")
    if name == "python":
        if into.python_line:
            raise ValueError(f"names Python again, after line {into.python_line}: keep one of the two")
        into.python, into.python_line = specifier or None, line
    elif name in PART_OF_PYTHON:
        into.notes.append(Trouble(line, f"{name} is left out: the interpreter and PyPI's packages bring their own"))
    else:
        pypi = canonicalize_name(PYPI[name])
        into.requirements.append(Requirement(line, pypi, f"{pypi}{specifier}"))


def translated(rest: str) -> tuple[str, str]:
    """What follows a conda package's name, as a version specifier of Python's and a build. Raises ValueError.

    `=1.2` and `1.2.*` mean any 1.2 (==1.2.*); `==1.2` and ` 1.2` exactly that; a comma means and.
    """
    if rest.lstrip().startswith("["):
        raise ValueError("has conditions in brackets: write the version after the name, such as numpy>=1.26,<2")
    rest = re.sub(r"\s*,\s*", ",", rest.strip())
    version, *more = re.sub(r"([=<>!~])\s+", r"\1", rest).split() or [""]
    if "|" in rest:
        raise ValueError("has alternatives ('|'), which Python's requirements do not know: choose one")
    if not more and (built := re.fullmatch(r"(={0,2}[^=<>!~,]+)=([^=<>!~,]+)", version)):
        version, more = built[1], [built[2]]
    if len(more) > 1:
        raise ValueError("has more than a name, a version and a build")
    pieces = [_piece(piece) for piece in version.split(",")] if version else []
    try:
        return str(SpecifierSet(",".join(filter(None, pieces)))), "".join(more)
    except InvalidSpecifier:
        raise ValueError("has a version that Python's requirements do not know: write it like 1.26.4") from None


def _piece(text: str) -> str:
    match = _PIECE.fullmatch(text)
    if match is None:
        raise ValueError(f"has no version at '{text[:40]}': write it like =1.26 or >=1.26,<2")
    operator, version = match["operator"] or "", match["version"]
    bare = version.rstrip("*").rstrip(".")
    starred = version.endswith("*")
    if not bare:
        return ""
    if operator == "!=":
        return f"!={bare}.*" if starred else f"!={bare}"
    if operator in ("", "=", "=="):
        return f"=={bare}.*" if (starred or operator == "=") and _is_final(bare) else f"=={bare}"
    return f"{operator}{bare}"


def _is_final(version: str) -> bool:
    """Whether the version can stand before `.*`: pre-releases and local versions cannot."""
    try:
        parsed = Version(version)
    except InvalidVersion:
        return True
    return not (parsed.is_prerelease or parsed.local)
