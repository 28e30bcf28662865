"""endpunkt data: create, show, list."""

from typing import Annotated

import typer

from endpunkt_cli.assets import Version, register, shown, verbs
from endpunkt_cli.options import FileName, OptionalFile, Output, Query, Set
from endpunkt_cli.output import Format

app = verbs("data", "Registered data.")


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    version: Version = None,
    path: Annotated[str | None, typer.Option("--path", "-p", help="its folder or file, over the file's")] = None,
    type_: Annotated[str | None, typer.Option("--type", "-t", help="uri_folder or uri_file")] = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Register a version of data; a version is never replaced. What is here is uploaded."""
    options = {"name": name, "version": version, "path": path, "type": type_}
    shown(register("data", file, options, set_), query, output)
