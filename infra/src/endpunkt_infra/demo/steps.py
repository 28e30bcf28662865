"""The steps of the main job. Each does what a person would, looks at what came of it, and raises when it is wrong."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.demo.client import Answers, Client, DemoFailed
from endpunkt_infra.demo.load import closed_load, steady_load
from endpunkt_infra.demo.story import Story

EXAMPLES = Path(__file__).parents[4] / "examples" / "diabetes"

SPLIT_REQUESTS = 1000
SCALING_RATE = 90.0
"""Requests a second that pass the example's rule: more than 3,000 a minute."""

RECOVERY_RATE = 20.0
"""Requests a second that neither scale out nor in. They wait for the new instance, at most 128 of them."""


def prepare(story: Story, work: Path) -> bytes:
    """Copy the example, train its models; returns a scoring request's body. Raises DemoFailed."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(EXAMPLES, work, ignore=shutil.ignore_patterns("models", "patients", "request.json", "__pycache__"))
    with story.waiting("training two models"):
        done = subprocess.run([sys.executable, "train.py", "."], cwd=work, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise DemoFailed(f"train.py ended with {done.returncode}:\n{done.stderr}")
    story.say("trained LinearRegression and HistGradientBoostingRegressor on scikit-learn's diabetes data")
    return (work / "request.json").read_bytes()


async def register(story: Story, client: Client) -> None:
    """Register both models."""
    for name in ("linear", "boosting"):
        model = await client.command("model", "create", "--file", f"model-{name}.yml")
        story.say(f"registered azureml:{model['name']}:{model['version']}")


async def deploy(story: Story, client: Client) -> str:
    """Create the endpoint, both deployments and the split; returns the primary key."""
    await client.command("online-endpoint", "create", "--file", "endpoint.yml")
    with story.waiting("creating blue and green"):
        await asyncio.gather(
            *(client.command("online-deployment", "create", "--file", f"{name}.yml") for name in ("blue", "green"))
        )
    await client.command("online-endpoint", "update", "--name", "diabetes", "--traffic", "blue=90 green=10")
    credentials = await client.command("online-endpoint", "get-credentials", "--name", "diabetes")
    story.say("endpoint diabetes: blue (LinearRegression) 90 %, green (HistGradientBoostingRegressor) 10 %")
    return str(credentials["primaryKey"])


async def split(story: Story, client: Client, key: str, body: bytes) -> dict[str, Any]:
    """1,000 requests by the split, then pinned ones, then a wrong key."""

    async def first_answer() -> Answers:
        answers = Answers()
        await client.score(answers, key, body)
        return answers

    await client.until("the router serves the endpoint", first_answer, lambda answers: answers.failed == 0)
    counted = Answers()
    with story.waiting("1,000 requests over HTTPS", SPLIT_REQUESTS) as bar:

        async def send(number: int) -> None:
            await client.score(counted, key, body)
            bar.at(number)

        await closed_load(send, SPLIT_REQUESTS, workers=8)
    _expect("the split of 1,000 requests", counted.deployments, {"blue": 900, "green": 100}, counted.errors)
    story.say(f"1,000 requests: blue {counted.deployments['blue']}, green {counted.deployments['green']}, exactly")
    pinned = Answers()
    for _ in range(50):
        await client.score(pinned, key, body, deployment="green")
    _expect("50 requests pinned to green", pinned.deployments, {"green": 50}, pinned.errors)
    story.say("50 requests with azureml-model-deployment: green: green every time")
    wrong = Answers()
    await client.score(wrong, "not-the-key", body)
    _expect("a request with a wrong key", wrong.statuses, {401: 1}, wrong.errors)
    story.say("a wrong key: 401")
    return {
        "split": {"requests": counted.sent, **counted.deployments},
        "pinned": {"requests": pinned.sent, **pinned.deployments},
        "unauthorized": {"requests": wrong.sent, "status": 401},
    }


async def scale(story: Story, client: Client, key: str, body: bytes) -> list[dict[str, Any]]:
    """Load until a rule scales blue out, silence until it scales in; the decisions with their reasons."""
    await client.command("autoscale", "create", "-e", "diabetes", "-n", "blue", "--file", "autoscale.yml")
    stop, answers = asyncio.Event(), Answers()

    async def send(_: int) -> None:
        await client.score(answers, key, body)

    async def ready() -> int:
        deployment = await client.get("/v1/onlineEndpoints/diabetes/deployments/blue")
        return sum(instance["state"] == "Ready" for instance in deployment["instances"])

    load = asyncio.create_task(steady_load(send, SCALING_RATE, stop))
    try:
        with story.waiting(f"{SCALING_RATE:.0f} requests a second, until blue has 2 instances"):
            await client.until("blue scales out to 2 instances", ready, lambda count: count == 2)
        out = await _decision(client, instances=2)
        story.say(f"out: {out['reason']}")
    finally:
        stop.set()
        await load
    with story.waiting("silence, until blue has 1 instance"):
        await client.until("blue scales in to 1 instance", ready, lambda count: count == 1)
    back = await _decision(client, instances=1)
    story.say(f"in:  {back['reason']}")
    _expect("requests that failed while scaling", answers.failed, 0, answers.errors)
    return [out, back]


async def _decision(client: Client, instances: int) -> dict[str, Any]:
    async def ask() -> dict[str, Any]:
        setting = await client.get("/v1/onlineEndpoints/diabetes/deployments/blue/autoscale")
        return dict(setting["decision"] or {})

    wanted = f"the decision for {instances} instances"
    decision = await client.until(wanted, ask, lambda decision: decision.get("instances") == instances)
    return {name: decision[name] for name in ("kind", "previous", "instances", "decided_at", "reason")}


async def recover(story: Story, client: Client, home: Path, key: str, body: bytes) -> dict[str, Any]:
    """SIGKILL blue's only instance under load: it is replaced and no request fails."""

    async def instances() -> list[dict[str, Any]]:
        deployment = await client.get("/v1/onlineEndpoints/diabetes/deployments/blue")
        return [instance for instance in deployment["instances"] if instance["state"] == "Ready"]

    [victim] = await client.until("blue has one ready instance", instances, lambda ready: len(ready) == 1)
    record = json.loads((home / "instances" / victim["id"] / "instance.json").read_text())
    process = ProcessIdentity(**record["process"])
    stop, answers, killed_after = asyncio.Event(), Answers(), 40

    async def send(number: int) -> None:
        if number == killed_after:
            process.send(signal.SIGKILL)
        await client.score(answers, key, body)

    load = asyncio.create_task(steady_load(send, RECOVERY_RATE, stop))
    try:
        with story.waiting(f"{RECOVERY_RATE:.0f} requests a second; killing {victim['id']} (pid {process.pid})"):
            began = time.monotonic()
            await client.until(
                "a new instance takes the killed one's place",
                instances,
                lambda ready: [instance["id"] for instance in ready] not in ([], [victim["id"]]),
            )
            seconds = round(time.monotonic() - began, 2)
            more = answers.sent + int(RECOVERY_RATE)
            await client.until("another second of load", _sent(answers), lambda sent: sent >= more)
    finally:
        stop.set()
        await load
    _expect("requests that failed while an instance was killed", answers.failed, 0, answers.errors)
    story.say(f"killed {victim['id']} with SIGKILL: replaced; {answers.sent} requests, {answers.failed} failed")
    return {"requests": answers.sent, "failed": answers.failed, "replaced_within_seconds": seconds}


