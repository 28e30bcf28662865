"""endpunkt code: create, show, list."""

from typing import Annotated

import typer

from endpunkt_cli.assets import Version, register, shown, verbs
from endpunkt_cli.options import FileName, OptionalFile, Output, Query, Set
from endpunkt_cli.output import Format

app = verbs("code", "Registered code: deployments name it with `code: azureml:NAME:VERSION`.")


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    version: Version = None,
    path: Annotated[str | None, typer.Option("--path", "-p", help="its folder, over the file's")] = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Register a version of code; a version is never replaced. What is here is uploaded."""
    options = {"name": name, "version": version, "path": path}
    shown(register("code", file, options, set_), query, output)
