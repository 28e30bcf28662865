"""The `endpunkt` command as a process, with a real broker, studio and provisioner; the test plays the router and the
batch-runner."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from tests.integration.command import PATIENCE, Command

from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Tail
from contracts.messages import (
    BatchJob,
    CancelBatchJob,
    DeadLetter,
    FileCounts,
    ScaleDecision,
    StartBatchJob,
    UsageRollup,
    Watermark,
)
from contracts.shell.tls import server_context
from endpunkt_infra.services import ServiceProcess

StartService = Callable[..., ServiceProcess]

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
SCORE = "def init():\n    {init}\n\ndef run(data):\n    return data\n"
DEPLOYMENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: echo
model: azureml:linear:1
code_configuration:
  code: src
  scoring_script: score.py
"""
NAMED = """\
model: {name: squared, version: 3, path: linear}
app_insights_enabled: true
environment: azureml://registries/azureml/environments/sklearn/labels/latest
"""
AUTOSCALE = """\
profiles:
  - name: default
    capacity: {minimum: 1, maximum: 2, default: 1}
    rules:
      - metricTrigger:
          {metricName: RequestsPerMinute, timeGrain: PT1M, timeWindow: PT5M, operator: GreaterThan, threshold: 9}
        scaleAction: {direction: Increase, value: 1, cooldown: PT5M}
"""


@pytest.fixture
def alone(tmp_path: Path) -> Command:
    """The command where nothing runs."""
    folder = tmp_path / "work"
    folder.mkdir()
    return Command(folder, {"ENDPUNKT_HOME": str(tmp_path / "nowhere")})


@pytest.fixture
def endpunkt(start_service: StartService, tmp_path: Path, alone: Command) -> Command:
    """The command where studio runs."""
    studio = start_service("studio", studio_port="0")
    url = studio.readiness()["addresses"]["management"]
    return Command(alone.folder, {"ENDPUNKT_HOME": str(tmp_path), "ENDPUNKT_STUDIO_URL": url})


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[Publisher]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    yield publisher
    await publisher.stop()


