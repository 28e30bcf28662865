"""The management API over a real broker; the test plays the services that decide."""

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

import aiohttp
import pytest

from contracts.envelope import Record, message_id
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Tail
from contracts.messages import (
    Applied,
    Artifact,
    AssetRegistered,
    BatchJob,
    CancelBatchJob,
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeadLetter,
    DeleteEndpoint,
    DeploymentDesired,
    DeploymentEvent,
    DeploymentObserved,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    FileCounts,
    GetLogs,
    Instance,
    LogsRead,
    Message,
    MiniBatchEnded,
    Problem,
    PutDeployment,
    RegisterModel,
    ScaleDecision,
    SetAutoscale,
    StartBatchJob,
    UpdateEndpoint,
    UsageRollup,
    Watermark,
)
from contracts.shell.secrets import Sealer, admin_token, digest_of
from contracts.shell.tls import ca_path
from endpunkt_infra.services import ServiceProcess

StartService = Callable[..., ServiceProcess]

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
CODE = {"code": "file:///code", "scoring_script": "score.py"}
ARTIFACT = Artifact(digest="ab" * 32, name="code")
PATIENCE = 30


class Answer(Protocol):
    """What a test says to a command; it may publish."""

    def __call__(self, id: str, command: Any) -> Awaitable[None]: ...


class Api:
    """A client of one studio process."""

    def __init__(self, http: aiohttp.ClientSession, url: str, home: Path):
        self.http = http
        self.url = url
        self.home = home

    async def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {admin_token(self.home)}", **headers}
        data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
        async with self.http.request(method, self.url + path, data=data, headers=headers) as answer:
            text = await answer.read()
            return answer.status, json.loads(text) if text else None


@asynccontextmanager
async def running(start_service: StartService, home: Path, **settings: str) -> AsyncIterator[Api]:
    service = start_service("studio", studio_port="0", scoring_url="https://scoring.test:1", **settings)
    url = service.readiness()["addresses"]["management"]
    context = ssl.create_default_context(cafile=ca_path(home))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context)) as http:
        yield Api(http, url, home)


