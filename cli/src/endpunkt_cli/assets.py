"""The verbs of registered assets: what models, environments, data and code have in common."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from endpunkt_cli.options import Name, Output, Query, show
from endpunkt_cli.output import Format
from endpunkt_cli.resources import sent, source_of
from endpunkt_cli.session import session

if TYPE_CHECKING:
    from endpunkt_cli.asset_form import Kind

_COLUMNS = ("name", "version", "type", "created_at", "id")
_COLLECTIONS = {"model": "models", "environment": "environments", "data": "data", "code": "codes"}

Version = Annotated[str | None, typer.Option("--version", "-v", help="its version; by default the next integer")]
ShownVersion = Annotated[str, typer.Option("--version", "-v", help="`latest` is the newest one")]
Listed = Annotated[str | None, typer.Option("--name", "-n", help="only its versions")]


def register(kind: "Kind", file: Path | None, options: dict[str, str | None], settings: Sequence[str] | None) -> Any:
    """Register what the file and the options over it say; returns it as it is registered."""
    from endpunkt_cli.asset_form import read_asset
    from endpunkt_cli.files import overlaid
    from endpunkt_cli.upload import uploaded

    source = overlaid(source_of(file, options), settings or ())
    # A path that is typed is relative to where one stands, one in the file to the file.
    typed = options.get("path") is not None or options.get("conda_file") is not None
    folder = file.absolute().parent if file is not None and not typed else Path.cwd()
    resource = read_asset(kind, source, str(folder))
    collection, name = _COLLECTIONS[kind], resource.address["name"]
    version = resource.address.get("version") or session.studio.get(collection, name)["next_version"]
    body = sent(resource, lambda: uploaded(resource))
    return sent(resource, lambda: session.studio.send("PUT", collection, name, "versions", version, body=body))


def verbs(kind: "Kind", about: str) -> typer.Typer:
    """An app with `show` and `list`; `create` is the kind's own."""
    app = typer.Typer(no_args_is_help=True, help=about)

    @app.command("show")
    def show_(name: Name, version: ShownVersion = "latest", query: Query = None, output: Output = Format.json) -> None:
        """One version."""
        show(session.studio.get(_COLLECTIONS[kind], name, "versions", version), query, output, _COLUMNS)

    @app.command("list")
    def list_(name: Listed = None, query: Query = None, output: Output = Format.json) -> None:
        """Every version, or those of one name."""
        path = (_COLLECTIONS[kind],) if name is None else (_COLLECTIONS[kind], name, "versions")
        show(session.studio.get(*path)["value"], query, output, _COLUMNS)

    return app


def shown(document: Any, query: str | None, output: Format) -> None:
    """Print what was registered."""
    show(document, query, output, _COLUMNS)
