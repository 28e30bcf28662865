"""The options that commands share, and how a command shows what it got."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from endpunkt_cli.errors import CliError
from endpunkt_cli.output import BadQuery, Format, render, select

Name = Annotated[str, typer.Option("--name", "-n", help="its name")]
FileName = Annotated[str | None, typer.Option("--name", "-n", help="its name, over the file's")]
Endpoint = Annotated[str, typer.Option("--endpoint-name", "-e", help="the endpoint's name")]
FileEndpoint = Annotated[str | None, typer.Option("--endpoint-name", "-e", help="the endpoint's name, over the file's")]
File = Annotated[Path, typer.Option("--file", "-f", help="a YAML file in Azure's format", exists=True, dir_okay=False)]
OptionalFile = Annotated[
    Path | None, typer.Option("--file", "-f", help="a YAML file in Azure's format", exists=True, dir_okay=False)
]
Set = Annotated[list[str] | None, typer.Option("--set", help="path.to.field=value, over the file", show_default=False)]
NoWait = Annotated[bool, typer.Option("--no-wait", help="return when it is accepted, not when it is ready")]
LocalEnvironment = Annotated[
    bool, typer.Option("--local-environment", help="leave `environment` out: run in the services' own packages")
]
SkipScriptValidation = Annotated[
    bool, typer.Option("--skip-script-validation", help="do not look whether the script defines init and run")
]
Local = Annotated[bool, typer.Option("--local", help="on this machine, as a process of yours, without any service")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
Query = Annotated[str | None, typer.Option("--query", help="JMESPath over the output")]
Output = Annotated[Format, typer.Option("--output", "-o", help="the output's format")]


_SWITCHES = (
    "--all-traffic",
    "--local",
    "--local-environment",
    "--no-wait",
    "--set-default",
    "--skip-script-validation",
    "--vscode-debug",
    "--yes",
)


def plain_switches(arguments: Sequence[str]) -> Iterator[str]:
    """`az` takes `--vscode-debug true` for `--vscode-debug`, and with `false` means that it is not given."""
    rest = iter(arguments)
    for argument in rest:
        following = next(rest, None) if argument in _SWITCHES else None
        while following in _SWITCHES:
            yield argument
            argument, following = following, next(rest, None)
        if following == "false":
            if argument == "--vscode-debug":
                yield "--no-vscode-debug"
            continue
        yield argument
        if following is not None and following != "true":
            yield following


def show(document: Any, query: str | None, output: Format, columns: tuple[str, ...] = ()) -> None:
    """Print a document; `columns` are those of a table of the whole of it."""
    if query is not None:
        try:
            document, columns = select(document, query), ()
        except BadQuery as error:
            raise typer.BadParameter(f"no JMESPath: {error}", param_hint="--query") from None
    if text := render(document, output, columns):
        typer.echo(text)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is lost, unless `--yes`."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise CliError(f"{question} There is no terminal to ask on: give --yes to do it.")
    typer.confirm(question, abort=True)


def tell(text: str) -> None:
    """Say how it goes, on standard error."""
    typer.echo(text, err=True)
