"""endpunkt online-deployment: create, update, show, list, delete, get-logs; each also for local ones."""

from enum import StrEnum
from typing import Annotated

import typer

from endpunkt_cli.deploying import Deploying
from endpunkt_cli.options import (
    Endpoint,
    File,
    FileEndpoint,
    FileName,
    Local,
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

app = typer.Typer(no_args_is_help=True, help="Deployments of online endpoints.")

_COLUMNS = ("name", "endpoint_name", "provisioning_state", "ready_instances", "desired_instances", "instance_type")

VscodeDebug = Annotated[
    bool | None,
    typer.Option(
        "--vscode-debug/--no-vscode-debug",
        help="with --local: wait for a debugger, and write its .vscode/launch.json; an update keeps it",
        show_default=False,
    ),
]
Port = Annotated[int | None, typer.Option("--port", min=1, max=65535, help="with --local: where it listens")]


class Container(StrEnum):
    """Whose output `get-logs` prints."""

    inference_server = "inference-server"
    storage_initializer = "storage-initializer"


@app.command()
def create(
    file: File,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    all_traffic: Annotated[bool, typer.Option("--all-traffic", help="give it 100 % when it is ready")] = False,
    no_wait: NoWait = False,
    local: Local = False,
    local_environment: LocalEnvironment = False,
    vscode_debug: VscodeDebug = None,
    port: Port = None,
    skip_script_validation: SkipScriptValidation = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Make a deployment; it must not exist."""
    if all_traffic and no_wait:
        raise typer.BadParameter("traffic is given to a deployment that is ready: leave --no-wait out")
    if local:
        from endpunkt_cli.local import verbs

        local_asked = verbs.Asked(
            file, name, endpoint_name, set_, local_environment, skip_script_validation, vscode_debug, port, no_wait
        )
        show(verbs.create(local_asked), query, output, verbs.DEPLOYMENT_COLUMNS)
        return
    _not_local(vscode_debug, port)
    asked = Deploying("online", "create", file, name, endpoint_name, set_, local_environment, skip_script_validation)
    put = asked.put()
    document = put.document if no_wait else put.until_ready()
    if all_traffic:
        session.studio.send("PATCH", "onlineEndpoints", put.endpoint, body={"traffic": {put.name: 100}})
    show(flat(document), query, output, _COLUMNS)


@app.command()
def update(
    file: OptionalFile = None,
    name: FileName = None,
    endpoint_name: FileEndpoint = None,
    no_wait: NoWait = False,
    local: Local = False,
    local_environment: LocalEnvironment = False,
    vscode_debug: VscodeDebug = None,
    port: Port = None,
    skip_script_validation: SkipScriptValidation = False,
    set_: Set = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Replace a deployment by the file, or change it with --set alone."""
    if local:
        from endpunkt_cli.local import verbs

        local_asked = verbs.Asked(
            file, name, endpoint_name, set_, local_environment, skip_script_validation, vscode_debug, port, no_wait
        )
        show(verbs.update(local_asked), query, output, verbs.DEPLOYMENT_COLUMNS)
        return
    _not_local(vscode_debug, port)
    asked = Deploying("online", "update", file, name, endpoint_name, set_, local_environment, skip_script_validation)
    put = asked.put()
    document = put.document if no_wait else put.until_ready()
    show(flat(document), query, output, _COLUMNS)


@app.command("show")
def show_(
    name: Name, endpoint_name: Endpoint, local: Local = False, query: Query = None, output: Output = Format.json
) -> None:
    """A deployment with its state."""
    if local:
        from endpunkt_cli.local import verbs

        show(verbs.show_deployment(endpoint_name, name), query, output, verbs.DEPLOYMENT_COLUMNS)
        return
    document = session.studio.get("onlineEndpoints", endpoint_name, "deployments", name)
    show(flat(document), query, output, _COLUMNS)


@app.command("list")
def list_(endpoint_name: Endpoint, local: Local = False, query: Query = None, output: Output = Format.json) -> None:
    """Every deployment of an endpoint."""
    if local:
        from endpunkt_cli.local import verbs

        show(verbs.list_deployments(endpoint_name), query, output, verbs.DEPLOYMENT_COLUMNS)
        return
    documents = session.studio.get("onlineEndpoints", endpoint_name, "deployments")["value"]
    show([flat(document) for document in documents], query, output, _COLUMNS)


@app.command()
def delete(name: Name, endpoint_name: Endpoint, local: Local = False, yes: Yes = False) -> None:
    """Delete a deployment; it must not get live traffic."""
    if local:
        from endpunkt_cli.local import verbs

        verbs.delete_deployment(endpoint_name, name)
        return
    confirm(f"Delete deployment {name} of online endpoint {endpoint_name}?", yes)
    session.studio.send("DELETE", "onlineEndpoints", endpoint_name, "deployments", name)


@app.command("get-logs")
def get_logs(
    name: Name,
    endpoint_name: Endpoint,
    lines: Annotated[int, typer.Option("--lines", "-l", min=1, max=100_000, help="how many, of the newest")] = 5000,
    container: Annotated[
        Container,
        typer.Option("--container", "-c", help="what its instances print, or how its environment and files were made"),
    ] = Container.inference_server,
    instance: Annotated[str | None, typer.Option("--instance", help="of this instance alone, by its id")] = None,
    local: Local = False,
) -> None:
    """Print what a deployment's instances have printed."""
    if local:
        from endpunkt_cli.local import verbs

        text = verbs.logs(endpoint_name, name, lines, container is Container.storage_initializer)
    else:
        kind = "InferenceServer" if container is Container.inference_server else "StorageInitializer"
        body = {"tail": lines, "containerType": kind, **({} if instance is None else {"instance": instance})}
        path = ("onlineEndpoints", endpoint_name, "deployments", name, "getLogs")
        text = session.studio.send("POST", *path, body=body)["content"]
    typer.echo(text.rstrip("\n"))


def _not_local(vscode_debug: bool | None, port: int | None) -> None:
    if vscode_debug or port is not None:
        option = "--vscode-debug" if vscode_debug else "--port"
        raise typer.BadParameter("is for deployments on this machine: give --local too", param_hint=option)