@pytest.fixture
async def api(start_service: StartService, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(start_service, tmp_path) as api:
        yield api


@pytest.fixture
async def publisher(kafka: KafkaSettings) -> AsyncIterator[Publisher]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    yield publisher
    await publisher.stop()


@asynccontextmanager
async def answering(kafka: KafkaSettings, publisher: Publisher, answer: Answer, topic: str) -> AsyncIterator[None]:
    """Plays the service that reads `topic`: every command from now on is given to `answer`."""
    commands: asyncio.Queue[tuple[Record, Message]] = asyncio.Queue()
    tail = Tail(topic, lambda record, message: commands.put_nowait((record, message)))
    reader = Reader(kafka, [tail], DeadLetters(publisher, "provisioner"))
    await reader.start()

    async def serve() -> None:
        while True:
            record, command = await commands.get()
            await answer(message_id(record), command)

    task = asyncio.create_task(serve())
    try:
        yield
    finally:
        task.cancel()
        await reader.stop()


def desired(name: str, generation: int = 1, **changes: Any) -> EndpointDesired:
    spec = changes.pop("spec", {"kind": "online"})
    return EndpointDesired.model_validate(
        {"endpoint": name, "generation": generation, "created_at": NOON, "updated_at": NOON, "spec": spec, **changes}
    )


class Provisioner:
    """Applies commands as the real one does, without checks: `refuse` makes it reject the next one."""

    def __init__(self, publisher: Publisher):
        self.publisher = publisher
        self.endpoints: dict[str, EndpointDesired] = {}
        self.seen: list[tuple[str, Message]] = []
        self.refuse: tuple[Problem, ...] = ()

    async def __call__(self, id: str, command: Any) -> None:
        self.seen.append((id, command))
        # Taken before the answer goes out: the test may set the next one as soon as it has that.
        problems, self.refuse = self.refuse, ()
        if problems:
            await self.publisher.publish(CommandRejected(command_id=id, subject=command.key(), problems=problems))
            return
        generation, subject = 0, command.key()
        if isinstance(command, RegisterModel):
            subject = f"{subject}:{command.version}"
            asset = AssetRegistered(
                name=command.name, version=command.version, type=command.type, artifact=ARTIFACT, command_id=id,
                registered_at=NOON + timedelta(seconds=len(self.seen)),
            )  # fmt: skip
            await self.publisher.publish(asset)
        elif isinstance(command, DeleteEndpoint):
            del self.endpoints[subject]
            await self.publisher.delete(EndpointDesired.TOPIC, subject)
        else:
            before = self.endpoints.get(subject)
            generation = before.generation + 1 if before else 1
            after = self._after(before, generation, command)
            self.endpoints[subject] = after.replace(applied=(Applied(command_id=id, generation=generation),))
            # The answer may overtake the document: they are on different topics.
            reply = CommandAccepted(command_id=id, subject=subject, generation=generation)
            await self.publisher.publish(reply)
            await self.publisher.publish(self.endpoints[subject])
            return
        await self.publisher.publish(CommandAccepted(command_id=id, subject=subject, generation=generation))

    def _after(self, before: EndpointDesired | None, generation: int, command: Any) -> EndpointDesired:
        if before is None:
            assert isinstance(command, CreateEndpoint)
            return desired(command.endpoint, spec=command.spec)
        after = before.replace(generation=generation)
        if isinstance(command, UpdateEndpoint):
            return after.replace(traffic=command.traffic or before.traffic)
        if isinstance(command, PutDeployment):
            made = DeploymentDesired(generation=generation, spec=command.spec, code=ARTIFACT)
            return after.replace(deployments={**before.deployments, command.deployment: made})
        assert isinstance(command, SetAutoscale)
        scaled = before.deployments[command.deployment].model_copy(update={"autoscale": command.autoscale})
        return after.replace(deployments={**before.deployments, command.deployment: scaled})


@pytest.fixture
async def provisioner(kafka: KafkaSettings, publisher: Publisher) -> AsyncIterator[Provisioner]:
    played = Provisioner(publisher)
    async with answering(kafka, publisher, played, "endpoints.commands"):
        yield played


async def until(ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool]) -> Any:
    """What `ask` answers once it is enough; fails with the last answer."""
    answer: Any = None
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                answer = await ask()
                if enough(answer):
                    return answer
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"the last answer was {answer}")


async def test_nothing_is_told_without_the_token(api: Api) -> None:
    assert (await api("GET", "/healthz", Authorization=""))[0] == 200
    for header in ("", "Bearer ", "Bearer wrong", f"Basic {admin_token(api.home)}", "Bearer ä"):
        for path in ("/v1/onlineEndpoints", "/v1/no/such/route"):
            status, answer = await api("GET", path, Authorization=header)
            assert (status, answer["error"]["code"]) == (401, "Unauthorized")
            assert admin_token(api.home) not in json.dumps(answer)


async def test_errors_have_one_shape(api: Api) -> None:
    missing = "/v1/onlineEndpoints/missing"
    table = [
        ("GET", "/v2/things", None, 404, "NotFound"),
        ("POST", "/v1/costs", {}, 405, "MethodNotAllowed"),
        ("GET", missing, None, 404, "ResourceNotFound"),
        ("GET", f"{missing}/deployments", None, 404, "ResourceNotFound"),
        ("POST", f"{missing}/listKeys", None, 404, "ResourceNotFound"),
        ("GET", "/v1/batchEndpoints/missing/jobs", None, 404, "ResourceNotFound"),
        ("GET", "/v1/jobs/missing", None, 404, "ResourceNotFound"),
        ("POST", "/v1/jobs/missing/cancel", None, 404, "ResourceNotFound"),
        ("GET", "/v1/models/missing/versions/latest", None, 404, "ResourceNotFound"),
        ("PUT", "/v1/models/linear/versions/latest", {"path": "/m"}, 400, "BadArgument"),
        ("GET", "/v1/costs?from=noon", None, 400, "BadArgument"),
        ("PUT", "/v1/onlineEndpoints/diabetes", b"{", 400, "BadArgument"),
        ("PUT", "/v1/onlineEndpoints/diabetes", b" " * ((1 << 20) + 1), 413, "RequestEntityTooLarge"),
        ("PUT", "/v1/onlineEndpoints/1x", {}, 400, "BadArgument"),
        ("DELETE", "/v1/onlineEndpoints/..%2f..", None, 400, "BadArgument"),
    ]
    for method, path, body, status, code in table:
        got, answer = await api(method, path, body)
        assert (got, answer["error"]["code"]) == (status, code), (method, path, answer)
        assert answer["error"]["message"]
        assert isinstance(answer["error"]["details"], list)


