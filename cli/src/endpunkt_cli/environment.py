"""endpunkt environment: create, show, list."""

from typing import Annotated

import typer

from endpunkt_cli.assets import Version, register, shown, verbs
from endpunkt_cli.options import FileName, OptionalFile, Output, Query, Set
from endpunkt_cli.output import Format

app = verbs("environment", "Registered environments.")


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    version: Version = None,
    conda_file: Annotated[
        str | None, typer.Option("--conda-file", "-c", help="its conda YAML file or requirements.txt, over the file's")
    ] = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Register a version of an environment; a version is never replaced. What is here is uploaded."""
    options = {"name": name, "version": version, "conda_file": conda_file}
    shown(register("environment", file, options, set_), query, output)
