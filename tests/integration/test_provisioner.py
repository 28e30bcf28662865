"""The provisioner as a process, on a real Kafka, with real instances: what others on the log see of it."""

import asyncio
import itertools
import json
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import mlflow.pyfunc
import pandas as pd
from aiokafka import AIOKafkaProducer
from mlflow.models import infer_signature

from contracts.envelope import Record
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import (
    AssetReference,
    AssetRegistered,
    AutoscaleSetting,
    Capacity,
    CodeConfiguration,
    CommandAccepted,
    CommandRejected,
    CreateEndpoint,
    DeadLetter,
    DeleteDeployment,
    DeleteEndpoint,
    DeploymentEvent,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    EnvironmentReference,
    GetLogs,
    Instance,
    LogsRead,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    PutDeployment,
    RegisterModel,
    Reply,
    ResourceSample,
    ScaleDecision,
    ScaleProfile,
    SetAutoscale,
    UpdateEndpoint,
    UsageRecorded,
)
from contracts.shell.processes import ProcessIdentity
from contracts.shell.secrets import Sealer, digest_of
from endpunkt_infra.services import ServiceProcess

T = TypeVar("T")
Answer = CommandAccepted | CommandRejected
PATIENCE = 90
QUICK = {"drain_seconds": "0.3", "usage_seconds": "0.5"}
SCORE = "import os, json\ndef init(): pass\ndef run(data): return {'version': '%s', 'pid': os.getpid()}\n"
RAISES = "def init():\n    print('about to fail')\n    raise ValueError('no such weights')\ndef run(data): pass\n"


class Others:
    """Everyone else on the log: sends commands, and sees what the provisioner tells."""

    def __init__(self, publisher: Publisher):
        self._publisher = publisher
        self.desired = Table(EndpointDesired)
        self.observed = Table(EndpointObserved)
        self.assets = Table(AssetRegistered)
        self.seen: list[Message] = []
        self._moved = asyncio.Condition()

    def sinks(self) -> list[Table[Any] | Tail]:
        topics = ("endpoints.replies", "endpoints.events", "deadletter.provisioner", "usage.events", "scaling.signals")
        return [self.desired, self.observed, self.assets, *(Tail(topic, self._see) for topic in topics)]

    def _see(self, record: Record, message: Message) -> None:
        self.seen.append(message)

    async def moved(self) -> None:
        async with self._moved:
            self._moved.notify_all()

    async def until(self, found: Callable[[], T | bool | None]) -> T:
        """Wait until `found` gives something."""
        async with asyncio.timeout(PATIENCE), self._moved:
            while not (value := found()):
                await self._moved.wait()
            return value  # type: ignore[return-value]

    def of(self, kind: type[T]) -> list[T]:
        return [message for message in self.seen if isinstance(message, kind)]

    async def send(self, command: Message, id: str | None = None) -> Answer:
        """Publish a command and wait for its answer."""
        id = id or os.urandom(8).hex()
        before = len(self._answers(id))
        await self._publisher.publish(command, id=id)
        answers = await self.until(lambda: found if len(found := self._answers(id)) > before else None)
        return answers[-1]

    def _answers(self, id: str) -> list[Answer]:
        return [each for each in self.seen if isinstance(each, Answer) and each.command_id == id]

    async def accepted(self, command: Message) -> CommandAccepted:
        answer = await self.send(command)
        assert isinstance(answer, CommandAccepted), answer
        return answer

    async def logs(self, home: Path, question: GetLogs) -> str:
        """The text that answers it."""
        id = os.urandom(8).hex()
        await self._publisher.publish(question, id=id)
        reply = (await self.until(lambda: [each for each in self.of(Reply) if each.command_id == id]))[0]
        assert isinstance(reply, LogsRead), reply
        return Sealer(home).open(reply.sealed, f"{id}/logs")

    async def publish(self, message: Message) -> None:
        await self._publisher.publish(message)

    def deployment(self, endpoint: str, name: str) -> DeploymentObserved | None:
        observed = self.observed.entries.get(endpoint)
        return observed.deployments.get(name) if observed else None

    async def state(self, endpoint: str, name: str, state: str, ready: int | None = None) -> DeploymentObserved:
        """Wait until a deployment is in `state`, with `ready` ready instances."""

        def found() -> DeploymentObserved | None:
            it = self.deployment(endpoint, name)
            return it if it and it.state == state and ready in (None, len(it.in_state("Ready"))) else None

        return await self.until(found)


