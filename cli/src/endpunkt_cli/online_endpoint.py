"""endpunkt online-endpoint: create, update, show, list, delete, invoke, get-credentials, regenerate-keys."""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from endpunkt_cli.errors import CliError
from endpunkt_cli.options import FileName, Local, Name, OptionalFile, Output, Query, Set, Yes, confirm, show, tell
from endpunkt_cli.output import Format, flat
from endpunkt_cli.resources import resource_of, sent, source_of, update_endpoint
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Endpoints that answer at once.")

_COLUMNS = ("name", "auth_mode", "provisioning_state", "traffic", "scoring_uri")
_VARIABLE = "ENDPUNKT_SCORING_TOKEN"
_LONGEST_ANSWER_SECONDS = 200
"""Azure lets a request take 180 s."""


class KeyType(StrEnum):
    """Azure's two keys."""

    primary = "primary"
    secondary = "secondary"


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    local: Local = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Make an endpoint; it must not exist."""
    resource = resource_of("online-endpoint", source_of(file, {"name": name}), file, set_)
    early = [field for field in ("traffic", "mirror_traffic") if any(resource.body.pop(field, {}).values())]
    if early:
        from endpunkt_cli.files import BadFile

        hint = "a new endpoint has no deployments: make them, then `online-endpoint update` with this traffic"
        raise BadFile([resource.source.trouble(field, hint) for field in early])
    if local:
        from endpunkt_cli.local import verbs

        made = verbs.create_endpoint(resource.address["name"], resource.body)
        show(made, query, output, verbs.ENDPOINT_COLUMNS)
        return
    path = ("onlineEndpoints", resource.address["name"])
    show(flat(sent(resource, lambda: session.studio.send("PUT", *path, body=resource.body))), query, output, _COLUMNS)


@app.command()
def update(
    file: OptionalFile = None,
    name: FileName = None,
    traffic: Annotated[str | None, typer.Option("--traffic", help='the whole split: "blue=90 green=10"')] = None,
    mirror_traffic: Annotated[
        str | None, typer.Option("--mirror-traffic", help='what is sent a copy: "green=10"; "green=0" for none')
    ] = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Change an endpoint: its description, tags, properties, traffic, mirrored traffic, network access."""
    given = {"traffic": traffic, "mirror_traffic": mirror_traffic}
    more = {field: _split(field, text) for field, text in given.items() if text is not None}
    show(update_endpoint("online", file, name, set_, **more), query, output, _COLUMNS)


@app.command("show")
def show_(name: Name, local: Local = False, query: Query = None, output: Output = Format.json) -> None:
    """An endpoint with its state."""
    if local:
        from endpunkt_cli.local import verbs

        show(verbs.show_endpoint(name), query, output, verbs.ENDPOINT_COLUMNS)
        return
    show(flat(session.studio.get("onlineEndpoints", name)), query, output, _COLUMNS)


@app.command("list")
def list_(local: Local = False, query: Query = None, output: Output = Format.json) -> None:
    """Every endpoint."""
    if local:
        from endpunkt_cli.local import verbs

        show(verbs.list_endpoints(), query, output, verbs.ENDPOINT_COLUMNS)
        return
    endpoints = session.studio.get("onlineEndpoints")["value"]
    show([flat(endpoint) for endpoint in endpoints], query, output, _COLUMNS)


@app.command()
def delete(name: Name, local: Local = False, yes: Yes = False) -> None:
    """Delete an endpoint with its deployments."""
    if local:
        from endpunkt_cli.local import verbs

        verbs.delete_endpoint(name)
        return
    confirm(f"Delete online endpoint {name} with its deployments?", yes)
    if session.studio.send("DELETE", "onlineEndpoints", name):
        tell(f"{name} is deleted, and its instances end what they do: its name is free when they have.")


@app.command()
def invoke(
    name: Name,
    request_file: Annotated[Path, typer.Option("--request-file", "-r", help="the body", exists=True, dir_okay=False)],
    deployment_name: Annotated[
        str | None, typer.Option("--deployment-name", "-d", help="this deployment, whatever the split")
    ] = None,
    local: Local = False,
) -> None:
    """Send a scoring request and print the answer as it is."""
    if local:
        from endpunkt_cli.local import verbs

        _print(verbs.invoke(name, deployment_name, request_file.read_bytes(), _LONGEST_ANSWER_SECONDS))
        return
    endpoint = session.studio.get("onlineEndpoints", name)
    headers = {"Authorization": f"Bearer {_credential(name)}", "Content-Type": "application/json"}
    if deployment_name is not None:
        headers["azureml-model-deployment"] = deployment_name
    router = session.origin(endpoint["scoring_uri"], _LONGEST_ANSWER_SECONDS)
    answer = router.request("POST", router.path, request_file.read_bytes(), headers)
    if not 200 <= answer.status < 300:
        raise CliError(f"{name} answered {answer.status}: {answer.body.decode(errors='replace')}")
    _print(answer.body)


@app.command("get-credentials")
def get_credentials(name: Name, query: Query = None, output: Output = Format.json) -> None:
    """The two keys, or a token where the endpoint takes tokens."""
    show(_credentials(name), query, output)


@app.command("regenerate-keys")
def regenerate_keys(
    name: Name,
    key_type: Annotated[KeyType, typer.Option("--key-type", help="which one")] = KeyType.primary,
    yes: Yes = False,
) -> None:
    """Replace one key; the other goes on working."""
    confirm(f"Replace the {key_type} key of {name}? Clients that use it are refused from then on.", yes)
    body = {"keyType": key_type.capitalize()}
    session.studio.send("POST", "onlineEndpoints", name, "regenerateKeys", body=body)
    tell(f"The {key_type} key is a new one: endpunkt online-endpoint get-credentials -n {name}")


def _credentials(name: str) -> dict[str, Any]:
    mode = flat(session.studio.get("onlineEndpoints", name))["auth_mode"]
    if mode == "aad_token":
        hint = f"{name} takes the tokens of an issuer: ask that for one (`invoke` sends what {_VARIABLE} holds)"
        raise CliError(hint)
    action = "listKeys" if mode == "key" else "token"
    made: dict[str, Any] = session.studio.send("POST", "onlineEndpoints", name, action)
    return made


def _credential(name: str) -> str:
    """What a scoring request is sent with."""
    if token := os.environ.get(_VARIABLE):
        return token
    made = _credentials(name)
    return str(made["primaryKey"] if "primaryKey" in made else made["accessToken"])


def _print(answer: bytes) -> None:
    sys.stdout.buffer.write(answer)
    sys.stdout.buffer.write(b"\n" if sys.stdout.isatty() else b"")
    sys.stdout.flush()


def _split(field: str, text: str) -> dict[str, int]:
    split = {}
    for share in text.replace(",", " ").split():
        name, _, percent = share.partition("=")
        if not name or not percent.isdecimal() or name in split:
            hint = f'"{share}" is no share: write "blue=90 green=10", each deployment once'
            raise typer.BadParameter(hint, param_hint=f"--{field.replace('_', '-')}")
        split[name] = int(percent)
    return split
