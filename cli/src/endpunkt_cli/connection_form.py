"""What a connection's YAML file may say, in each of Azure's forms, and how it becomes the body of a request.

PURE: values in, values out; no disk, no network, no clock. No message repeats a value: it may be the secret.
Source: the references of "CLI (v2) … connection YAML schema" of Azure ML's documentation. Each type spells the same
three things in its own way: where it is (target), the secrets (credentials) and the rest (metadata).
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from contracts.connections import ConnectionName, ConnectionSpec
from endpunkt_cli.files import BadFile, Source, Trouble
from endpunkt_cli.forms import Resource, invalid

_TARGETS = ("target", "endpoint", "azure_endpoint", "api_base", "url")
_METADATA = {
    "api_version": "ApiVersion",
    "api_type": "ApiType",
    "open_ai_resource_id": "ResourceId",
    "ai_services_resource_id": "ResourceId",
    "account_name": "AccountName",
    "container_name": "ContainerName",
}
_LABELS = ("$schema", "is_shared", "id")
_SECRETS = ("credentials", "secrets", "api_key")


class _Connection(ConnectionSpec):
    name: ConnectionName


def is_secret(path: str) -> bool:
    """Whether the field at a dotted path holds a secret."""
    return path.partition(".")[0] in _SECRETS and path != "credentials.type"


def read_connection(source: Source, secrets: Mapping[str, str]) -> Resource:
    """The connection that a file describes, with `secrets` (by dotted path) over it. Raises BadFile with every
    problem."""
    value = deepcopy(source.value)
    troubles: list[Trouble] = []
    renamed: dict[str, str] = {}
    for label in _LABELS:
        value.pop(label, None)
    credentials = _gathered(value, ("credentials", "secrets"), source, renamed, "credentials", troubles)
    credentials.pop("type", None)
    if (key := value.pop("api_key", None)) is not None:
        credentials["key"], renamed["credentials.key"] = key, "api_key"
    for path, secret in secrets.items():
        name = "key" if path == "api_key" else path.partition(".")[2]
        credentials[name], renamed[f"credentials.{name}"] = secret, path
    metadata = _gathered(value, ("metadata", "configs"), source, renamed, "metadata", troubles)
    for field, name in _METADATA.items():
        if (given := value.pop(field, None)) is not None:
            metadata[name], renamed[f"metadata.{name}"] = given, field
    if value.get("type") == "azure_open_ai":
        metadata.setdefault("ApiType", "Azure")
    targets = {field: value.pop(field) for field in _TARGETS if value.get(field) is not None}
    if len({str(target) for target in targets.values()}) > 1:
        first, *others = targets
        troubles += [source.trouble(field, f"contradicts `{first}`: remove one of them") for field in others]
    for field, target in targets.items():
        value["target"], renamed["target"] = target, field
    value |= {"credentials": credentials, "metadata": metadata}
    at = Source(value, {**source.places, **{own: source.place(theirs) for own, theirs in renamed.items()}})
    troubles += invalid(_Connection, value, at)
    if troubles:
        raise BadFile(troubles)
    return Resource({"name": value.pop("name")}, value, source, renamed)


def without_secrets(settings: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """`--set` options, parted: those that set no secret, and by path the file that each secret is in ("-" is standard
    input). Raises BadFile for a secret that is typed out."""
    plain, files, troubles = [], {}, []
    for setting in settings:
        path, separator, text = setting.partition("=")
        if not is_secret(path):
            plain.append(setting)
        elif separator and text.startswith("@") and len(text) > 1 and (path == "api_key") == ("." not in path):
            files[path] = text[1:]
        else:
            hint = (
                "what is typed as an argument, every user of this machine can see: put the secret into a file and "
                "write path.to.field=@FILE, or =@- to give it on standard input"
            )
            troubles.append(Trouble(f"--set {path}", "", hint))
    if list(files.values()).count("-") > 1:
        troubles.append(Trouble("--set", "", "standard input holds one secret: put the others into files"))
    if troubles:
        raise BadFile(troubles)
    return plain, files


def _gathered(
    value: dict[str, Any],
    fields: Sequence[str],
    source: Source,
    renamed: dict[str, str],
    into: str,
    troubles: list[Trouble],
) -> dict[str, Any]:
    """The mappings in `fields`, which say the same thing in the files of different types, as one."""
    gathered: dict[str, Any] = {}
    for field in fields:
        given = value.pop(field, None)
        if given is None:
            continue
        if not isinstance(given, dict):
            troubles.append(source.trouble(field, "must hold fields, such as `key: …`"))
            continue
        for name, item in given.items():
            if name in gathered:
                troubles.append(source.trouble(f"{field}.{name}", f"is also in `{fields[0]}`: remove one of them"))
            gathered[name], renamed[f"{into}.{name}"] = item, f"{field}.{name}"
    return gathered
