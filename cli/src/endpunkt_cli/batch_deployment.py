"""endpunkt batch-deployment: create, update, show, list, delete."""

from typing import Annotated

import typer

from endpunkt_cli.deploying import Deploying
from endpunkt_cli.options import (
    Endpoint,
    File,
    FileEndpoint,
    FileName,
    LocalEnvironment,
    Name,
    NoWait,
    OptionalFile,
    Output,
    Query,
    Set,
    SkipScriptValidation,
    Yes,
    confirm,
    show,
)
from endpunkt_cli.output import Format, flat
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Deployments of batch endpoints.")

_COLUMNS = ("name", "endpoint_name", "provisioning_state", "resources.instance_count", "instance_type")


@app.command()
def create(
    file: File,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    set_default: Annotated[bool, typer.Option("--set-default", help="make it the endpoint's default one")] = False,
    no_wait: NoWait = False,
    local_environment: LocalEnvironment = False,
    skip_script_validation: SkipScriptValidation = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Make a deployment; it must not exist."""
    asked = Deploying("batch", "create", file, name, endpoint_name, set_, local_environment, skip_script_validation)
    put = asked.put()
    document = put.document if no_wait else put.until_ready()
    if set_default:
        session.studio.send("PATCH", "batchEndpoints", put.endpoint, body={"defaults": {"deployment_name": put.name}})
    show(flat(document), query, output, _COLUMNS)


@app.command()
def update(
    file: OptionalFile = None,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    no_wait: NoWait = False,
    local_environment: LocalEnvironment = False,
    skip_script_validation: SkipScriptValidation = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Replace a deployment by the file, or change it with --set alone."""
    asked = Deploying("batch", "update", file, name, endpoint_name, set_, local_environment, skip_script_validation)
    put = asked.put()
    document = put.document if no_wait else put.until_ready()
    show(flat(document), query, output, _COLUMNS)


@app.command("show")
def show_(name: Name, endpoint_name: Endpoint, query: Query = None, output: Output = Format.json) -> None:
    """A deployment."""
    document = session.studio.get("batchEndpoints", endpoint_name, "deployments", name)
    show(flat(document), query, output, _COLUMNS)


@app.command("list")
def list_(endpoint_name: Endpoint, query: Query = None, output: Output = Format.json) -> None:
    """Every deployment of an endpoint."""
    documents = session.studio.get("batchEndpoints", endpoint_name, "deployments")["value"]
    show([flat(document) for document in documents], query, output, _COLUMNS)


@app.command()
def delete(name: Name, endpoint_name: Endpoint, yes: Yes = False) -> None:
    """Delete a deployment."""
    confirm(f"Delete deployment {name} of batch endpoint {endpoint_name}?", yes)
    session.studio.send("DELETE", "batchEndpoints", endpoint_name, "deployments", name)