async def test_every_problem_of_a_body_is_told(api: Api) -> None:
    body = {"instance_count": -1, "enviroment": {}, "code_configuration": {"code": "file:///c"}}
    status, answer = await api("PUT", "/v1/onlineEndpoints/diabetes/deployments/blue", body)
    assert status == 400
    assert {detail["target"] for detail in answer["error"]["details"]} == {
        "instance_count", "enviroment", "code_configuration.scoring_script",
    }  # fmt: skip


async def test_a_write_can_be_read_at_once(api: Api, provisioner: Provisioner) -> None:
    endpoint, deployment = "/v1/onlineEndpoints/written", "/v1/onlineEndpoints/written/deployments/blue"
    status, made = await api("PUT", endpoint, {"tags": {"a": "b"}})
    assert (status, made["generation"], made["provisioning_state"]) == (201, 1, "Creating")
    assert made["properties"]["tags"] == {"a": "b"}
    assert made["scoring_uri"] == "https://scoring.test:1/written/score"

    put = {"code_configuration": CODE}
    status, made = await api("PUT", deployment, put, **{"If-None-Match": "*"})
    assert (status, made["generation"], made["provisioning_state"]) == (201, 2, "Creating")
    assert provisioner.seen[-1][1] == PutDeployment.model_validate(
        {"endpoint": "written", "deployment": "blue", "spec": {"kind": "online", **put}, "must": "create"}
    )
    assert (await api("PUT", deployment, put, **{"If-Match": "*"}))[0] == 200

    status, changed = await api("PATCH", endpoint, {"traffic": {"blue": 100}})
    assert (status, changed["generation"], changed["traffic"]) == (200, 4, {"blue": 100})
    assert (await api("GET", endpoint))[1] == changed
    assert [each["name"] for each in (await api("GET", "/v1/onlineEndpoints"))[1]["value"]] == ["written"]
    assert [each["name"] for each in (await api("GET", f"{endpoint}/deployments"))[1]["value"]] == ["blue"]

    assert await api("DELETE", endpoint) == (204, None)
    assert (await api("GET", endpoint))[0] == 404


async def test_a_rejection_tells_every_reason(api: Api, provisioner: Provisioner) -> None:
    provisioner.refuse = (
        Problem(code="ResourceNotFound", field="spec.model.id", message="no such model"),
        Problem(code="BadArgument", field="spec.code_configuration.code", message="no such folder"),
    )
    path = "/v1/onlineEndpoints/diabetes/deployments/blue"
    assert await api("PUT", path, {"code_configuration": CODE}) == (
        400,
        {
            "error": {
                "code": "BadArgument",
                "message": "model.id: no such model; code_configuration.code: no such folder",
                "details": [
                    {"code": "ResourceNotFound", "target": "model.id", "message": "no such model"},
                    {"code": "BadArgument", "target": "code_configuration.code", "message": "no such folder"},
                ],
            }
        },
    )
    provisioner.refuse = (Problem(code="EndpointAlreadyExists", field="endpoint", message="it exists"),)
    assert (await api("PUT", "/v1/onlineEndpoints/diabetes", {}))[0] == 409
    provisioner.refuse = (Problem(code="ResourceNotFound", field="endpoint", message="it does not"),)
    assert (await api("DELETE", "/v1/onlineEndpoints/diabetes"))[0] == 404


