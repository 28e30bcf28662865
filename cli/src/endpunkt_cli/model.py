"""endpunkt model: create, show, list."""

from typing import Annotated

import typer

from endpunkt_cli.options import FileName, Name, OptionalFile, Output, Query, Set, show
from endpunkt_cli.output import Format
from endpunkt_cli.resources import resource_of, sent, source_of
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Registered models.")

_COLUMNS = ("name", "version", "type", "created_at", "id")


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    version: Annotated[str | None, typer.Option("--version", "-v", help="its version, over the file's")] = None,
    path: Annotated[str | None, typer.Option("--path", "-p", help="its folder or file, over the file's")] = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Register a version of a model; a version is never replaced."""
    source = source_of(file, {"name": name, "version": version, "path": path})
    # A path that is typed is relative to where one stands, one in the file to the file.
    resource = resource_of("model", source, None if path is not None else file, set_)
    address = ("models", resource.address["name"], "versions", resource.address["version"])
    show(sent(resource, lambda: session.studio.send("PUT", *address, body=resource.body)), query, output, _COLUMNS)


@app.command("show")
def show_(
    name: Name,
    version: Annotated[str, typer.Option("--version", "-v", help="`latest` is the newest one")] = "latest",
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """One version of a model."""
    show(session.studio.get("models", name, "versions", version), query, output, _COLUMNS)


@app.command("list")
def list_(
    name: Annotated[str | None, typer.Option("--name", "-n", help="only this model's versions")] = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Every version of every model."""
    models = session.studio.get("models")["value"]
    show([model for model in models if name in (None, model["name"])], query, output, _COLUMNS)
