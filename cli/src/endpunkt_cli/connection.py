"""endpunkt connection: create, show, list, delete."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from endpunkt_cli.errors import CliError
from endpunkt_cli.options import FileName, Name, Output, Query, Set, Yes, confirm, show
from endpunkt_cli.output import Format, flat
from endpunkt_cli.resources import sent
from endpunkt_cli.session import session

app = typer.Typer(
    no_args_is_help=True,
    help="Connections: where something outside is, and its secrets. Environment variables of deployments refer to "
    "them: ${{azureml://connections/NAME/credentials/KEY}}.",
)

_COLUMNS = ("name", "type", "target", "updated_at")
_STDIN = "-"

File = Annotated[str, typer.Option("--file", "-f", help="a YAML file in Azure's format; - is standard input")]


@app.command()
def create(
    file: File,
    name: FileName = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Create a connection, or replace it: instances that start afterwards get the new values. Secrets are in the file,
    or in files of their own: --set credentials.key=@FILE (@- is standard input)."""
    from endpunkt_cli.connection_form import read_connection, without_secrets
    from endpunkt_cli.files import Source, load, overlaid

    plain, files = without_secrets(set_ or ())
    if file == _STDIN and _STDIN in files.values():
        raise CliError("standard input holds the file or a secret, not both: put one of them into a file")
    source = load(_text(file), "standard input" if file == _STDIN else file)
    if name is not None:
        source = Source({**source.value, "name": name}, {**source.places, "name": "--name"})
    source = overlaid(source, plain)
    secrets = {path: _text(from_).removesuffix("\n").removesuffix("\r") for path, from_ in files.items()}
    source = Source(source.value, {**source.places, **{path: f"--set {path}" for path in secrets}})
    resource = read_connection(source, secrets)
    address = ("connections", resource.address["name"])
    show(
        flat(sent(resource, lambda: session.studio.send("PUT", *address, body=resource.body))), query, output, _COLUMNS
    )


@app.command("show")
def show_(
    name: Name,
    populate_secrets: Annotated[
        bool, typer.Option("--populate-secrets", help="with the credentials' values, which are null otherwise")
    ] = False,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """One connection."""
    if populate_secrets:
        document = session.studio.send("POST", "connections", name, "listSecrets")
    else:
        document = session.studio.get("connections", name)
    show(flat(document), query, output, _COLUMNS)


@app.command("list")
def list_(query: Query = None, output: Output = Format.json) -> None:
    """Every connection, without the credentials' values."""
    show([flat(document) for document in session.studio.get("connections")["value"]], query, output, _COLUMNS)


@app.command()
def delete(name: Name, yes: Yes = False) -> None:
    """Delete a connection. Instances that run keep what they were given."""
    confirm(f"Delete connection '{name}'? New instances that refer to it will not start.", yes)
    session.studio.send("DELETE", "connections", name)


def _text(file: str) -> str:
    """What is in a file, or on standard input."""
    try:
        return sys.stdin.read() if file == _STDIN else Path(file).read_text(encoding="utf-8")
    except OSError as error:
        raise CliError(f"cannot read {file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CliError(f"{file} is no UTF-8 text: {error.reason} at byte {error.start}") from None