async def test_the_life_of_an_online_endpoint(endpunkt: Command, start_service: StartService) -> None:
    start_service("provisioner", drain_seconds="0")
    endpunkt.write("src/score.py", SCORE.format(init="pass"))
    endpunkt.write("broken/score.py", SCORE.format(init="raise ValueError('no weights')"))
    endpunkt.write("linear/weights", "1")
    endpunkt.write("endpoint.yml", "name: echo\nauth_mode: key\ntags: {team: health}\n")
    endpunkt.write("blue.yml", DEPLOYMENT)
    create = ("online-deployment", "create", "-f", "blue.yml")

    made = (await endpunkt("online-endpoint", "create", "-f", "endpoint.yml")).json
    assert (made["name"], made["auth_mode"], made["tags"], made["traffic"]) == ("echo", "key", {"team": "health"}, {})
    again = await endpunkt("online-endpoint", "create", "-f", "endpoint.yml")
    assert (again.code, again.errors[:30]) == (1, "endpunkt: endpoint.yml:1: name"), again.errors

    missing = await endpunkt(*create, "--set", "instance_type=huge")
    assert missing.code == 1
    assert "blue.yml:4: model.id: 'azureml:linear:1' does not exist" in missing.errors
    assert "--set instance_type=huge: instance_type: 'huge' is unknown" in missing.errors
    assert (await endpunkt("model", "create", "-n", "linear", "-v", "1", "-p", "linear")).json[
        "id"
    ] == "azureml:linear:1"
    assert (await endpunkt("model", "show", "-n", "linear")).json["version"] == "1"
    assert [each["name"] for each in (await endpunkt("model", "list")).json] == ["linear"]

    blue = await endpunkt(*create, "--all-traffic")
    assert blue.json["provisioning_state"] == "Succeeded"
    assert "echo/blue: Succeeded, 1 of 1 instances ready" in blue.errors
    failed = await endpunkt(*create, "-n", "red", "--set", "code_configuration.code=broken")
    assert (failed.code, failed.output) == (1, "")
    assert "echo/red failed: UserScriptInitFailed: " in failed.errors
    assert "ValueError: no weights" in failed.errors.partition("The end of its log:")[2]

    green = await endpunkt(*create, "-n", "green", "--no-wait", "--query", "name", "-o", "tsv")
    assert (green.code, green.output, green.errors) == (0, "green\n", "")
    updated = await endpunkt(
        "online-deployment", "update", "-e", "echo", "-n", "blue", "--set", "instance_count=2",
        "--set", "properties.endpunkt.idempotent=true",
    )  # fmt: skip
    assert updated.json["instance_count"] == updated.json["ready_instances"] == 2
    assert updated.json["properties"] == {"endpunkt.idempotent": "true"}

    split = await endpunkt("online-endpoint", "update", "-n", "echo", "--traffic", "blue=90 green=10")
    assert split.json["traffic"] == {"blue": 90, "green": 10, "red": 0}
    wrong = await endpunkt("online-endpoint", "update", "-n", "echo", "--traffic", "blue=90")
    assert wrong.code == 1
    assert "--traffic: traffic: the percentages sum to 90" in wrong.errors
    endpunkt.write("endpoint.yml", "name: echo\nauth_mode: key\ndescription: changed\ntraffic: {green: 100}\n")
    changed = (await endpunkt("online-endpoint", "update", "-f", "endpoint.yml")).json
    assert (changed["description"], changed["traffic"]["green"], changed["tags"]) == (
        "changed",
        100,
        {"team": "health"},
    )

    endpunkt.write("teal.yml", DEPLOYMENT.replace("model: azureml:linear:1", NAMED))
    teal = await endpunkt("online-deployment", "create", "-f", "teal.yml", "-n", "teal", "--local-environment")
    assert teal.json["model"]["id"] == "azureml:squared:3", teal.errors
    assert "teal.yml:5: app_insights_enabled: has no effect: " in teal.errors
    assert " Started " in teal.errors
    assert (await endpunkt("model", "show", "-n", "squared")).json["version"] == "3"
    endpunkt.write("linear/weights", "2")
    changed = await endpunkt("online-deployment", "update", "-f", "teal.yml", "-n", "teal", "--local-environment")
    assert (changed.code, changed.errors.count("teal.yml:4: model.version: version 3 of 'squared'")) == (1, 1)
    logs = ("online-deployment", "get-logs", "-e", "echo", "-n")
    assert "Users's init has completed" in (await endpunkt(*logs, "teal")).output
    assert (await endpunkt(*logs, "teal", "--lines", "1")).output.count("\n") <= 2
    assert (await endpunkt(*logs, "teal", "--container", "storage-initializer")).code == 0
    assert (await endpunkt(*logs, "none")).code == 1
    assert (await endpunkt("online-deployment", "delete", "-e", "echo", "-n", "teal", "-y")).code == 0

    table = (await endpunkt("online-deployment", "list", "-e", "echo", "-o", "table")).output
    assert [line.split()[:3] for line in table.splitlines()[2:4]] == [
        ["blue", "echo", "Succeeded"],
        ["green", "echo", "Succeeded"],
    ]
    refused = await endpunkt("online-deployment", "delete", "-e", "echo", "-n", "green", "-y")
    assert (refused.code, "gets 100 % of the traffic" in refused.errors) == (1, True)
    unasked = await endpunkt("online-deployment", "delete", "-e", "echo", "-n", "red")
    assert (unasked.code, "give --yes" in unasked.errors) == (1, True)
    assert (await endpunkt("online-deployment", "delete", "-e", "echo", "-n", "red", "-y")).code == 0

    keys = (await endpunkt("online-endpoint", "get-credentials", "-n", "echo")).json
    regenerated = await endpunkt("online-endpoint", "regenerate-keys", "-n", "echo", "--key-type", "secondary", "-y")
    assert regenerated.code == 0
    new_keys = (await endpunkt("online-endpoint", "get-credentials", "-n", "echo")).json
    assert keys["primaryKey"] == new_keys["primaryKey"]
    assert keys["secondaryKey"] != new_keys["secondaryKey"]

    assert (await endpunkt("online-endpoint", "delete", "-n", "echo", "-y")).code == 0
    assert (await endpunkt("online-endpoint", "list")).json == []
    gone = await endpunkt("online-endpoint", "show", "-n", "echo")
    assert (gone.code, gone.errors) == (1, "endpunkt: ResourceNotFound: there is no online endpoint 'echo'\n")


