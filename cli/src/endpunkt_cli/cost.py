"""endpunkt cost: show."""

from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from endpunkt_cli.options import Output, Query, show
from endpunkt_cli.output import Format
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="What endpoints and deployments cost.")

_COLUMNS = ("endpoint", "deployment", "requests", "instance_seconds", "cost", "currency")


@app.callback()
def group() -> None:
    """What endpoints and deployments cost."""


@app.command("show")
def show_(
    since: Annotated[str | None, typer.Option("--from", help="a day, or an instant such as 2026-11-01T12:00Z")] = None,
    until: Annotated[str | None, typer.Option("--to", help="the same; its hour is not counted")] = None,
    currency: Annotated[str | None, typer.Option("--currency", help="when there are several")] = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """Cost per endpoint and deployment; the parts add up to the total exactly."""
    given = {name: value for name, value in (("from", since), ("to", until), ("currency", currency)) if value}
    tree = session.studio.get("costs", query=f"?{urlencode(given)}" if given else "")
    if output is Format.table and query is None:
        show(_rows(tree), None, output, _COLUMNS)
    else:
        show(tree, query, output)


def _rows(tree: dict[str, Any]) -> list[dict[str, Any]]:
    """The tree as lines: deployments, then their endpoint's sum, and the total at the end."""
    rows: list[dict[str, Any]] = []
    for endpoint in tree["endpoints"]:
        rows += [{"endpoint": endpoint["endpoint"], **part} for part in endpoint["deployments"]]
        rows.append({**endpoint, "deployment": "(all)"})
    rows.append({**tree, "endpoint": "(total)", "deployment": "", "cost": tree["total"]})
    return [{**row, "currency": tree["currency"]} for row in rows]