async def test_a_command_has_the_id_of_its_request(api: Api, provisioner: Provisioner) -> None:
    status, _ = await api("PUT", "/v1/onlineEndpoints/named", {}, **{"x-ms-client-request-id": "my-own_id"})
    assert status == 201
    assert provisioner.seen[-1][0] == "my-own_id"
    status, answer = await api("PATCH", "/v1/onlineEndpoints/named", {}, **{"x-ms-client-request-id": "no id"})
    assert (status, answer["error"]["details"][0]["target"]) == (400, "x-ms-client-request-id")


async def test_an_endpoint_of_one_kind_is_not_at_the_address_of_the_other(api: Api, provisioner: Provisioner) -> None:
    assert (await api("PUT", "/v1/batchEndpoints/kinds", {}))[0] == 201
    commands = len(provisioner.seen)
    requests: list[tuple[str, str, Any]] = [
        ("GET", "", None),
        ("PATCH", "", {"tags": {}}),
        ("DELETE", "", None),
        ("POST", "/listKeys", None),
        ("POST", "/regenerateKeys", {"keyType": "Primary"}),
        ("DELETE", "/deployments/blue", None),
        ("PUT", "/deployments/blue", {"code_configuration": CODE}),
    ]
    for method, path, body in requests:
        assert (await api(method, f"/v1/onlineEndpoints/kinds{path}", body))[0] == 404, (method, path)
    assert len(provisioner.seen) == commands
    assert (await api("GET", "/v1/batchEndpoints/kinds"))[0] == 200


async def test_the_keys_are_opened_for_who_may_list_them(api: Api, publisher: Publisher) -> None:
    sealer = Sealer(api.home)
    keys = EndpointKeys.model_validate(
        {
            name: EndpointKey(digest=digest_of(f"{name}-key"), sealed=sealer.seal(f"{name}-key", f"keyed/{name}"))
            for name in ("primary", "secondary")
        }
    )
    await publisher.publish(desired("keyed", keys=keys))
    path = "/v1/onlineEndpoints/keyed"
    _, document = await until(lambda: api("GET", path), lambda answer: answer[0] == 200)
    assert (await api("POST", f"{path}/listKeys"))[1] == {"primaryKey": "primary-key", "secondaryKey": "secondary-key"}
    assert keys.primary.digest not in json.dumps(document)
    assert keys.primary.sealed not in json.dumps(document)

    moved = keys.model_copy(update={"primary": keys.secondary})
    await publisher.publish(desired("keyed", 2, keys=moved))
    await until(lambda: api("GET", path), lambda answer: answer[1]["generation"] == 2)
    status, answer = await api("POST", f"{path}/listKeys")
    assert (status, answer["error"]["code"]) == (500, "InternalServerError")
    assert "secondary-key" not in json.dumps(answer)


async def test_a_deployment_shows_what_was_observed(api: Api, publisher: Publisher) -> None:
    spec = {"kind": "online", "code_configuration": CODE, "instance_count": 2}
    deployments = {"blue": {"generation": 2, "spec": spec, "code": ARTIFACT}}
    await publisher.publish(desired("seen", 2, deployments=deployments, traffic={"blue": 100}))
    path = "/v1/onlineEndpoints/seen/deployments/blue"
    await until(lambda: api("GET", path), lambda answer: answer[0] == 200)
    instance = Instance(id="one", generation=2, state="Ready", address="127.0.0.1:9", started_at=NOON)
    blue = DeploymentObserved(
        generation=2, state="Failed", desired_instances=2, instances=(instance,),
        error={"code": "UserScriptInitFailed", "message": "init() raised", "log_tail": ["ValueError: x"]},
    )  # fmt: skip
    await publisher.publish(
        EndpointObserved(endpoint="seen", generation=2, state="Succeeded", deployments={"blue": blue})
    )
    _, document = await until(lambda: api("GET", path), lambda answer: answer[1]["provisioning_state"] == "Failed")
    assert (document["ready_instances"], document["desired_instances"]) == (1, 2)
    assert [each["id"] for each in document["instances"]] == ["one"]
    assert document["error"] == {
        "code": "UserScriptInitFailed", "message": "init() raised", "log_tail": ["ValueError: x"],
    }  # fmt: skip


