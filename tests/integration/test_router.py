"""The router as a process, on a real Kafka, with TLS: what clients, models and readers of the log see of it."""

import asyncio
import hashlib
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiokafka import AIOKafkaProducer

from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Tail
from contracts.messages import (
    Artifact,
    AutoscaleSetting,
    Capacity,
    CodeConfiguration,
    DeadLetter,
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointKey,
    EndpointKeys,
    EndpointObserved,
    Instance,
    LoadSample,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    RequestSettings,
    ScaleProfile,
    UsageRecorded,
)
from contracts.shell.tls import ca_path
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.services import ServiceProcess
from endpunkt_infra.topics import make_topics

StartService = Callable[..., ServiceProcess]
PATIENCE = 30
KEY = "primary-of-this-test"
QUICK = {"router_port": "0", "usage_seconds": "0.3"}
SCORE = "import os\ndef init(): pass\ndef run(data): return os.getpid()\n"


@dataclass
class Behaviour:
    """What a model of the test's own process does."""

    status: int = 200
    breaks: bool = False
    requests: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.opened.set()

    async def seen(self, count: int) -> None:
        """Wait until it has got this many requests."""
        async with asyncio.timeout(PATIENCE), self.arrived:
            await self.arrived.wait_for(lambda: self.requests >= count)

    async def answer(self, request: web.Request) -> web.Response:
        await request.read()
        async with self.arrived:
            self.requests += 1
            self.arrived.notify_all()
        await self.opened.wait()
        if self.breaks and request.transport is not None:
            request.transport.abort()
        return web.json_response([1.0], status=self.status)


class World:
    """Everyone but the router: the provisioner, the models, the clients and the readers of its records."""

    def __init__(self, kafka: KafkaSettings, router: ServiceProcess):
        self.router = router
        self.seen: list[Message] = []
        self.changed = asyncio.Condition()
        self.session: aiohttp.ClientSession
        self._publisher = Publisher(kafka, "test")
        tails = [Tail(topic, self._see) for topic in ("scaling.signals", "usage.events", "deadletter.router")]
        self._reader = Reader(kafka, tails, DeadLetters(self._publisher, "router"), self._notify)
        self._runners: list[web.AppRunner] = []
        self._behaviours: list[Behaviour] = []
        self._generation = 0

    async def start(self) -> None:
        await self._publisher.start()
        await self._reader.start()
        self.session = self.new_session()

    async def stop(self) -> None:
        await self.session.close()
        for behaviour in self._behaviours:
            behaviour.opened.set()
        for runner in self._runners:
            await runner.cleanup()
        await self._reader.stop()
        await self._publisher.stop()

    def new_session(self) -> aiohttp.ClientSession:
        context = ssl.create_default_context(cafile=ca_path(self.router.home))
        return aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=0))

    @property
    def url(self) -> str:
        return str(self.router.readiness()["addresses"]["scoring"])

    def _see(self, _: Any, message: Message) -> None:
        self.seen.append(message)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what was seen on the log fulfils `condition`."""
        async with asyncio.timeout(PATIENCE), self.changed:
            await self.changed.wait_for(condition)

    def usage(self, endpoint: str) -> list[UsageRecorded]:
        return [each for each in self.seen if isinstance(each, UsageRecorded) and each.endpoint == endpoint]

    def samples(self, endpoint: str) -> list[LoadSample]:
        return [each for each in self.seen if isinstance(each, LoadSample) and each.endpoint == endpoint]

    async def model(self, behaviour: Behaviour) -> str:
        """A model's address."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", behaviour.answer)
        self._behaviours.append(behaviour)
        runner = web.AppRunner(app, shutdown_timeout=0)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"127.0.0.1:{runner.addresses[0][1]}"

    async def desire(
        self, name: str, traffic: dict[str, int], deployments: dict[str, DeploymentDesired], key: str = KEY
    ) -> None:
        self._generation += 1
        now = datetime.now(UTC)
        keys = EndpointKeys(
            primary=EndpointKey(digest=hashlib.sha256(key.encode()).hexdigest(), sealed="-"),
            secondary=EndpointKey(digest=hashlib.sha256(b"secondary").hexdigest(), sealed="-"),
        )
        await self._publisher.publish(
            EndpointDesired(
                endpoint=name,
                generation=self._generation,
                created_at=now,
                updated_at=now,
                spec=OnlineEndpointSpec(),
                keys=keys,
                traffic=traffic,
                deployments=deployments,
            )
        )

    async def observe(self, name: str, ready: dict[str, dict[str, str]], desired_instances: int = 1) -> None:
        """`ready` gives each deployment's instances: id -> address."""
        await self._publisher.publish(
            EndpointObserved(
                endpoint=name,
                generation=self._generation,
                state="Succeeded",
                deployments={
                    deployment: DeploymentObserved(
                        generation=self._generation,
                        state="Succeeded",
                        desired_instances=desired_instances,
                        instances=tuple(
                            Instance(
                                id=each,
                                generation=self._generation,
                                state="Ready",
                                address=address,
                                started_at=datetime.now(UTC),
                            )
                            for each, address in instances.items()
                        ),
                    )
                    for deployment, instances in ready.items()
                },
            )
        )

    async def delete(self, name: str) -> None:
        await self._publisher.delete("endpoints.desired", name)
        await self._publisher.delete("endpoints.observed", name)

    async def score(self, name: str, key: str = KEY, **headers: str) -> tuple[int, str, Any]:
        """One request: its status, the deployment that answered, the body."""
        async with self.session.post(
            f"{self.url}/{name}/score",
            json={"data": [[1, 2]]},
            headers={"Authorization": f"Bearer {key}", **{each.replace("_", "-"): headers[each] for each in headers}},
        ) as answer:
            return answer.status, answer.headers.get("azureml-model-deployment", ""), await answer.json()

    async def until_routed(self, name: str) -> None:
        """The router has the endpoint in its table; asked in a way that takes no turn of the split."""

        async def answered() -> bool:
            status, _, body = await self.score(name, azureml_model_deployment="red")
            return status == 404 and body["error"]["code"] == "DeploymentNotFound"

        await eventually(answered)

    async def until_status(self, status: int, name: str, key: str = KEY, **headers: str) -> None:
        """The router reads the log at its own pace."""

        async def answered() -> bool:
            return (await self.score(name, key, **headers))[0] == status

        await eventually(answered)


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    """Ask again until it is so: what is waited for tells nobody of itself."""
    async with asyncio.timeout(PATIENCE):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def deployment(*, idempotent: bool = False, autoscaled: bool = False, **settings: int) -> DeploymentDesired:
    profile = ScaleProfile(name="default", capacity=Capacity(minimum=1, maximum=2, default=1))
    return DeploymentDesired(
        generation=1,
        code=Artifact(digest="0" * 64, name="code"),
        spec=OnlineDeploymentSpec(
            code_configuration=CodeConfiguration(code="code", scoring_script="score.py"),
            properties={"endpunkt.idempotent": "true"} if idempotent else {},
            request_settings=RequestSettings(**settings),
        ),
        autoscale=AutoscaleSetting(profiles=(profile,)) if autoscaled else None,
    )


