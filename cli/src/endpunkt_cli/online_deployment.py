"""endpunkt online-deployment: create, update, show, list, delete."""

from typing import Annotated

import typer

from endpunkt_cli.options import (
    Endpoint,
    File,
    FileEndpoint,
    FileName,
    Name,
    NoWait,
    OptionalFile,
    Output,
    Query,
    Set,
    Yes,
    confirm,
    show,
)
from endpunkt_cli.output import Format, flat
from endpunkt_cli.resources import put_deployment, until_ready
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Deployments of online endpoints.")

_COLUMNS = ("name", "endpoint_name", "provisioning_state", "ready_instances", "desired_instances", "instance_type")


@app.command()
def create(
    file: File,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    all_traffic: Annotated[bool, typer.Option("--all-traffic", help="give it 100 % when it is ready")] = False,
    no_wait: NoWait = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Make a deployment; it must not exist."""
    if all_traffic and no_wait:
        raise typer.BadParameter("traffic is given to a deployment that is ready: leave --no-wait out")
    document, endpoint, name = put_deployment("online", "create", file, name, endpoint_name, set_)
    if not no_wait:
        document = until_ready("online", endpoint, name)
    if all_traffic:
        session.studio.send("PATCH", "onlineEndpoints", endpoint, body={"traffic": {name: 100}})
    show(flat(document), query, output, _COLUMNS)


@app.command()
def update(
    file: OptionalFile = None,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    no_wait: NoWait = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Replace a deployment by the file, or change it with --set alone."""
    document, endpoint, name = put_deployment("online", "update", file, name, endpoint_name, set_)
    if not no_wait:
        document = until_ready("online", endpoint, name)
    show(flat(document), query, output, _COLUMNS)


@app.command("show")
def show_(name: Name, endpoint_name: Endpoint, query: Query = None, output: Output = Format.json) -> None:
    """A deployment with its state."""
    document = session.studio.get("onlineEndpoints", endpoint_name, "deployments", name)
    show(flat(document), query, output, _COLUMNS)


@app.command("list")
def list_(endpoint_name: Endpoint, query: Query = None, output: Output = Format.json) -> None:
    """Every deployment of an endpoint."""
    documents = session.studio.get("onlineEndpoints", endpoint_name, "deployments")["value"]
    show([flat(document) for document in documents], query, output, _COLUMNS)


@app.command()
def delete(name: Name, endpoint_name: Endpoint, yes: Yes = False) -> None:
    """Delete a deployment; it must not get live traffic."""
    confirm(f"Delete deployment {name} of online endpoint {endpoint_name}?", yes)
    session.studio.send("DELETE", "onlineEndpoints", endpoint_name, "deployments", name)