async def test_autoscale(api: Api, provisioner: Provisioner, publisher: Publisher) -> None:
    endpoint = "/v1/onlineEndpoints/scaled"
    path = f"{endpoint}/deployments/blue/autoscale"
    setting = {
        "enabled": True,
        "profiles": [{"name": "default", "capacity": {"minimum": 1, "maximum": 2, "default": 1}}],
    }
    await api("PUT", endpoint, {})
    await api("PUT", f"{endpoint}/deployments/blue", {"code_configuration": CODE})
    assert (await api("GET", path))[0] == 404
    status, document = await api("PUT", path, setting)
    assert (status, document["decision"]) == (200, None)
    assert document["properties"]["profiles"][0]["capacity"] == {"minimum": 1, "maximum": 2, "default": 1}

    decision = ScaleDecision(
        endpoint="scaled", deployment="blue", decided_at=NOON, previous=1, instances=2, kind="ScaleOut",
        profile="default", reason="RequestsPerMinute is high",
    )  # fmt: skip
    await publisher.publish(decision)
    _, document = await until(lambda: api("GET", path), lambda answer: answer[1]["decision"] is not None)
    assert document["decision"]["reason"] == "RequestsPerMinute is high"
    assert (await api("GET", "/v1/decisions"))[1]["value"] == [document["decision"]]
    assert (await api("DELETE", path))[0] == 204
    assert (await api("GET", path))[0] == 404


async def test_models(api: Api, provisioner: Provisioner) -> None:
    for version in ("2", "10", "1"):
        status, document = await api("PUT", f"/v1/models/linear/versions/{version}", {"path": "file:///models/linear"})
        assert (status, document["id"]) == (201, f"azureml:linear:{version}")
    assert (await api("GET", "/v1/models/linear/versions/10"))[1]["version"] == "10"
    assert (await api("GET", "/v1/models/linear/versions/latest"))[1]["version"] == "1"
    assert [each["version"] for each in (await api("GET", "/v1/models"))[1]["value"]] == ["2", "10", "1"]


async def test_jobs(api: Api, kafka: KafkaSettings, publisher: Publisher) -> None:
    canceled: list[str] = []

    async def run(id: str, command: Any) -> None:
        if isinstance(command, CancelBatchJob):
            canceled.append(command.job)
            return
        assert isinstance(command, StartBatchJob)
        queued = BatchJob(
            job=command.job, endpoint=command.endpoint, deployment=command.deployment, status="Queued",
            command=command, submitted_at=datetime.now(UTC),
        )  # fmt: skip
        await publisher.publish(queued)

    path = "/v1/batchEndpoints/nightly/jobs"
    body: dict[str, Any] = {"job": "mine", "input": {"uri": "file:///data"}, "overrides": {"mini_batch_size": 3}}
    async with answering(kafka, publisher, run, "batch.commands"):
        status, job = await api("POST", path, body)
        assert (status, job["name"], job["status"], job["input"]["uri"]) == (201, "mine", "Queued", "file:///data")
        assert (await api("POST", path, body))[0] == 200
        other = {**body, "input": {"uri": "file:///other"}}
        assert (await api("POST", path, other))[0] == 409
        status, made = await api("POST", path, {"input": {"uri": "file:///data"}})
        assert status == 201
        assert (await api("POST", "/v1/jobs/mine/cancel"))[0] == 202
        await until(lambda: asyncio.sleep(0, canceled), lambda jobs: jobs == ["mine"])

    assert [each["name"] for each in (await api("GET", path))[1]["value"]] == [made["name"], "mine"]
    assert (await api("GET", "/v1/jobs"))[1] == (await api("GET", path))[1]
    command = StartBatchJob.model_validate({"endpoint": "nightly", **body})
    running = BatchJob(
        job="mine", endpoint="nightly", deployment="linear", status="Running", command=command, submitted_at=NOON,
        files=FileCounts(total=100, succeeded=25), mini_batches=100, mini_batches_done=25,
    )  # fmt: skip
    for number in range(25):
        ended = MiniBatchEnded(
            job="mine", mini_batch=number, attempt=1, outcome="Succeeded", files=1, rows=1, seconds=0.1, at=NOON
        )
        await publisher.publish(ended)
    await publisher.publish(running)
    _, job = await until(
        lambda: api("GET", "/v1/jobs/mine"),
        lambda answer: answer[1]["status"] == "Running" and answer[1]["progress"][-1:] != []
        and answer[1]["progress"][-1]["mini_batch"] == 24,
    )  # fmt: skip
    assert job["files"]["succeeded"] == 25
    assert [each["mini_batch"] for each in job["progress"]] == list(range(5, 25))