def _sent(answers: Answers) -> Any:
    async def ask() -> int:
        return answers.sent

    return ask


async def batch(story: Story, client: Client, work: Path) -> dict[str, Any]:
    """Score a folder of CSV files on compute that is gone afterwards."""
    await client.command("batch-endpoint", "create", "--file", "batch-endpoint.yml")
    await client.command("batch-deployment", "create", "--file", "batch-deployment.yml", "--set-default")
    job = await client.command("batch-endpoint", "invoke", "--name", "diabetes-batch", "--input", "patients")
    files = sorted((work / "patients").glob("*.csv"))
    with story.waiting("scoring patients/*.csv", len(files)) as bar:

        async def ask() -> dict[str, Any]:
            told = dict(await client.get(f"/v1/jobs/{job['job']}"))
            bar.at(told["files"]["succeeded"])
            return told

        ended = await client.until(
            "the batch job ends", ask, lambda told: told["status"] in ("Completed", "Failed", "Canceled")
        )
    _expect("the batch job", ended["status"], "Completed", [ended["message"]])
    predictions = Path(unquote(urlsplit(ended["output_file"]).path))
    rows = _lines([predictions])
    _expect(f"rows of {predictions}", rows, _lines(files) - len(files), [])
    pids = [pid for instance in ended["compute"] for pid in instance["pids"]]
    left = [pid for pid in pids if ProcessIdentity.of(pid) is not None]
    _expect("processes of the job's compute that are left", left, [], [])
    story.say(f"{len(files)} files -> {rows} rows in {predictions.name}; its {len(pids)} worker processes are gone")
    return {"files": len(files), "rows": rows, "status": ended["status"], "processes": len(pids), "left": len(left)}


def _lines(files: list[Path]) -> int:
    return sum(len(file.read_text().splitlines()) for file in files)


async def cost(story: Story, client: Client) -> list[dict[str, Any]]:
    """Cost per endpoint and deployment: every request counted once, and the parts sum to the whole."""

    async def ask() -> dict[str, Any]:
        return dict(await client.get("/v1/costs"))

    def requests(costs: dict[str, Any]) -> int:
        return sum(endpoint["requests"] for endpoint in costs["endpoints"])

    with story.waiting(f"until metering has counted all {client.routed} requests"):
        costs = await client.until("every request is metered", ask, lambda costs: requests(costs) >= client.routed)
    _expect("metered requests", requests(costs), client.routed, [])
    rows = []
    for endpoint in costs["endpoints"]:
        parts = sum((Decimal(deployment["cost"]) for deployment in endpoint["deployments"]), Decimal(0))
        _expect(f"the deployments' costs of {endpoint['endpoint']}", parts, Decimal(endpoint["cost"]), [])
        for deployment in endpoint["deployments"]:
            story.say(
                f"{endpoint['endpoint']}/{deployment['deployment']}: {deployment['cost']} {costs['currency']}, "
                f"{deployment['requests']} requests"
            )
            rows.append({"endpoint": endpoint["endpoint"], **deployment})
    whole = sum((Decimal(endpoint["cost"]) for endpoint in costs["endpoints"]), Decimal(0))
    _expect("the endpoints' costs", whole, Decimal(costs["total"]), [])
    _expect("usage records that were lost", costs["lost"], 0, [])
    story.say(f"the whole: {costs['total']} {costs['currency']}, the sum of its parts to the last digit")
    return [*rows, {"endpoint": "all", "deployment": "all", "cost": costs["total"], "requests": requests(costs)}]


def _expect(what: str, seen: object, wanted: object, errors: list[str]) -> None:
    if seen != wanted:
        details = "".join(f"\n  {error}" for error in errors[:5])
        raise DemoFailed(f"{what}: expected {wanted}, saw {seen}{details}")