@asynccontextmanager
async def world_of(kafka: KafkaSettings, router: ServiceProcess) -> AsyncIterator[World]:
    world = World(kafka, router)
    await world.start()
    try:
        yield world
    finally:
        await world.stop()


@pytest.fixture
async def world(kafka: KafkaSettings, start_service: StartService) -> AsyncIterator[World]:
    async with world_of(kafka, start_service("router", **QUICK)) as made:
        yield made


async def test_a_thousand_requests_at_90_10_are_900_and_100_and_the_usage_says_so(world: World) -> None:
    blue, green = Behaviour(), Behaviour()
    ready = {"blue": {"b": await world.model(blue)}, "green": {"g": await world.model(green)}}
    await world.observe("split", ready)
    settings: dict[str, Any] = {"max_concurrent_requests_per_instance": 50}
    deployments = {"blue": deployment(**settings), "green": deployment(autoscaled=True, **settings)}
    await world.desire("split", {"blue": 90, "green": 10}, deployments)
    await world.until_routed("split")
    statuses = Counter[tuple[int, str]]()

    async def client(count: int) -> None:
        for _ in range(count):
            status, by, _ = await world.score("split")
            statuses[status, by] += 1

    await asyncio.gather(*(client(100) for _ in range(10)))
    assert statuses == {(200, "blue"): 900, (200, "green"): 100}
    assert (blue.requests, green.requests) == (900, 100)
    for _ in range(10):
        assert (await world.score("split", azureml_model_deployment="green"))[:2] == (200, "green")
    for key in ("wrong", ""):
        status, _, body = await world.score("split", key=key)
        assert (status, body["error"]["code"]) == (401, "Unauthorized")
    assert (await world.score("split", key="secondary"))[0] == 200
    assert (await world.score("nothing-here"))[0] == 404
    await world.until(lambda: sum(sample.requests for sample in world.samples("split")) == 110)

    assert await asyncio.to_thread(world.router.stop) == 0
    await world.until(lambda: sum(each.quantities["requests"] for each in world.usage("split")) == 1011)
    counts = dict.fromkeys(("blue", "green"), 0)
    for each in sorted(world.usage("split"), key=lambda record: record.sequence):
        counts[each.deployment] += each.quantities["requests"]
        assert each.source == "router-1"
        assert each.started_at <= each.ended_at
    assert counts == {"blue": 901, "green": 110}
    for name in counts:
        sequences = [each.sequence for each in world.usage("split") if each.deployment == name]
        assert sequences == list(range(1, len(sequences) + 1))