async def test_costs(api: Api, publisher: Publisher) -> None:
    for deployment, cost in (("blue", "0.000000000001"), ("green", "0.1")):
        rollup = UsageRollup(
            endpoint="diabetes", deployment=deployment, hour=NOON, quantities={"requests": 5},
            costs={"requests": Decimal(cost)}, currency="USD", sources={"s": Watermark(epoch=1, sequence=1)},
        )  # fmt: skip
        await publisher.publish(rollup)
    _, costs = await until(lambda: api("GET", "/v1/costs"), lambda answer: answer[1]["requests"] == 10)
    assert (costs["total"], costs["currency"], costs["lost"]) == ("0.100000000001", "USD", 0)
    assert (await api("GET", "/v1/costs?from=2026-11-02"))[1]["total"] == "0"
    assert (await api("GET", "/v1/costs?to=2026-11-01T12:01Z"))[1]["total"] == "0.100000000001"


async def test_dead_letters_of_every_service_are_shown(api: Api, publisher: Publisher) -> None:
    now = datetime.now(UTC)
    for offset, service in ((0, "metering"), (0, "metering"), (1, "router")):  # a restarted reader parks it again
        letter = DeadLetter(
            service=service, topic="usage.events", partition=0, offset=offset, record_key=None, headers={},
            value_base64=base64.b64encode(b"x" * 60_000).decode(), reason="no JSON",
            parked_at=now + timedelta(seconds=offset),
        )  # fmt: skip
        await publisher.publish(letter, topic=f"deadletter.{service}")
    path = "/v1/deadletters"
    _, letters = await until(lambda: api("GET", path), lambda answer: "router" in str(answer[1]))
    assert [letter["service"] for letter in letters["value"]] == ["router", "metering"]
    assert len(letters["value"][0]["value_base64"]) == 1024


async def test_a_bad_record_is_parked_and_disturbs_nothing(api: Api, publisher: Publisher) -> None:
    """A message of another topic lies on a table's topic."""
    await publisher.publish(desired("good-before"))
    await publisher.publish(CommandAccepted(command_id="x", subject="y", generation=1), topic="endpoints.desired")
    await publisher.publish(desired("good-after"))
    for name in ("good-before", "good-after"):
        await until(lambda name=name: api("GET", f"/v1/onlineEndpoints/{name}"), lambda answer: answer[0] == 200)  # type: ignore[misc]
    _, letters = await until(
        lambda: api("GET", "/v1/deadletters"),
        lambda answer: "studio" in [letter["service"] for letter in answer[1]["value"]],
    )
    parked = next(letter for letter in letters["value"] if letter["service"] == "studio")
    assert "CommandAccepted" in parked["reason"]


async def test_no_answer_is_told_as_such(start_service: StartService, tmp_path: Path) -> None:
    """Nobody plays the provisioner."""
    async with running(start_service, tmp_path, reply_seconds="1") as api:
        status, answer = await api("PUT", "/v1/onlineEndpoints/silent", {}, **{"x-ms-client-request-id": "again"})
        assert (status, answer["error"]["code"]) == (504, "GatewayTimeout")
        assert "x-ms-client-request-id: again" in answer["error"]["message"]


