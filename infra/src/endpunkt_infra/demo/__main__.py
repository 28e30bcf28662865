"""python -m endpunkt_infra.demo --home var/demo (`make demo`): the story, then var/demo/report.json."""

import argparse
import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Client, DemoFailed
from endpunkt_infra.demo.story import Story
from endpunkt_infra.stack.control import StackError, down, up
from endpunkt_infra.stack.ports import free_ports

_SETTINGS = {"ENDPUNKT_USAGE_SECONDS": "1"}  # usage is told at once

_FAILURES = (DemoFailed, StackError, OSError)
"""What is told as a failure of the demo. Anything else is a mistake in it, and keeps its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo under --home; exits with 0 when every figure was as told."""
    parser = argparse.ArgumentParser(prog="endpunkt_infra.demo", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("var/demo"))
    folder = parser.parse_args(arguments).home.absolute()
    console = Console()
    state, report_file = folder / "state", folder / "report.json"
    report: dict[str, Any] = {}
    story = Story(console, steps=7)
    problems: list[Exception] = []
    try:
        report_file.unlink(missing_ok=True)  # of an earlier run: a failed one must leave none
        _stop(story, state)
        for old in (state, folder / "work"):
            shutil.rmtree(old, ignore_errors=True)
        _tell(story, folder, state, report)
    except _FAILURES as error:
        problems.append(error)
    finally:
        try:
            _stop(story, state)
        except _FAILURES as error:
            problems.append(error)
    if problems:
        for problem in problems:
            console.print("[bold red]the demo failed:[/]", escape(str(problem)), highlight=False, soft_wrap=True)
        console.print(f"logs: {state / 'logs'}", highlight=False, soft_wrap=True)
        return 1
    _write(report_file, {**report, "seconds": story.seconds})
    story.table("What was seen", _summary(report, story))
    console.print(f"every figure: {report_file}", highlight=False, soft_wrap=True)
    return 0


def _stop(story: Story, state: Path) -> None:
    with story.waiting("stopping what runs"):
        down(state, story.say)


def _tell(story: Story, folder: Path, state: Path, report: dict[str, Any]) -> None:
    with story.step("start", "Start a real Kafka broker and every service as its own process"):
        with story.waiting("until all of them are ready"):
            addresses = up(state, free_ports() | _SETTINGS, lambda line: None, alone=True)
        story.say(f"Kafka on {addresses['kafka']}, scoring on {addresses['scoring']}")
    asyncio.run(_steps(story, folder / "work", state, addresses, report))


async def _steps(story: Story, work: Path, state: Path, addresses: dict[str, str], report: dict[str, Any]) -> None:
    async with Client(state, work, addresses) as client:
        with story.step("register", "Train two models on real data and register them"):
            body = await asyncio.to_thread(steps.prepare, story, work)
            await steps.register(story, client)
        with story.step("split", "Put both behind one endpoint, 90/10, and score over HTTPS"):
            key = await steps.deploy(story, client)
            report |= await steps.split(story, client, key, body)
        with story.step("scaling", "Raise the load until a rule scales blue out, then let it scale in"):
            report["scaling"] = await steps.scale(story, client, key, body)
        with story.step("recovery", "Kill an instance under load"):
            report["recovery"] = await steps.recover(story, client, state, key, body)
        with story.step("batch", "Run a batch job over a folder of CSV files"):
            report["batch"] = await steps.batch(story, client, work)
        with story.step("cost", "Show what it all cost"):
            report["cost"] = await steps.cost(story, client)


def _summary(report: dict[str, Any], story: Story) -> dict[str, Any]:
    counts = report["split"]
    return {
        "split of 1,000 requests": f"blue {counts['blue']}, green {counts['green']}",
        "pinned to green": f"{report['pinned']['green']} of {report['pinned']['requests']}",
        "a wrong key": report["unauthorized"]["status"],
        "scaling": ", ".join(f"{event['previous']} -> {event['instances']}" for event in report["scaling"]),
        "an instance killed": f"{report['recovery']['requests']} requests, {report['recovery']['failed']} failed",
        "batch job": f"{report['batch']['files']} files, {report['batch']['rows']} rows, {report['batch']['status']}",
        "cost in all": f"{report['cost'][-1]['cost']} ({report['cost'][-1]['requests']} requests)",
        "seconds": ", ".join(f"{name} {seconds}" for name, seconds in story.seconds.items()),
    }


def _write(path: Path, report: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # everything is stopped by now
        sys.exit(130)