@asynccontextmanager
async def others(kafka: KafkaSettings) -> AsyncIterator[Others]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    them = Others(publisher)
    reader = Reader(kafka, them.sinks(), DeadLetters(publisher, "studio"), them.moved)
    await asyncio.wait_for(reader.start(), PATIENCE)
    try:
        yield them
    finally:
        for endpoint in list(them.desired.entries):  # the next test's provisioner has another home
            await publisher.delete(EndpointDesired.TOPIC, endpoint)
        await reader.stop()
        await publisher.stop()


def code(folder: Path, text: str) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "score.py").write_text(text)
    return str(folder)


def online(code: str, **settings: Any) -> OnlineDeploymentSpec:
    return OnlineDeploymentSpec(code_configuration=CodeConfiguration(code=code, scoring_script="score.py"), **settings)


async def score(instance: Instance, document: object = None) -> Any:
    def ask() -> Any:
        request = urllib.request.Request(
            f"http://{instance.address}/score",
            json.dumps(document or {}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.load(answer)

    return await asyncio.to_thread(ask)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_an_endpoint_from_creation_to_deletion(kafka: KafkaSettings, start_service: Any, tmp_path: Path) -> None:
    service: ServiceProcess = start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        # A model is registered, an endpoint and a deployment created.
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "weights.txt").write_text("42")
        await them.accepted(RegisterModel(name="weights", version="1", path=(tmp_path / "model").as_uri()))
        await them.accepted(CreateEndpoint(endpoint="life", spec=OnlineEndpointSpec()))
        script = (
            "import os\ndef init():\n    global w\n"
            "    w = open(os.path.join(os.environ['AZUREML_MODEL_DIR'], 'model', 'weights.txt')).read()\n"
            "def run(data): return {'w': w, 'env': dict(os.environ), 'cwd': os.getcwd(), 'pid': os.getpid()}\n"
        )
        spec = online(
            code(tmp_path / "src", script),
            model=AssetReference(id="azureml:weights@latest"),
            environment_variables={"MINE": "yes"},
        )
        await them.accepted(PutDeployment(endpoint="life", deployment="blue", spec=spec))
        blue = await them.state("life", "blue", "Succeeded", ready=1)
        assert blue.generation == 2
        assert blue.desired_instances == 1
        answer = await score(blue.instances[0])

        # It runs with the model that it names, and with nothing of the provisioner's environment.
        assert answer["w"] == "42"
        assert answer["env"]["MINE"] == "yes"
        assert answer["cwd"] == answer["env"]["HOME"] == str(tmp_path / "instances" / blue.instances[0].id / "work")
        assert not [name for name in answer["env"] if name.startswith("KAFKA") or name in ("ENDPUNKT_HOME", "PWD")]

        # Keys are in the log as digests and sealed.
        endpoint = them.desired.entries["life"]
        assert endpoint.keys is not None
        opened = Sealer(tmp_path).open(endpoint.keys.secondary.sealed, "life/secondary")
        assert digest_of(opened) == endpoint.keys.secondary.digest
        assert opened not in endpoint.model_dump_json()

        # Traffic, then deletion in the order that is allowed.
        await them.accepted(UpdateEndpoint(endpoint="life", traffic={"blue": 100}))
        refused = await them.send(DeleteDeployment(endpoint="life", deployment="blue"))
        assert isinstance(refused, CommandRejected)
        assert "100 %" in refused.problems[0].message
        await them.accepted(DeleteEndpoint(endpoint="life"))
        await them.until(lambda: "life" not in them.observed.entries)
        assert gone(answer["pid"])
        await them.until(lambda: not (tmp_path / "instances" / blue.instances[0].id).exists())

        # Instance time was told in intervals that follow each other, to the microsecond.
        assert await asyncio.to_thread(service.stop) == 0
        assert not (tmp_path / "instances" / blue.instances[0].id).exists()
        marker = UsageRecorded(
            source="test",
            epoch=1,
            sequence=1,
            endpoint="life",
            deployment="blue",
            started_at=datetime.now(UTC),
            ended_at=datetime.now(UTC),
            quantities={"requests": 0},
        )
        await them.publish(marker)
        await them.until(lambda: marker in them.seen)
        records = [each for each in them.of(UsageRecorded) if each.endpoint == "life" and each != marker]
        assert [each.sequence for each in records] == list(range(1, len(records) + 1))
        assert all(a.ended_at == b.started_at for a, b in itertools.pairwise(records))
        told = sum(each.quantities["instance-time/Standard_DS1_v2"] for each in records)
        assert told == (records[-1].ended_at - records[0].started_at) // timedelta(microseconds=1)
        assert records[0].started_at == blue.instances[0].started_at


async def test_a_killed_instance_is_replaced_at_once(kafka: KafkaSettings, start_service: Any, tmp_path: Path) -> None:
    start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="phoenix", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"), instance_count=2)
        await them.accepted(PutDeployment(endpoint="phoenix", deployment="blue", spec=spec))
        first = await them.state("phoenix", "blue", "Succeeded", ready=2)
        victim, other = first.instances
        os.kill((await score(victim))["pid"], signal.SIGKILL)

        def replaced() -> DeploymentObserved | None:
            it = them.deployment("phoenix", "blue")
            ids = {each.id for each in it.in_state("Ready")} if it else set()
            return it if len(ids) == 2 and victim.id not in ids else None

        after = await them.until(replaced)
        assert other in after.instances
        assert after.error is None
        assert (await score(after.instances[1]))["version"] == "1"


async def test_a_script_that_raises_fails_its_deployment_and_no_other(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="mixed", spec=OnlineEndpointSpec()))
        good, bad = online(code(tmp_path / "good", SCORE % "1")), online(code(tmp_path / "bad", RAISES))
        await them.accepted(PutDeployment(endpoint="mixed", deployment="good", spec=good))
        before = await them.state("mixed", "good", "Succeeded", ready=1)
        await them.accepted(PutDeployment(endpoint="mixed", deployment="bad", spec=bad))
        failed = await them.state("mixed", "bad", "Failed")
        assert failed.error is not None
        assert failed.error.code == "UserScriptInitFailed"
        assert "no such weights" in failed.error.message
        assert failed.error.log_tail[-1] == "ValueError: no such weights"
        assert "about to fail" in failed.error.log_tail
        assert them.deployment("mixed", "good") == before
        assert "about to fail" in await them.logs(tmp_path, GetLogs(endpoint="mixed", deployment="bad"))

        # The same bad script as a new version of the good deployment replaces nothing; a good one replaces it.
        await them.accepted(PutDeployment(endpoint="mixed", deployment="good", spec=bad))
        stuck = await them.state("mixed", "good", "Failed")
        assert stuck.in_state("Ready") == before.instances
        assert (await score(before.instances[0]))["version"] == "1"
        fixed = online(code(tmp_path / "good", SCORE % "2"))
        await them.accepted(PutDeployment(endpoint="mixed", deployment="good", spec=fixed))
        after = await them.state("mixed", "good", "Succeeded", ready=1)
        assert after.generation > before.generation
        assert (await score(after.instances[0]))["version"] == "2"


