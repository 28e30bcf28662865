"""The `endpunkt` command: options, verbs, and how an error is told. Also: python -m endpunkt_cli."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from endpunkt_cli import (
    autoscale,
    batch_deployment,
    batch_endpoint,
    code,
    connection,
    cost,
    data,
    dead_letter,
    environment,
    job,
    model,
    online_deployment,
    online_endpoint,
)
from endpunkt_cli.errors import CliError
from endpunkt_cli.options import plain_switches
from endpunkt_cli.session import DEFAULT_URL, session

app = typer.Typer(
    name="endpunkt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(online_endpoint.app, name="online-endpoint")
app.add_typer(online_deployment.app, name="online-deployment")
app.add_typer(batch_endpoint.app, name="batch-endpoint")
app.add_typer(batch_deployment.app, name="batch-deployment")
app.add_typer(job.app, name="job")
app.add_typer(model.app, name="model")
app.add_typer(environment.app, name="environment")
app.add_typer(data.app, name="data")
app.add_typer(code.app, name="code")
app.add_typer(connection.app, name="connection")
app.add_typer(autoscale.app, name="autoscale")
app.add_typer(cost.app, name="cost")
app.add_typer(dead_letter.app, name="dead-letter")


@app.callback()
def options(
    url: Annotated[str, typer.Option("--url", envvar="ENDPUNKT_STUDIO_URL", help="the management API")] = DEFAULT_URL,
    home: Annotated[
        Path,
        typer.Option(
            "--home",
            envvar="ENDPUNKT_HOME",
            help="the installation's state: tls/ca.pem (unless ENDPUNKT_CA) and the token (unless ENDPUNKT_TOKEN)",
        ),
    ] = Path("var/endpunkt"),
) -> None:
    """Azure Machine Learning endpoints, self-hosted: the verbs of `az ml`."""
    session.url, session.home = url, home


def main() -> None:
    """Run the command that the arguments name: exits with 0, 1 after an error, 2 for a usage error."""
    try:
        app(args=list(plain_switches(sys.argv[1:])))
    except CliError as error:
        sys.stderr.write(f"endpunkt: {error}\n" if "\n" not in str(error) else f"endpunkt:\n{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
