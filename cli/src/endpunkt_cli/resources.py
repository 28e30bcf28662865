"""What the verbs of endpoints and deployments share: from a file to the API."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from endpunkt_cli.client import ApiError
from endpunkt_cli.options import tell
from endpunkt_cli.output import flat
from endpunkt_cli.session import session

if TYPE_CHECKING:
    from endpunkt_cli.files import Source
    from endpunkt_cli.forms import Resource

Kind = Literal["online", "batch"]
Document = dict[str, Any]

POLL_SECONDS = 0.5
_CHANGEABLE = (
    "description",
    "tags",
    "properties",
    "traffic",
    "mirror_traffic",
    "public_network_access",
    "defaults",
)


def source_of(file: Path | None, options: Document, base: Document | None = None) -> "Source":
    """A file's content, or `base` where there is none, with the options that are given over it (field: value)."""
    from endpunkt_cli.files import BadFile, Source, Trouble, load

    try:
        source = load(file.read_text(encoding="utf-8"), str(file)) if file is not None else Source(base or {})
    except UnicodeDecodeError as error:
        raise BadFile([Trouble(str(file), "", f"is no UTF-8 text: {error.reason} at byte {error.start}")]) from None
    given = {name: value for name, value in options.items() if value is not None}
    places = {name: f"--{name.replace('_', '-')}" for name in given}
    return Source({**source.value, **given}, {**source.places, **places})


def resource_of(
    form: str,
    source: "Source",
    file: Path | None,
    settings: Sequence[str] | None,
    local_environment: bool = False,
) -> "Resource":
    """A valid resource of `source`, with `--set` over it; its notes are told. Raises BadFile with every problem."""
    from endpunkt_cli.files import overlaid
    from endpunkt_cli.forms import read

    folder = file.absolute().parent if file is not None else Path.cwd()
    resource = read(form, overlaid(source, settings or ()), str(folder), local_environment)
    for note in resource.notes:
        tell(str(note))
    return resource


def sent(resource: "Resource", send: Callable[[], Any]) -> Any:
    """What `send` answers; what the API refuses gets the line of the resource's file."""
    try:
        return send()
    except ApiError as error:
        if not error.details:
            raise
        from endpunkt_cli.files import BadFile

        raise BadFile([resource.trouble(each["target"], each["message"]) for each in error.details]) from None


def update_endpoint(
    kind: Kind, file: Path | None, name: str | None, settings: Sequence[str] | None, **more: Any
) -> Document:
    """Change what differs from the endpoint as it is; `more` are fields of options of their own."""
    if file is None and not settings and not more:
        raise typer.BadParameter("say what to change: give --file, --set or the field's own option")
    path, options = f"{kind}Endpoints", {"name": name, **more}
    if file is None:
        if name is None:
            raise typer.BadParameter("say which endpoint: give --name or --file")
        now = flat(session.studio.get(path, name))
        base = {field: now[field] for field in _CHANGEABLE if field in now}
        resource = resource_of(f"{kind}-endpoint", source_of(None, options, base), None, settings)
    else:
        resource = resource_of(f"{kind}-endpoint", source_of(file, options), file, settings)
        now = flat(session.studio.get(path, resource.address["name"]))
    changes = {
        field: value for field, value in resource.body.items() if _meant(field, value) != _meant(field, now.get(field))
    }
    if fixed := [field for field in changes if field not in _CHANGEABLE]:
        from endpunkt_cli.files import BadFile

        raise BadFile([resource.trouble(field, "cannot change: make another endpoint") for field in fixed])
    if not changes:
        return now
    return flat(sent(resource, lambda: session.studio.send("PATCH", path, resource.address["name"], body=changes)))


def _meant(field: str, value: Any) -> Any:
    """A deployment that gets 0 % may be left out of the traffic; an identity is also shown with its ids."""
    if field in ("traffic", "mirror_traffic"):
        return {name: share for name, share in (value or {}).items() if share}
    if field == "identity":
        named = (value or {}).get("user_assigned_identities") or ()
        return (value or {}).get("type", "system_assigned"), [each["resource_id"] for each in named]
    return value
