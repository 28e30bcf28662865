"""endpunkt job: show, list, cancel, stream."""

import time
from typing import Any

import typer

from endpunkt_cli.batch_endpoint import JOB_COLUMNS
from endpunkt_cli.errors import CliError
from endpunkt_cli.options import Name, NoWait, Output, Query, Yes, confirm, show, tell
from endpunkt_cli.output import Format
from endpunkt_cli.resources import POLL_SECONDS
from endpunkt_cli.session import session

app = typer.Typer(no_args_is_help=True, help="Batch jobs.")

_FINAL = ("Completed", "Failed", "Canceled")


@app.command("show")
def show_(name: Name, query: Query = None, output: Output = Format.json) -> None:
    """A job with its recent progress."""
    show(session.studio.get("jobs", name), query, output, JOB_COLUMNS)


@app.command("list")
def list_(query: Query = None, output: Output = Format.json) -> None:
    """Every job, newest first."""
    show(session.studio.get("jobs")["value"], query, output, JOB_COLUMNS)


@app.command()
def cancel(name: Name, yes: Yes = False, no_wait: NoWait = False) -> None:
    """Stop a job; what it has written so far is removed."""
    confirm(f"Stop job {name}?", yes)
    session.studio.send("POST", "jobs", name, "cancel")
    if not no_wait:
        _followed(name)


@app.command()
def stream(name: Name, query: Query = None, output: Output = Format.json) -> None:
    """Follow a job to its end, then print it; fails when the job does."""
    document = _followed(name)
    show(document, query, output, JOB_COLUMNS)
    if document["status"] != "Completed":
        raise CliError(f"job {name} is {document['status']}: {document['message'] or 'without a reason'}")


def _followed(name: str) -> dict[str, Any]:
    """The job when it has ended; each change is told."""
    told = ""
    try:
        while True:
            document: dict[str, Any] = session.studio.get("jobs", name)
            files = document["files"]
            line = (
                f"{name}: {document['status']}, {document['mini_batches_done']} of {document['mini_batches']} "
                f"mini-batches, {files['succeeded']} of {files['total']} files, {files['failed']} failed"
            )
            if line != told:
                tell(line)
                told = line
            if document["status"] in _FINAL:
                return document
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        tell(f"It goes on: endpunkt job show -n {name} tells how.")
        raise typer.Exit(130) from None