async def test_autoscale(endpunkt: Command, start_service: StartService, publisher: Publisher) -> None:
    start_service("provisioner", drain_seconds="0")
    endpunkt.write("src/score.py", SCORE.format(init="pass"))
    endpunkt.write("scaled.yml", DEPLOYMENT.replace("echo", "scaled").replace("model: azureml:linear:1\n", ""))
    endpunkt.write("autoscale.yml", AUTOSCALE)
    target = ("-e", "scaled", "-n", "blue")
    assert (await endpunkt("online-endpoint", "create", "-n", "scaled")).code == 0
    assert (await endpunkt("online-deployment", "create", "-f", "scaled.yml", "--no-wait")).code == 0

    unknown = await endpunkt(
        "autoscale", "create", *target, "-f", endpunkt.write("bad.yml", AUTOSCALE.replace("sPerM", "PerM"))
    )
    assert (unknown.code, unknown.errors[:19]) == (1, "endpunkt: bad.yml:6"), unknown.errors
    made = (await endpunkt("autoscale", "create", *target, "-f", "autoscale.yml")).json
    assert made["profiles"][0]["capacity"]["maximum"] == 2
    decision = ScaleDecision(
        endpoint="scaled", deployment="blue", decided_at=datetime.now(UTC), previous=1, instances=2, kind="ScaleOut",
        profile="default", reason="it is busy",
    )  # fmt: skip
    await publisher.publish(decision)
    async with asyncio.timeout(PATIENCE):
        while (shown := (await endpunkt("autoscale", "show", *target)).json)["decision"] is None:
            pass
    assert shown["decision"]["reason"] == "it is busy"
    assert (await endpunkt("autoscale", "delete", *target, "-y")).code == 0
    assert (await endpunkt("autoscale", "show", *target)).code == 1
    assert (await endpunkt("online-endpoint", "delete", "-n", "scaled", "-y")).code == 0


@asynccontextmanager
async def scoring(home: Path) -> AsyncIterator[str]:
    """Plays the router."""

    async def score(request: web.Request) -> web.Response:
        if request.headers["Authorization"] == "Bearer ":
            return web.Response(status=401)
        deployment = request.headers.get("azureml-model-deployment", "by the split")
        if deployment == "broken":
            return web.json_response({"message": "it raised"}, status=424)
        return web.json_response({"by": deployment, "body": await request.json()})

    app = web.Application()
    app.router.add_post("/invoked/score", score)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context(home, "router", ["localhost"]))
    await site.start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_invoke(start_service: StartService, alone: Command, tmp_path: Path) -> None:
    async with scoring(tmp_path) as url:
        studio = start_service("studio", studio_port="0", scoring_url=url)
        start_service("provisioner", drain_seconds="0")
        management = studio.readiness()["addresses"]["management"]
        endpunkt = Command(alone.folder, {"ENDPUNKT_HOME": str(tmp_path), "ENDPUNKT_STUDIO_URL": management})
        endpunkt.write("request.json", '{"data": [1]}')
        assert (await endpunkt("online-endpoint", "create", "-n", "invoked")).code == 0
        invoke = ("online-endpoint", "invoke", "-n", "invoked", "--request-file", "request.json")
        assert (await endpunkt(*invoke)).json == {"by": "by the split", "body": {"data": [1]}}
        assert (await endpunkt(*invoke, "--deployment-name", "green")).json["by"] == "green"
        broken = await endpunkt(*invoke, "--deployment-name", "broken")
        assert (broken.code, broken.errors) == (1, 'endpunkt: invoked answered 424: {"message": "it raised"}\n')


def job_of(command: StartBatchJob, status: Any, submitted_at: datetime = NOON, **changes: Any) -> BatchJob:
    return BatchJob(
        job=command.job, endpoint=command.endpoint, deployment=command.deployment, status=status, command=command,
        submitted_at=submitted_at, **changes,
    )  # fmt: skip