async def test_an_environment_is_built_before_the_first_instance_and_a_bad_one_replaces_nothing(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    service: ServiceProcess = start_service("provisioner", **QUICK)
    where = (
        "import os, sys\ndef init(): print('hello from', sys.prefix)\ndef run(data): return {'prefix': sys.prefix}\n"
    )
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "bad.txt").write_text("endpunkt-has-no-such-package==7\n")

    def spec(file: str, **settings: Any) -> OnlineDeploymentSpec:
        environment = EnvironmentReference(conda_file=str(tmp_path / file))
        return online(code(tmp_path / "src", where), environment=environment, **settings)

    def reasons() -> list[str]:
        return [each.reason for each in them.of(DeploymentEvent) if each.key() == "env/blue"]

    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="env", spec=OnlineEndpointSpec()))
        await them.accepted(PutDeployment(endpoint="env", deployment="blue", spec=spec("requirements.txt")))
        creating = them.deployment("env", "blue")
        assert creating is None or (creating.state, creating.error) == ("Creating", None)
        blue = await them.state("env", "blue", "Succeeded", ready=1)
        prefix = (await score(blue.instances[0]))["prefix"]
        assert prefix.startswith(str(tmp_path / "environments"))
        await them.until(lambda: "Ready" in reasons())
        assert set(reasons()) == {"Pulling", "Pulled", "Building", "Built", "Created", "Started", "Ready"}

        # What it prints, and what was done for it.
        question = GetLogs(endpoint="env", deployment="blue")
        assert f"hello from {prefix}" in await them.logs(tmp_path, question)
        said = await them.logs(tmp_path, question.model_copy(update={"container": "storage-initializer"}))
        assert "the environment of 'requirements.txt' is built" in said

        # A version whose environment cannot be built leaves the good one where it is.
        await them.accepted(PutDeployment(endpoint="env", deployment="blue", spec=spec("bad.txt")))
        failed = await them.state("env", "blue", "Failed", ready=1)
        assert failed.error is not None
        assert failed.error.code == "ImageBuildFailure"
        assert "endpunkt-has-no-such-package" in failed.error.message
        assert failed.in_state("Ready") == blue.instances
        await them.until(lambda: "ImageBuildFailure" in reasons())

        # Troubles that can be seen beforehand are refused beforehand.
        (tmp_path / "bad.txt").write_text("numpy\n-r other.txt\n")
        refused = await them.send(PutDeployment(endpoint="env", deployment="blue", spec=spec("bad.txt")))
        assert isinstance(refused, CommandRejected)
        assert [each.field for each in refused.problems] == ["spec.environment.conda_file"]
        assert refused.problems[0].message.startswith("line 2: ")
        assert await asyncio.to_thread(service.stop) == 0


