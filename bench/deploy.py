"""From `endpunkt online-deployment create` to the first 200, in an environment that is built: `make bench-deploy`.

The example's model in an environment of its own. The clock starts when the command starts and stops at the first
answer; the script's own `init()` is taken off. The parts come from the deployment's events (environment and artifacts
prepared, process created, ready) and from what the inference server says of itself (imports, `init`, warm-up).
"""

import asyncio
import re
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from results import write_results
from rich.console import Console

from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Answers, Client
from endpunkt_infra.demo.story import Story
from endpunkt_infra.stack.control import down, up
from endpunkt_infra.stack.ports import free_ports

ROUNDS = 7
POLL_SECONDS = 0.005
TARGETS = {"warm_deploy_seconds": {"max": 2}}


async def deploy(client: Client, home: Path, name: str, key: str, body: bytes) -> dict[str, float]:
    """Create deployment `name`; seconds of the whole and of its parts."""
    began = datetime.now(UTC)
    accepted: list[datetime] = []

    async def create() -> None:
        await client.command("online-deployment", "create", "--no-wait", "--file", "teal.yml", "--name", name)
        accepted.append(datetime.now(UTC))

    creating = asyncio.create_task(create())
    while True:
        answers = Answers()
        await client.score(answers, key, body, deployment=name)
        if answers.failed == 0:
            answered = datetime.now(UTC)
            break
        if creating.done():
            creating.result()
        await asyncio.sleep(POLL_SECONDS)
    await creating
    path = f"/v1/onlineEndpoints/diabetes/deployments/{name}/events"
    happened = await client.until("the events", lambda: client.get(path), lambda told: "Ready" in reasons(told))
    at = {event["reason"]: datetime.fromisoformat(event["at"]) for event in reversed(happened["value"])}
    imports, init = told_by_server(home, name)
    first = min(at.values())
    return {
        "seconds": (answered - began).total_seconds() - init,
        "init": init,
        "command": (first - began).total_seconds(),
        "artifacts": (at.get("Pulled", first) - first).total_seconds(),
        "environment": (at["Built"] - at.get("Pulled", first)).total_seconds(),
        "imports": imports,
        "process_start_and_probe": (at["Ready"] - at["Created"]).total_seconds() - init - imports,
        "routed": (answered - at["Ready"]).total_seconds(),
    }


def told_by_server(home: Path, name: str) -> tuple[float, float]:
    """Seconds of imports and of `init()`, from the log of the deployment's only instance."""
    [log] = home.glob(f"instances/diabetes-{name}-*/console.log")
    [(imports, init)] = re.findall(r"imported in ([\d.]+) s, init\(\) took ([\d.]+) s", log.read_text())
    return float(imports), float(init)


def reasons(told: Any) -> list[str]:
    """What the events say that happened."""
    return [event["reason"] for event in told["value"]]


async def measure(story: Story, home: Path, work: Path, addresses: dict[str, str]) -> dict[str, Any]:
    """Medians of each part over the rounds, and how long the environment took the first time."""
    async with Client(home, work, addresses) as client:
        body = steps.prepare(story, work)
        await steps.register(story, client)
        await client.command("online-endpoint", "create", "--file", "endpoint.yml")
        key = str((await client.command("online-endpoint", "get-credentials", "--name", "diabetes"))["primaryKey"])
        began = time.monotonic()
        await client.command("online-deployment", "create", "--file", "teal.yml", "--name", "first")
        figures: dict[str, Any] = {"first_deploy_seconds": round(time.monotonic() - began, 2)}
        rounds = []
        for number in range(ROUNDS):
            name = f"round-{number}"
            rounds.append(await deploy(client, home, name, key, body))
            story.say(", ".join(f"{part} {value:.3f}" for part, value in rounds[-1].items()))
    parts = {part: round(statistics.median(each[part] for each in rounds), 3) for part in rounds[0]}
    figures["warm_deploy_seconds"] = parts.pop("seconds")
    return figures | {f"{part}_seconds": value for part, value in parts.items()}


def main() -> int:
    """Measure, print, write bench/results/deploy.json; 1 when the target is missed."""
    story = Story(Console(), steps=1)
    with tempfile.TemporaryDirectory(prefix="endpunkt-bench-") as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        try:
            addresses = up(home, free_ports(), story.say, alone=True)
            figures = asyncio.run(measure(story, home, work, addresses))
        finally:
            down(home, story.say)
    return 0 if write_results("deploy", ratios={}, figures=figures, targets=TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
