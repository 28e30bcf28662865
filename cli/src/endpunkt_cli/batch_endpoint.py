"""endpunkt batch-endpoint: create, update, show, list, delete, invoke, list-jobs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from endpunkt_cli.options import FileName, Name, OptionalFile, Output, Query, Set, Yes, confirm, show, tell
from endpunkt_cli.output import Format, flat
from endpunkt_cli.resources import resource_of, sent, source_of, update_endpoint
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Endpoints that run jobs.")

_COLUMNS = ("name", "auth_mode", "provisioning_state", "defaults.deployment_name", "scoring_uri")
JOB_COLUMNS = ("name", "endpoint", "deployment", "status", "files.succeeded", "files.failed", "rows")


class InputType(StrEnum):
    """What `--input` is."""

    uri_folder = "uri_folder"
    uri_file = "uri_file"


@app.command()
def create(
    file: OptionalFile = None,
    name: FileName = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Make an endpoint; it must not exist."""
    resource = resource_of("batch-endpoint", source_of(file, {"name": name}), file, set_)
    path = ("batchEndpoints", resource.address["name"])
    show(flat(sent(resource, lambda: session.studio.send("PUT", *path, body=resource.body))), query, output, _COLUMNS)


@app.command()
def update(
    file: OptionalFile = None,
    name: FileName = None,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Change an endpoint: its description, tags, properties, defaults."""
    show(update_endpoint("batch", file, name, set_), query, output, _COLUMNS)


@app.command("show")
def show_(name: Name, query: Query = None, output: Output = Format.json) -> None:
    """An endpoint."""
    show(flat(session.studio.get("batchEndpoints", name)), query, output, _COLUMNS)


@app.command("list")
def list_(query: Query = None, output: Output = Format.json) -> None:
    """Every endpoint."""
    endpoints = session.studio.get("batchEndpoints")["value"]
    show([flat(endpoint) for endpoint in endpoints], query, output, _COLUMNS)


@app.command()
def delete(name: Name, yes: Yes = False) -> None:
    """Delete an endpoint with its deployments."""
    confirm(f"Delete batch endpoint {name} with its deployments?", yes)
    if session.studio.send("DELETE", "batchEndpoints", name):
        tell(f"{name} is deleted, and its instances end what they do: its name is free when they have.")


@app.command()
def invoke(
    name: Name,
    input: Annotated[str, typer.Option("--input", help="the folder or file to score: a path or a file: URI")],
    input_type: Annotated[
        InputType | None, typer.Option("--input-type", help="uri_file when the input is a file, unless said")
    ] = None,
    output_path: Annotated[str | None, typer.Option("--output-path", help="a folder that does not exist yet")] = None,
    deployment_name: Annotated[
        str | None, typer.Option("--deployment-name", "-d", help="this deployment, not the default one")
    ] = None,
    job_name: Annotated[str | None, typer.Option("--job-name", help="the job's id; one is made unless given")] = None,
    mini_batch_size: Annotated[int | None, typer.Option("--mini-batch-size", help="files at once")] = None,
    instance_count: Annotated[int | None, typer.Option("--instance-count", help="instances of the job")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="max_retries, timeout, error_threshold or output_file_name =value", show_default=False
        ),
    ] = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Start a job and print it; `endpunkt job stream` follows it."""
    from endpunkt_cli.files import Source, overlaid
    from endpunkt_cli.forms import Resource

    settings = {"mini_batch_size": mini_batch_size, "instance_count": instance_count}
    overrides = overlaid(Source({name: value for name, value in settings.items() if value is not None}), set_ or ())
    kind = input_type or (InputType.uri_file if Path(input).is_file() else InputType.uri_folder)
    body: dict[str, Any] = {
        "input": {"type": kind, "uri": _local(input)},
        "overrides": overrides.value,
        "output": None if output_path is None else _local(output_path),
        "deployment": deployment_name,
    }
    if job_name is not None:
        body["job"] = job_name
    places = {"deployment": "--deployment-name", "job": "--job-name", "input": "--input", "output": "--output-path"}
    options = {f"overrides.{path}": f"--{path.replace('_', '-')}" for path in settings}
    options |= {f"overrides.{path}": place for path, place in overrides.places.items()}
    resource = Resource({}, body, Source(body, {**places, **options}))
    document = sent(resource, lambda: session.studio.send("POST", "batchEndpoints", name, "jobs", body=body))
    show(document, query, output, JOB_COLUMNS)


@app.command("list-jobs")
def list_jobs(name: Name, query: Query = None, output: Output = Format.json) -> None:
    """The jobs of an endpoint, newest first."""
    show(session.studio.get("batchEndpoints", name, "jobs")["value"], query, output, JOB_COLUMNS)


def _local(path: str) -> str:
    from endpunkt_cli.references import file_uri

    try:
        return file_uri(path, str(Path.cwd()))
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}") from None
