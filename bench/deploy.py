"""From `endpunkt online-deployment create` to the first 200, in an environment that is built: `make bench-deploy`.

The example's model in an environment of its own. The clock starts when the command starts and stops at the first
answer; the script's own `init()` is taken off. The parts follow each other without a gap:

| part | until | said by |
|---|---|---|
| command | the provisioner has accepted it | the deployment's first event |
| artifacts, environment | they lie on this machine | the events Pulled, Built |
| reconciled | an instance is started | the instance's record |
| process_start | the server is about to import the script: confinement, Python, the server's own imports | its log |
| imports, init | the script is imported, has initialised | its log |
| readiness | it listens and the provisioner has found it ready | the event Ready |
| routed | the first answer has come, through the router | the client |
"""

import asyncio
import json
import re
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from house import running_house
from results import write_results
from rich.console import Console

from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Answers, Client
from endpunkt_infra.demo.story import Story

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
    started, server = instance_of(home, name)
    first = min(at.values())
    return {
        "seconds": (answered - began).total_seconds() - server.init,
        "command": (first - began).total_seconds(),
        "artifacts": (at.get("Pulled", first) - first).total_seconds(),
        "environment": (at["Built"] - at.get("Pulled", first)).total_seconds(),
        "reconciled": (started - at["Built"]).total_seconds(),
        "process_start": (server.began - started).total_seconds(),
        "imports": server.imports,
        "init": server.init,
        "readiness": (at["Ready"] - server.began).total_seconds() - server.imports - server.init,
        "routed": (answered - at["Ready"]).total_seconds(),
    }


class Server(NamedTuple):
    """What the server says of its start: when it began to import the script, and how long that and `init()` took."""

    began: datetime
    imports: float
    init: float

    @classmethod
    def told(cls, log: str) -> Self:
        """From its log, whose lines begin with the time (UTC)."""
        seconds = r"imported in ([\d.]+) s, init\(\) took ([\d.]+) s, the warm-up ([\d.]+) s"
        [(at, *took)] = re.findall(rf"^([-\d]+ [:,\d]+) .*{seconds}$", log, re.MULTILINE)
        imports, init, warm_up = map(float, took)
        ended = datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").replace(tzinfo=UTC)
        return cls(ended - timedelta(seconds=imports + init + warm_up), imports, init)


def instance_of(home: Path, name: str) -> tuple[datetime, Server]:
    """When the deployment's only instance was started, and what its server says."""
    [instance] = home.glob(f"instances/diabetes-{name}-*")
    record = json.loads((instance / "instance.json").read_text())
    return datetime.fromisoformat(record["started_at"]), Server.told((instance / "console.log").read_text())


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
    with running_house(story) as place:
        figures = asyncio.run(measure(story, *place))
    return 0 if write_results("deploy", ratios={}, figures=figures, targets=TARGETS) else 1


if __name__ == "__main__":
    sys.exit(main())