async def test_load_samples_come_every_second_with_zeros_and_only_where_something_scales(world: World) -> None:
    model = Behaviour()
    address = await world.model(model)
    await world.observe("quiet", {"scaled": {"s": address}, "fixed": {"f": address}})
    deployments = {"scaled": deployment(autoscaled=True), "fixed": deployment()}
    await world.desire("quiet", {"scaled": 100}, deployments)
    await world.until(lambda: len(world.samples("quiet")) >= 3)
    samples = world.samples("quiet")
    assert {sample.deployment for sample in samples} == {"scaled"}
    assert {(sample.requests, sample.failures, sample.in_flight) for sample in samples} == {(0, 0, 0)}
    seconds = [sample.at for sample in samples]
    assert all(later - earlier == timedelta(seconds=1) for earlier, later in pairwise(seconds))
    model.status = 500
    assert (await world.score("quiet"))[0] == 424
    await world.until(lambda: any(sample.failures for sample in world.samples("quiet")))
    busy = next(sample for sample in world.samples("quiet") if sample.requests)
    assert (busy.requests, busy.failures) == (1, 1)
    assert busy.latency_ms_sum == busy.latency_ms_max > 0


async def test_the_statuses_of_the_contract(world: World) -> None:
    slow, failing = Behaviour(), Behaviour(status=400)
    slow.opened.clear()
    ready = {"slow": {"s": await world.model(slow)}, "failing": {"f": await world.model(failing)}, "absent": {}}
    await world.observe("codes", ready)
    deployments = {
        "slow": deployment(request_timeout_ms=1500, max_queue_wait_ms=100),
        "failing": deployment(),
        "absent": deployment(),
    }
    await world.desire("codes", {}, deployments)
    await world.until_status(503, "codes", azureml_model_deployment="absent")
    assert (await world.score("codes"))[0] == 404  # no deployment has traffic
    assert (await world.score("codes", azureml_model_deployment="failing"))[0] == 424
    three = [asyncio.create_task(world.score("codes", azureml_model_deployment="slow")) for _ in range(3)]
    codes = Counter([(status, body["error"]["code"]) for status, _, body in await asyncio.gather(*three)])
    assert codes == {(408, "RequestTimeout"): 1, (429, "QueueWaitExceeded"): 1, (429, "TooManyRequests"): 1}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_hosts_certificate_and_a_client_that_does_not_trust_it(world: World) -> None:
    await world.observe("named", {"blue": {"b": await world.model(Behaviour())}})
    await world.desire("named", {"blue": 100}, {"blue": deployment()})
    await world.until_status(200, "named")
    host = "named.local.inference.localhost"
    async with world.session.get(
        f"{world.url}/swagger.json",
        headers={"Authorization": f"Bearer {KEY}", "Host": host},
        server_hostname=host,
    ) as answer:
        assert answer.status == 200
    async with aiohttp.ClientSession() as untrusting:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await untrusting.get(f"{world.url}/named/score")
    port = int(world.url.rpartition(":")[2])
    for hello in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b""):  # no TLS, half a TLS, nothing
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(hello)
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as stranger, pytest.raises(ssl.SSLError):
        old.wrap_socket(stranger)
    assert (await world.score("named"))[0] == 200
    log = world.router.log.read_text()
    assert "Traceback" not in log
    assert "ERROR" not in log