async def test_clients_that_send_nothing_are_dropped(start_service: StartService, tmp_path: Path) -> None:
    """No handshake, no head, half a head, no body: none holds a place for long."""
    async with running(start_service, tmp_path, idle_seconds="1") as api:
        context = ssl.create_default_context(cafile=ca_path(tmp_path))
        port = int(api.url.rpartition(":")[2])
        head = f"PUT /v1/onlineEndpoints/slow HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {admin_token(tmp_path)}\r\n"
        bodyless = f"{head}Content-Length: 9\r\n\r\n{{"
        for tls, sent, status in [
            (None, "", b""),
            (context, "", b""),
            (context, head, b""),
            (context, bodyless, b"408"),
        ]:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=tls, server_hostname="localhost" if tls else None
            )
            writer.write(sent.encode())
            async with asyncio.timeout(PATIENCE):
                assert (await reader.read())[len("HTTP/1.1 ") :].startswith(status)
            writer.close()


async def test_the_state_is_all_on_the_bus(start_service: StartService, publisher: Publisher, tmp_path: Path) -> None:
    """A second process with the same home shows the same from its first answer on."""
    await publisher.publish(desired("lasting"))
    path = "/v1/onlineEndpoints/lasting"
    async with running(start_service, tmp_path) as api:
        _, first = await until(lambda: api("GET", path), lambda answer: answer[0] == 200)
    async with running(start_service, tmp_path) as again:
        assert (await again("GET", path))[1] == first


async def test_logs_are_opened_for_whoever_may_read_them(
    api: Api, kafka: KafkaSettings, publisher: Publisher, tmp_path: Path
) -> None:
    asked: list[GetLogs] = []

    async def read(id: str, command: Any) -> None:
        asked.append(command)
        if command.deployment == "gone":
            problem = Problem(code="ResourceNotFound", field="deployment", message="there is no deployment 'gone'")
            await publisher.publish(CommandRejected(command_id=id, subject="logged", problems=(problem,)))
        elif command.deployment == "twice":
            await publisher.publish(CommandAccepted(command_id=id, subject="logged", generation=1))
        else:
            sealed = Sealer(tmp_path).seal("i1: started\ni1: a patient's name\n", f"{id}/logs")
            await publisher.publish(LogsRead(command_id=id, subject="logged", sealed=sealed))

    path = "/v1/onlineEndpoints/logged/deployments/{}/getLogs"
    async with answering(kafka, publisher, read, "endpoints.commands"):
        status, document = await api("POST", path.format("blue"), {"tail": 2, "containerType": "InferenceServer"})
        assert (status, document) == (200, {"content": "i1: started\ni1: a patient's name\n"})
        assert (asked[0].lines, asked[0].container) == (2, "inference-server")
        status, document = await api("POST", path.format("gone"), {})
        assert (status, document["error"]["code"]) == (404, "ResourceNotFound")
        assert (await api("POST", path.format("twice"), {}))[0] == 409
        assert (await api("POST", path.format("blue"), {"tail": 0}))[0] == 400


async def test_the_last_events_of_a_deployment(api: Api, publisher: Publisher) -> None:
    made = DeploymentDesired.model_validate({"generation": 1, "spec": {"kind": "online"}})
    await publisher.publish(desired("eventful", deployments={"blue": made}))
    for second in range(60):
        event = DeploymentEvent(
            endpoint="eventful", deployment="blue", instance=f"i{second}", at=NOON + timedelta(seconds=second),
            reason="Started", message="its process runs",
        )  # fmt: skip
        await publisher.publish(event)
    path = "/v1/onlineEndpoints/eventful/deployments/{}/events"
    _, document = await until(
        lambda: api("GET", path.format("blue")),
        lambda answer: answer[0] == 200 and answer[1]["value"] and answer[1]["value"][-1]["instance"] == "i59",
    )
    assert len(document["value"]) == 50
    assert document["value"][0] == {
        "instance": "i10", "at": "2026-11-01T12:00:10Z", "reason": "Started", "message": "its process runs",
    }  # fmt: skip
    assert (await api("GET", path.format("red")))[0] == 404
