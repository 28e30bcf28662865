"""endpunkt dead-letter: list."""

from typing import Annotated

import typer

from endpunkt_cli.options import Output, Query, show
from endpunkt_cli.output import Format
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Records that a service could not read.")

_COLUMNS = ("parked_at", "service", "topic", "partition", "offset", "record_key", "reason")


@app.callback()
def group() -> None:
    """Records that a service could not read."""


@app.command("list")
def list_(
    service: Annotated[str | None, typer.Option("--service", "-s", help="only what this service parked")] = None,
    query: Query = None,
    output: Output = Format.json,
) -> None:
    """What each service parked last, newest first: where the record lies, why it was parked, how its value begins."""
    if service is not None:
        _check(service)
    letters = session.studio.get("deadletters")["value"]
    show([letter for letter in letters if service in (None, letter["service"])], query, output, _COLUMNS)


def _check(service: str) -> None:
    from contracts.topics import dead_letter_topic, topics

    if dead_letter_topic(service) not in topics():
        prefix = dead_letter_topic("")
        known = ", ".join(sorted(name.removeprefix(prefix) for name in topics() if name.startswith(prefix)))
        raise typer.BadParameter(
            f"there is no service '{service}'; these park records: {known}", param_hint="--service"
        )