async def test_the_split_the_keys_and_the_models_change_under_load_and_no_request_fails(world: World) -> None:
    addresses = [await world.model(Behaviour()) for _ in range(3)]
    settings: dict[str, Any] = {"max_concurrent_requests_per_instance": 20, "max_queue_wait_ms": 5000}
    deployments = {"blue": deployment(**settings), "green": deployment(**settings)}
    await world.observe("moving", {"blue": {"b": addresses[0]}, "green": {"g": addresses[1]}})
    await world.desire("moving", {"blue": 100}, deployments)
    await world.until_status(200, "moving", key="secondary")
    stop = asyncio.Event()
    seen = Counter[tuple[int, str]]()

    async def client() -> None:
        while not stop.is_set():
            seen[(await world.score("moving", key="secondary"))[:2]] += 1

    clients = [asyncio.create_task(client()) for _ in range(8)]
    for step in range(10):
        await world.desire("moving", {"blue": 50, "green": 50}, deployments, key=f"rotated-{step}")
        await world.observe("moving", {"blue": {"b": addresses[step % 2]}, "green": {"g": addresses[2]}})
        await world.until_status(200, "moving", key=f"rotated-{step}")
    await world.desire("moving", {"green": 100}, deployments)

    async def green_alone() -> bool:
        return (await world.score("moving", key="secondary"))[1] == "green"

    await eventually(green_alone)
    before = seen[200, "blue"]
    for _ in range(20):
        assert (await world.score("moving", key="secondary"))[1] == "green"
    assert seen[200, "blue"] - before <= len(clients)  # those that were on their way
    stop.set()
    await asyncio.gather(*clients)
    assert set(seen) == {(200, "blue"), (200, "green")}
    await world.delete("moving")
    await world.until_status(404, "moving")


class Process:
    """A real instance: the inference server with a script."""

    def __init__(self, folder: Path):
        folder.mkdir()
        (folder / "score.py").write_text(SCORE)
        variables = {
            "AML_APP_ROOT": str(folder),
            "AZUREML_ENTRY_SCRIPT": "score.py",
            "ENDPUNKT_STATUS_FILE": str(folder / "status.json"),
            "ENDPUNKT_CONCURRENCY": "4",
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.address = f"127.0.0.1:{listener.getsockname()[1]}"
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference_server", "--fd", str(listener.fileno())],
                env=os.environ | variables,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )

    async def ready(self) -> None:
        async with aiohttp.ClientSession() as session:

            async def healthy() -> bool:
                try:
                    async with session.get(f"http://{self.address}/") as answer:
                        return answer.status == 200
                except aiohttp.ClientError:
                    return False

            await eventually(healthy)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@contextmanager
def instances_in(folder: Path) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        started.append(Process(folder / f"instance-{len(started)}"))
        return started[-1]

    try:
        yield start
    finally:
        for each in started:
            each.kill()


@pytest.mark.parametrize("count", [1, 2])
async def test_an_instance_is_killed_under_load_and_not_one_request_fails(
    world: World, tmp_path: Path, count: int
) -> None:
    """With the only instance, and with the only other one busy."""
    name = f"killed-{count}"
    with instances_in(tmp_path) as start:
        first = [start() for _ in range(count)]
        for each in first:
            await each.ready()
        ready = {f"i{at}": each.address for at, each in enumerate(first)}
        await world.observe(name, {"blue": ready}, count)
        settings: dict[str, Any] = {"max_concurrent_requests_per_instance": 4, "max_queue_wait_ms": 100}
        await world.desire(name, {"blue": 100}, {"blue": deployment(idempotent=True, **settings)})
        await world.until_status(200, name)
        stop = asyncio.Event()
        answers = Counter[tuple[int, Any]]()
        changed = asyncio.Event()

        async def client() -> None:
            while not stop.is_set():
                status, _, body = await world.score(name)
                answers[status, body if status == 200 else body["error"]["code"]] += 1
                changed.set()

        async def until_answers(process: Process, least: int) -> None:
            async with asyncio.timeout(PATIENCE):
                while answers[200, process.process.pid] < least:
                    changed.clear()
                    await changed.wait()

        clients = [asyncio.create_task(client()) for _ in range(4 * count + 2)]
        await until_answers(first[0], 100)
        first[0].kill()
        await world.observe(name, {"blue": {each: ready[each] for each in ready if each != "i0"}}, count)
        replacement = start()
        await replacement.ready()
        await world.observe(name, {"blue": {**ready, "i0": replacement.address}}, count)
        await until_answers(replacement, 100)
        stop.set()
        await asyncio.gather(*clients)
    pids = {each.process.pid for each in (*first, replacement)}
    assert set(answers) == {(200, pid) for pid in pids}, answers


