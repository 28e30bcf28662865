"""endpunkt autoscale: create, show, delete."""

from typing import Annotated

import typer

from endpunkt_cli.options import Endpoint, File, Output, Query, Yes, confirm, show
from endpunkt_cli.output import Format, flat
from endpunkt_cli.resources import sent, source_of
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Rules that scale an online deployment.")

Deployment = Annotated[str, typer.Option("--deployment-name", "--name", "-n", "-d", help="the deployment's name")]

_COLUMNS = ("name", "endpoint_name", "enabled", "decision.kind", "decision.instances", "decision.reason")


@app.command()
def create(
    file: File, endpoint_name: Endpoint, deployment_name: Deployment, query: Query = None, output: Output = Format.json
) -> None:
    """Set a deployment's autoscale setting from Azure Monitor's JSON or YAML; an earlier one is replaced."""
    from endpunkt_cli.autoscale_form import read_autoscale

    resource = read_autoscale(source_of(file, {}), endpoint_name, deployment_name)
    path = ("onlineEndpoints", endpoint_name, "deployments", deployment_name, "autoscale")
    show(flat(sent(resource, lambda: session.studio.send("PUT", *path, body=resource.body))), query, output, _COLUMNS)


@app.command("show")
def show_(
    endpoint_name: Endpoint, deployment_name: Deployment, query: Query = None, output: Output = Format.json
) -> None:
    """A deployment's setting with the last decision and its reason."""
    path = ("onlineEndpoints", endpoint_name, "deployments", deployment_name, "autoscale")
    show(flat(session.studio.get(*path)), query, output, _COLUMNS)


@app.command()
def delete(endpoint_name: Endpoint, deployment_name: Deployment, yes: Yes = False) -> None:
    """Remove a deployment's setting; it keeps its instance count."""
    confirm(f"Remove the autoscale setting of {endpoint_name}/{deployment_name}?", yes)
    session.studio.send("DELETE", "onlineEndpoints", endpoint_name, "deployments", deployment_name, "autoscale")