async def test_batch_jobs(endpunkt: Command, kafka: KafkaSettings, publisher: Publisher) -> None:
    commands: asyncio.Queue[Any] = asyncio.Queue()
    tail = Tail("batch.commands", lambda _, command: commands.put_nowait(command))
    reader = Reader(kafka, [tail], DeadLetters(publisher, "batch-runner"))
    await reader.start()
    endpunkt.write("patients/one.csv", "1,2")
    invoke = ("batch-endpoint", "invoke", "-n", "nightly", "--input", "patients")
    try:
        invoking = asyncio.create_task(
            endpunkt(*invoke, "--job-name", "first", "--mini-batch-size", "3", "--set", "max_retries=0")
        )
        first = await commands.get()
        assert first == StartBatchJob.model_validate(
            {
                "job": "first",
                "endpoint": "nightly",
                "input": {"type": "uri_folder", "uri": (endpunkt.folder / "patients").as_uri()},
                "overrides": {"mini_batch_size": 3, "max_retries": 0},
            }
        )
        await publisher.publish(job_of(first, "Queued"))
        assert (await invoking).json["status"] == "Queued"

        streaming = await endpunkt.start("job", "stream", "-n", "first")
        assert streaming.stderr is not None
        assert b"first: Queued" in await streaming.stderr.readline()
        counts = FileCounts(total=1, succeeded=1)
        await publisher.publish(job_of(first, "Completed", files=counts, mini_batches=1, mini_batches_done=1, rows=1))
        output, errors = await streaming.communicate()
        assert (streaming.returncode, json.loads(output)["rows"]) == (0, 1)
        assert b"first: Completed, 1 of 1 mini-batches, 1 of 1 files, 0 failed" in errors

        invoking = asyncio.create_task(endpunkt(*invoke, "--input-type", "uri_file", "--output-path", "/out"))
        second = await commands.get()
        assert (second.input.type, second.output) == ("uri_file", "file:///out")
        await publisher.publish(job_of(second, "Running", NOON + timedelta(hours=1)))
        assert (await invoking).code == 0
        canceling = asyncio.create_task(endpunkt("job", "cancel", "-n", second.job, "-y"))
        assert await commands.get() == CancelBatchJob(job=second.job)
        await publisher.publish(job_of(second, "Canceled", NOON + timedelta(hours=1), message="canceled on request"))
        assert (await canceling).code == 0
        streamed = await endpunkt("job", "stream", "-n", second.job)
        assert (streamed.code, "is Canceled: canceled on request" in streamed.errors) == (1, True)
    finally:
        await reader.stop()

    assert [job["name"] for job in (await endpunkt("job", "list")).json] == [second.job, "first"]
    assert [job["name"] for job in (await endpunkt("batch-endpoint", "list-jobs", "-n", "nightly")).json] == [
        second.job, "first",
    ]  # fmt: skip
    assert (await endpunkt("job", "show", "-n", "first", "--query", "files.succeeded")).output == "1\n"
    wrong = await endpunkt(*invoke, "--mini-batch-size", "0", "--set", "retries=1", "--job-name", "a/b")
    assert wrong.code == 1
    assert [line.partition(": ")[0] for line in wrong.errors.splitlines()] == [
        "endpunkt:", "--job-name", "--mini-batch-size", "--set retries=1",
    ]  # fmt: skip


async def test_costs(endpunkt: Command, publisher: Publisher) -> None:
    for deployment, cost in (("blue", "0.000000000001"), ("green", "2")):
        rollup = UsageRollup(
            endpoint="diabetes", deployment=deployment, hour=NOON, quantities={"requests": 5},
            costs={"requests": Decimal(cost)}, currency="USD", sources={"s": Watermark(epoch=1, sequence=1)},
        )  # fmt: skip
        await publisher.publish(rollup)
    async with asyncio.timeout(PATIENCE):
        while (costs := (await endpunkt("cost", "show")).json)["requests"] != 10:
            pass
    assert (costs["total"], costs["endpoints"][0]["cost"]) == ("2.000000000001", "2.000000000001")
    assert (await endpunkt("cost", "show", "--from", "2026-11-02")).json["total"] == "0"
    table = (await endpunkt("cost", "show", "-o", "table")).output.splitlines()
    assert [line.split() for line in table[2:]] == [
        ["diabetes", "blue", "5", "0", "0.000000000001", "USD"],
        ["diabetes", "green", "5", "0", "2", "USD"],
        ["diabetes", "(all)", "10", "0", "2.000000000001", "USD"],
        ["(total)", "10", "0", "2.000000000001", "USD"],
    ]
    bad = await endpunkt("cost", "show", "--from", "noon")
    assert (bad.code, "from: is no ISO 8601 date" in bad.errors) == (1, True)


async def test_dead_letters(endpunkt: Command, publisher: Publisher) -> None:
    assert (await endpunkt("dead-letter", "list")).json == []
    for offset, service in enumerate(("router", "metering", "router")):
        letter = DeadLetter(
            service=service, topic="usage.events", partition=3, offset=offset, record_key="echo/blue", headers={},
            value_base64="e29vcHM=", reason=f"ce_type: is missing in {offset}", parked_at=NOON + timedelta(days=offset),
        )  # fmt: skip
        await publisher.publish(letter, topic=f"deadletter.{service}")
    async with asyncio.timeout(PATIENCE):
        while len(letters := (await endpunkt("dead-letter", "list")).json) != 3:
            pass
    assert [(letter["offset"], letter["service"]) for letter in letters] == [
        (2, "router"),
        (1, "metering"),
        (0, "router"),
    ]
    assert (letters[0]["value_base64"], letters[0]["reason"]) == ("e29vcHM=", "ce_type: is missing in 2")
    table = (await endpunkt("dead-letter", "list", "--service", "metering", "-o", "table")).output.splitlines()
    assert [line.split() for line in table[2:]] == [
        ["2026-11-02T12:00:00Z", "metering", "usage.events", "3", "1", "echo/blue", *letters[1]["reason"].split()]
    ]
    assert (await endpunkt("dead-letter", "list", "-s", "studio")).json == []
    unknown = await endpunkt("dead-letter", "list", "--service", "rooter")
    assert (unknown.code, unknown.output) == (2, "")
    assert "there is no service 'rooter'" in unknown.errors


