"""YAML (and JSON, which is YAML) as values that know their line.

PURE: text in, values out; no disk, no network, no clock.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

from endpunkt_cli.errors import CliError


class Trouble(NamedTuple):
    """One thing that is wrong: where it stands (file:line, or an option; may be empty), the field, what to do."""

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in self if part)


class BadFile(CliError):
    """What a person wrote cannot be used, for every reason that is listed."""

    def __init__(self, troubles: Sequence[Trouble]):
        super().__init__("\n".join(str(trouble) for trouble in troubles))
        self.troubles = tuple(troubles)


@dataclass(frozen=True)
class Source:
    """What a person wrote: the value, and the place of each field by its dotted path."""

    value: dict[str, Any]
    places: Mapping[str, str] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """Where the field stands, or the nearest one around it; azure's two spellings are one."""
        known = {_normal(name): place for name, place in self.places.items()}
        wanted = _normal(path)
        while wanted and wanted not in known:
            wanted = wanted.rpartition(".")[0]
        return known.get(wanted, "")

    def trouble(self, path: str, message: str) -> Trouble:
        """A problem of this field."""
        return Trouble(self.place(path), path, message)


class _Loader(yaml.SafeLoader):
    """Values that JSON has: a date stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}

_STRING = "tag:yaml.org,2002:str"
_NOT_TEXT = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MERGE = "tag:yaml.org,2002:merge"
_TEXT_MAPS = ("tags", "properties", "environment_variables")


def load(text: str, name: str) -> Source:
    """The mapping in a file called `name`. Raises BadFile for bad YAML, repeated keys and what is no mapping."""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            raise BadFile([Trouble(f"{name}:1", "", "must hold fields, such as `name: …`")])
        places: dict[str, str] = {"": f"{name}:1"}
        troubles = list(_note_places(node, "", name, places, frozenset()))
        value = {} if troubles else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}:{mark.column + 1}" if mark else name
        told = " ".join(part for part in (error.context, error.problem) if part)
        raise BadFile([Trouble(place, "", f"is no YAML: {told}")]) from None
    except yaml.YAMLError as error:
        raise BadFile([Trouble(name, "", f"is no YAML: {' '.join(str(error).split())}")]) from None
    if troubles:
        raise BadFile(troubles)
    return Source(value, places)


def overlaid(source: Source, settings: Sequence[str]) -> Source:
    """`source` with each `a.b=value` of `--set`; a value is read as YAML. Raises BadFile."""
    value, places, troubles = _copied(source.value), dict(source.places), []
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not separator or not all(path.split(".")):
            troubles.append(Trouble(f"--set {setting}", "", "is not of the form path.to.field=value"))
            continue
        names = path.split(".")
        for depth, name in enumerate(names[:-1]):
            if name in _TEXT_MAPS:
                # Their keys may have dots themselves, and their values are text.
                names[depth + 1 :] = [".".join(names[depth + 1 :])]
                break
        try:
            _put(value, names, text if names[-2:-1] and names[-2] in _TEXT_MAPS else yaml.load(text, _Loader))  # noqa: S506
        except (yaml.YAMLError, TypeError) as error:
            troubles.append(Trouble(f"--set {setting}", path, " ".join(str(error).split())))
        places[path] = f"--set {setting}"
    if troubles:
        raise BadFile(troubles)
    return Source(value, places)


def _put(value: dict[str, Any], names: Sequence[str], item: Any) -> None:
    for name in names[:-1]:
        if value.get(name) is None:
            value[name] = {}
        if not isinstance(value[name], dict):
            raise TypeError(f"`{name}` has no fields: --set takes fields of mappings only")
        value = value[name]
    value[names[-1]] = item


def _copied(value: Any) -> Any:
    return {name: _copied(item) for name, item in value.items()} if isinstance(value, dict) else value


def _note_places(
    node: yaml.Node, path: str, name: str, places: dict[str, str], within: frozenset[int]
) -> Iterator[Trouble]:
    """Fills `places` and yields what YAML allows and no document can mean."""
    if id(node) in within:
        yield Trouble(f"{name}:{node.start_mark.line + 1}", path, "contains itself: remove the alias")
        return
    within |= {id(node)}
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            item_path = f"{path}.{index}" if path else str(index)
            places[item_path] = f"{name}:{item.start_mark.line + 1}"
            yield from _note_places(item, item_path, name, places, within)
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.tag == _MERGE:
                for merged in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    yield from _note_places(merged, path, name, places, within)
                continue
            item_path = f"{path}.{key.value}" if path else str(key.value)
            if not isinstance(key, yaml.ScalarNode):
                yield Trouble(f"{name}:{line}", path, "a field's name must be text")
                continue
            if key.value in seen:
                yield Trouble(f"{name}:{line}", item_path, f"is also in line {seen[key.value]}: remove one of them")
            seen[key.value] = line
            places[item_path] = f"{name}:{line}"
            _keep_text(key.value, value)
            yield from _note_places(value, item_path, name, places, within)


def _keep_text(key: str, value: yaml.Node) -> None:
    """A version is a name (1.10 is not 1.1), and what is in a map of texts is text as it was written (false, 07)."""
    texts = [value] if key == "version" else []
    if key in _TEXT_MAPS and isinstance(value, yaml.MappingNode):
        texts = [item for _, item in value.value]
    for text in texts:
        if isinstance(text, yaml.ScalarNode) and text.tag in _NOT_TEXT:
            text.tag = _STRING


def _normal(path: str) -> str:
    return re.sub(r"_", "", path).lower()