MLFLOW = """
import mlflow
class Doubled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2
mlflow.models.set_model(Doubled())
"""


async def test_an_mlflow_model_needs_no_script_and_runs_with_the_packages_it_names(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    (tmp_path / "doubled.py").write_text(MLFLOW)
    table = pd.DataFrame({"a": [1.0, 2.0]})
    await asyncio.to_thread(
        mlflow.pyfunc.save_model,
        tmp_path / "doubled",
        python_model=str(tmp_path / "doubled.py"),
        signature=infer_signature(table, table),
        pip_requirements=[f"mlflow-skinny=={mlflow.__version__}", f"pandas=={pd.__version__}"],
    )
    service: ServiceProcess = start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="flow", spec=OnlineEndpointSpec()))
        spec = OnlineDeploymentSpec(model=AssetReference(path=str(tmp_path / "doubled"), type="mlflow_model"))
        await them.accepted(PutDeployment(endpoint="flow", deployment="blue", spec=spec))
        blue = await them.state("flow", "blue", "Succeeded", ready=1)
        assert await score(blue.instances[0], {"input_data": {"columns": ["a"], "data": [[2.5]]}}) == [{"a": 5.0}]
        assert await asyncio.to_thread(service.stop) == 0


async def test_an_update_never_leaves_the_router_without_a_ready_instance(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="rolling", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"), instance_count=2)
        await them.accepted(PutDeployment(endpoint="rolling", deployment="blue", spec=spec))
        first = await them.state("rolling", "blue", "Succeeded", ready=2)
        fewest: list[int] = []
        drained: set[str] = set()

        def finished() -> DeploymentObserved | None:
            it = them.deployment("rolling", "blue")
            assert it is not None
            fewest.append(len(it.in_state("Ready")))
            drained.update(each.id for each in it.in_state("Draining"))
            return it if it.state == "Succeeded" and it.generation > first.generation else None

        update = online(code(tmp_path / "src", SCORE % "2"), instance_count=2)
        await them.accepted(PutDeployment(endpoint="rolling", deployment="blue", spec=update))
        after = await them.until(finished)
        assert min(fewest) >= 2
        assert {each.id for each in first.instances} <= drained
        assert {(await score(each))["version"] for each in after.instances} == {"2"}

        # A new count or text is no new version: the same instances go on.
        more = update.model_copy(update={"instance_count": 1, "description": "fewer"})
        await them.accepted(PutDeployment(endpoint="rolling", deployment="blue", spec=more))
        fewer = await them.state("rolling", "blue", "Succeeded", ready=1)
        assert set(fewer.instances) < set(after.instances)


async def test_scale_decisions_are_followed_within_bounds_and_samples_told(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    start_service("provisioner", **QUICK)

    def decision(instances: int) -> ScaleDecision:
        return ScaleDecision(
            endpoint="scaling",
            deployment="blue",
            decided_at=datetime.now(UTC),
            previous=1,
            instances=instances,
            kind="ScaleOut",
            profile="default",
            reason="test",
        )

    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="scaling", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"))
        await them.accepted(PutDeployment(endpoint="scaling", deployment="blue", spec=spec))
        first = await them.state("scaling", "blue", "Succeeded", ready=1)
        await them.publish(decision(2))  # without a setting, decisions mean nothing
        profile = ScaleProfile(name="default", capacity=Capacity(minimum=1, maximum=2, default=1))
        setting = AutoscaleSetting(profiles=(profile,))
        stale = decision(1)
        await them.accepted(SetAutoscale(endpoint="scaling", deployment="blue", autoscale=setting))
        await them.publish(decision(5))
        two = await them.state("scaling", "blue", "Succeeded", ready=2)
        assert first.instances[0] in two.instances
        await them.publish(stale)  # older than what was decided: ignored
        sample = (await them.until(lambda: [each for each in them.of(ResourceSample) if each.endpoint == "scaling"]))[0]
        assert sample.instance in {each.id for each in two.instances}
        assert 0 < sample.memory_percent < 10
        assert len((await them.state("scaling", "blue", "Succeeded")).instances) == 2
        await them.publish(decision(1))
        one = await them.state("scaling", "blue", "Succeeded", ready=1)
        assert one.instances == first.instances


async def test_rejections_tell_every_problem_and_the_state_is_untouched(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="strict", spec=OnlineEndpointSpec()))
        again = await them.send(CreateEndpoint(endpoint="strict", spec=OnlineEndpointSpec()))
        assert isinstance(again, CommandRejected)
        assert [each.code for each in again.problems] == ["EndpointAlreadyExists"]
        spec = online(
            str(tmp_path / "nowhere"),
            model=AssetReference(id="azureml:ghost:7"),
            instance_type="Standard_Moon",
            environment_variables={"ENDPUNKT_X": "/"},
        )
        rejected = await them.send(PutDeployment(endpoint="strict", deployment="blue", spec=spec))
        assert isinstance(rejected, CommandRejected)
        assert {each.field for each in rejected.problems} == {
            "spec.code_configuration.code",
            "spec.model.id",
            "spec.instance_type",
            "spec.environment_variables.ENDPUNKT_X",
        }
        uneven = await them.send(UpdateEndpoint(endpoint="strict", traffic={"blue": 60, "green": 30}))
        assert isinstance(uneven, CommandRejected)
        assert {each.field for each in uneven.problems} == {"traffic", "traffic.blue", "traffic.green"}
        assert them.desired.entries["strict"].generation == 1


async def test_what_is_no_command_is_parked_and_its_sender_told(kafka: KafkaSettings, start_service: Any) -> None:
    start_service("provisioner", **QUICK)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    await producer.start()
    async with others(kafka) as them:
        headers = [("ce_type", b"endpunkt.CreateEndpoint.v1"), ("ce_id", b"garbled-1")]
        await producer.send_and_wait("endpoints.commands", b'{"endpoint": "1-", "specs": {}}', b"1-", headers=headers)
        await producer.send_and_wait("endpoints.commands", b"not json at all", b"x")
        answers = await them.until(lambda: them.of(CommandRejected))
        assert answers[0].command_id == "garbled-1"
        assert {each.field for each in answers[0].problems} == {"endpoint", "spec", "specs"}
        letters = await them.until(lambda: found if len(found := them.of(DeadLetter)) == 2 else None)
        assert {each.record_key for each in letters} == {"1-", "x"}
        assert len(them.of(CommandRejected)) == 1
        # Nothing is disturbed: the next command is handled.
        await them.accepted(CreateEndpoint(endpoint="after", spec=OnlineEndpointSpec()))
    await producer.stop()


async def test_a_replayed_command_gets_the_same_answer_and_changes_nothing(
    kafka: KafkaSettings, start_service: Any
) -> None:
    start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        create = CreateEndpoint(endpoint="twice", spec=OnlineEndpointSpec())
        first = await them.send(create, "create-twice")
        made = them.desired.entries["twice"]
        assert await them.send(create, "create-twice") == first
        assert them.desired.entries["twice"] == made
        deleted = await them.send(DeleteEndpoint(endpoint="twice"), "delete-twice")
        assert isinstance(deleted, CommandAccepted)
        assert await them.send(DeleteEndpoint(endpoint="twice"), "delete-twice") == deleted
        missing = await them.send(DeleteEndpoint(endpoint="twice"))
        assert isinstance(missing, CommandRejected)
        assert missing.problems[0].code == "ResourceNotFound"


async def test_a_killed_provisioner_adopts_its_instances_and_heals_what_died_meanwhile(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    service: ServiceProcess = start_service("provisioner", **QUICK)
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="adopted", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"), instance_count=2)
        await them.accepted(PutDeployment(endpoint="adopted", deployment="blue", spec=spec))
        before = await them.state("adopted", "blue", "Succeeded", ready=2)
        pids = [(await score(each))["pid"] for each in before.instances]
        service.kill()
        os.kill(pids[1], signal.SIGKILL)  # one dies while nobody watches
        await asyncio.to_thread(start_service, "provisioner", **QUICK)

        def healed() -> DeploymentObserved | None:
            it = them.deployment("adopted", "blue")
            ids = {each.id for each in it.in_state("Ready")} if it else set()
            return it if len(ids) == 2 and before.instances[1].id not in ids else None

        after = await them.until(healed)
        assert before.instances[0] in after.instances
        assert (await score(before.instances[0]))["pid"] == pids[0]
        # An adopted instance's death is seen as a child's is.
        os.kill(pids[0], signal.SIGKILL)
        await them.until(
            lambda: (
                (it := them.deployment("adopted", "blue"))
                and before.instances[0] not in it.instances
                and len(it.in_state("Ready")) == 2
            )
        )


async def test_a_stopped_provisioner_leaves_its_instances_to_the_next_and_no_request_fails(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    service: ServiceProcess = start_service("provisioner", **QUICK, instances_at_stop="keep")
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="kept", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"), instance_count=2)
        await them.accepted(PutDeployment(endpoint="kept", deployment="blue", spec=spec))
        before = await them.state("kept", "blue", "Succeeded", ready=2)
        pids = {(await score(each))["pid"] for each in before.instances}
        processes = [ProcessIdentity.of(pid) for pid in pids]
        answered: list[int] = []
        stop = asyncio.Event()

        async def load() -> None:
            while not stop.is_set():
                answered.extend([(await score(each))["pid"] for each in before.instances])

        loading = asyncio.create_task(load())
        assert await asyncio.to_thread(service.stop) == 0
        assert them.deployment("kept", "blue") == before, "the log goes on to name them, for routers"
        alone = len(answered)
        next_one = await asyncio.to_thread(start_service, "provisioner", **QUICK)
        # It has taken over once it answers.
        await them.accepted(UpdateEndpoint(endpoint="kept", traffic={"blue": 100}))
        stop.set()
        await loading
        assert len(answered) > alone > 0
        assert set(answered) == pids
        assert them.deployment("kept", "blue") == before
        # Instance time has no gap and no overlap, whoever told it.
        await them.until(lambda: len({each.epoch for each in usage_of(them, "kept")}) == 2)
        spans = sorted((each.started_at, each.ended_at) for each in usage_of(them, "kept"))
        assert all(earlier[1] == later[0] for earlier, later in itertools.pairwise(spans))
        # And one that is told to drain leaves none.
        assert await asyncio.to_thread(next_one.stop) == 0
        assert not [each for each in processes if each is None or each.alive]


def usage_of(them: Others, endpoint: str) -> list[UsageRecorded]:
    """What was told of its instances' time."""
    return [each for each in them.of(UsageRecorded) if each.endpoint == endpoint]


async def test_sigterm_drains_and_ends_every_instance_when_it_is_told_to(
    kafka: KafkaSettings, start_service: Any, tmp_path: Path
) -> None:
    service: ServiceProcess = start_service("provisioner", **QUICK, instances_at_stop="drain")
    async with others(kafka) as them:
        await them.accepted(CreateEndpoint(endpoint="ending", spec=OnlineEndpointSpec()))
        spec = online(code(tmp_path / "src", SCORE % "1"))
        await them.accepted(PutDeployment(endpoint="ending", deployment="blue", spec=spec))
        blue = await them.state("ending", "blue", "Succeeded", ready=1)
        pid = (await score(blue.instances[0]))["pid"]
        assert await asyncio.to_thread(service.stop) == 0
        assert gone(pid)
        empty = await them.until(lambda: (it := them.deployment("ending", "blue")) and not it.instances and it)
        assert empty.desired_instances == 1