async def test_a_file_is_judged_before_anything_is_asked(alone: Command) -> None:
    text = DEPLOYMENT.replace("score.py", "[score.py]") + "environment: azureml://registries/r\ninstance_cuont: 2\n"
    refused = await alone("online-deployment", "create", "-f", alone.write("bad.yml", text))
    assert refused.code == 1
    assert [line.split(": ")[:2] for line in refused.errors.splitlines()[1:]] == [
        ["bad.yml:8", "environment"],
        ["bad.yml:7", "code_configuration.scoring_script"],
        ["bad.yml:9", "instance_cuont"],
    ]
    broken = await alone("online-endpoint", "create", "-f", alone.write("broken.yml", "name: [\n"))
    assert (broken.code, broken.errors[:32]) == (1, "endpunkt: broken.yml:2:1: is no "), broken.errors
    (alone.folder / "latin.yml").write_bytes(b"name: \xff")
    assert "latin.yml: is no UTF-8 text" in (await alone("model", "create", "-f", "latin.yml")).errors
    traffic = await alone(
        "online-endpoint", "create", "-f", alone.write("new.yml", "name: echo\ntraffic: {blue: 100}\n")
    )
    assert (traffic.code, traffic.errors[:31]) == (1, "endpunkt: new.yml:2: traffic: a"), traffic.errors


@pytest.mark.parametrize(
    "arguments",
    [
        ("online-endpoint", "show"),
        ("online-endpoint", "upgrade"),
        ("online-endpoint", "update", "-n", "echo"),
        ("online-endpoint", "update", "-n", "echo", "--traffic", "blue=ninety"),
        ("online-endpoint", "create", "-f", "missing.yml"),
        ("online-deployment", "update", "-n", "blue"),
        ("job", "list", "-o", "xml"),
    ],
)
async def test_a_usage_error_ends_with_2(alone: Command, arguments: tuple[str, ...], tmp_path: Path) -> None:
    server_context(tmp_path / "nowhere", "any", ["localhost"])
    alone.environment["ENDPUNKT_TOKEN"] = "token"
    result = await alone(*arguments)
    assert (result.code, result.output) == (2, "")
    assert "Usage: " in result.errors


async def test_a_bad_query_ends_with_2(endpunkt: Command) -> None:
    result = await endpunkt("job", "list", "--query", "[?")
    assert (result.code, "no JMESPath" in result.errors) == (2, True)


async def test_what_stands_in_the_way_is_one_line_with_the_next_step(endpunkt: Command, tmp_path: Path) -> None:
    server_context(tmp_path / "other", "any", ["localhost"])
    other = str(tmp_path / "other" / "tls" / "ca.pem")
    empty = endpunkt.write("empty.pem", "")
    url = endpunkt.environment["ENDPUNKT_STUDIO_URL"]
    table = [
        ({"ENDPUNKT_CA": other}, f"the certificate of {url} is not trusted by {other}: ", "ENDPUNKT_CA"),
        ({"ENDPUNKT_CA": "none.pem"}, "cannot read the certificate authority none.pem: ", "make up"),
        ({"ENDPUNKT_CA": empty}, "empty.pem holds no certificate authority", "ENDPUNKT_CA"),
        ({"ENDPUNKT_TOKEN": "wrong"}, f"{url} does not take the token from ENDPUNKT_TOKEN", "ENDPUNKT_HOME"),
        ({"ENDPUNKT_HOME": "none"}, "cannot read the management token none/secrets/admin-token: ", "make up"),
        ({"ENDPUNKT_STUDIO_URL": "https://localhost:1"}, "nothing listens at https://localhost:1", "make up"),
        ({"ENDPUNKT_STUDIO_URL": "https://no.invalid"}, "there is no host named in https://no.invalid", "--url"),
        ({"ENDPUNKT_STUDIO_URL": "http://localhost:1"}, "'http://localhost:1' is no https address", "TLS"),
    ]
    for environment, cause, next_step in table:
        result = await Command(endpunkt.folder, {**endpunkt.environment, **environment})("job", "list")
        assert (result.code, result.output) == (1, ""), environment
        assert result.errors.startswith(f"endpunkt: {cause}"), result.errors
        assert next_step in result.errors
        assert result.errors.count("\n") == 1
        assert "wrong" not in result.errors