async def test_without_idempotence_what_died_under_a_request_is_an_honest_502(world: World, tmp_path: Path) -> None:
    address = await world.model(held := Behaviour())
    held.opened.clear()
    await world.observe("honest", {"blue": {"b": address}})
    await world.desire("honest", {"blue": 100}, {"blue": deployment()})
    await world.until_routed("honest")
    request = asyncio.create_task(world.score("honest"))
    await held.seen(1)
    held.breaks = True
    held.opened.set()
    status, by, body = await request
    assert (status, by, body["error"]["code"]) == (502, "blue", "InstanceDied")


async def test_a_graceful_stop_answers_every_request_that_it_has(world: World) -> None:
    model = Behaviour()
    await world.observe("stopped", {"blue": {"b": await world.model(model)}})
    await world.desire("stopped", {"blue": 100}, {"blue": deployment(max_concurrent_requests_per_instance=20)})
    await world.until_status(200, "stopped")
    model.opened.clear()
    before = model.requests
    requests = [asyncio.create_task(world.score("stopped")) for _ in range(20)]
    await model.seen(before + 20)
    stopping = asyncio.create_task(asyncio.to_thread(world.router.stop))
    port = int(world.url.rpartition(":")[2])

    async def closed() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except ConnectionError:
            return True
        writer.close()
        return False

    await eventually(closed)
    model.opened.set()
    assert {status for status, _, _ in await asyncio.gather(*requests)} == {200}
    assert await stopping == 0
    await world.until(lambda: sum(each.quantities["requests"] for each in world.usage("stopped")) == before + 20)


async def test_a_malformed_record_is_parked_and_disturbs_nobody(world: World, kafka: KafkaSettings) -> None:
    await world.observe("steady", {"blue": {"b": await world.model(Behaviour())}})
    await world.desire("steady", {"blue": 100}, {"blue": deployment()})
    await world.until_status(200, "steady")
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    for value in (b"nonsense", b'{"endpoint": "steady"}'):
        headers = [("ce_type", b"endpunkt.EndpointDesired.v1")]
        await producer.send_and_wait("endpoints.desired", value, key=b"steady", headers=headers)
    await producer.stop()
    await world.until(lambda: sum(isinstance(each, DeadLetter) for each in world.seen) == 2)
    assert (await world.score("steady"))[0] == 200
    await world.desire("steady", {"blue": 100}, {"blue": deployment()}, key="new")
    await world.until_status(200, "steady", key="new")


async def test_a_restart_begins_with_the_whole_table(
    world: World, kafka: KafkaSettings, start_service: StartService
) -> None:
    await world.observe("again", {"blue": {"b": await world.model(Behaviour())}})
    await world.desire("again", {"blue": 100}, {"blue": deployment()})
    await world.until_status(200, "again")
    await asyncio.to_thread(world.router.kill)
    world.router = await asyncio.to_thread(start_service, "router", **QUICK)
    assert (await world.score("again"))[0] == 200  # at once: it is ready when its table is


async def _warned(router: ServiceProcess) -> bool:
    return bool((await asyncio.to_thread(router.readiness))["warnings"])


async def test_with_kafka_gone_the_last_table_goes_on_serving(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=0)
    kafka = KafkaSettings(await asyncio.to_thread(broker.start))
    router = ServiceProcess(
        "router",
        tmp_path,
        {
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            **{f"ENDPUNKT_{name.upper()}": value for name, value in QUICK.items()},
        },
    )
    try:
        await make_topics(kafka)
        router.start()
        await asyncio.to_thread(router.wait_ready)
        async with world_of(kafka, router) as world:
            await world.observe("alone", {"blue": {"b": await world.model(Behaviour())}})
            await world.desire("alone", {"blue": 100}, {"blue": deployment()})
            await world.until_status(200, "alone")
            before = sum(each.quantities["requests"] for each in world.usage("alone"))
            await asyncio.to_thread(broker.stop)
            for _ in range(50):
                assert (await world.score("alone"))[0] == 200
            await eventually(lambda: _warned(router))
            (warning,) = router.readiness()["warnings"]
            assert router.readiness()["ready"]
            assert "requests go by the table of then" in warning
            assert (await world.score("alone"))[0] == 200
            await asyncio.to_thread(broker.start)
            await world.desire("alone", {"blue": 100}, {"blue": deployment()}, key="new")
            await world.until_status(200, "alone", key="new")  # it reads on
            await world.until(lambda: sum(each.quantities["requests"] for each in world.usage("alone")) >= before + 52)
            assert not await _warned(router)
            assert await asyncio.to_thread(router.stop) == 0
    finally:
        router.stop()
        broker.stop()
