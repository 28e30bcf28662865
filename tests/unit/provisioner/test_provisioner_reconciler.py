"""The reconciler and its announcer with real instances and a log that can be cut off."""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contracts.artifacts.store import ArtifactStore
from contracts.catalog import load_catalog
from contracts.environments.builder import BuildFailed, Built
from contracts.environments.runtime import install
from contracts.log import Offset
from contracts.messages import (
    WARMUP_REQUEST,
    Artifact,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    DeploymentEvent,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    EnvironmentDesired,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    Probe,
    ScaleDecision,
)
from provisioner import preparation as preparation_module
from provisioner.announcer import Announcer
from provisioner.compute.process import ProcessCompute
from provisioner.core.lifecycle import Phase
from provisioner.core.plan import Timing
from provisioner.events import Events
from provisioner.identity.injection import SecretsInjectionError
from provisioner.instances import Tracked
from provisioner.meter import InstanceMeter
from provisioner.preparation import Preparation, Store
from provisioner.reconciler import Reconciler

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 20
SCORE = """
import os
def init(): pass
def run(data):
    if "FAILS" in os.environ: raise ValueError("no such column")
    return data
"""


class Log:
    """Takes documents; while `cut` it takes none."""

    def __init__(self) -> None:
        self.cut = False
        self.told: list[tuple[str, Message | None]] = []
        self.tried = asyncio.Event()
        self.events: list[tuple[str, str]] = []

    async def publish(self, message: Message, *, id: str | None = None) -> Offset:
        if isinstance(message, DeploymentEvent):
            self.events.append((message.reason, message.message))
            return Offset("t", 0, len(self.events))
        return self._take(message.key(), message)

    async def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        return self._take(key, None)

    def _take(self, key: str, message: Message | None) -> Offset:
        self.tried.set()
        if self.cut:
            raise ConnectionError("cut off")
        self.told.append((key, message))
        return Offset("t", 0, len(self.told))


class Builder:
    """Builds what it is allowed to, with the interpreter of the tests."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.canceled: list[str] = []
        self.allowed: dict[str, asyncio.Future[None]] = {}

    def may(self, text: str) -> asyncio.Future[None]:
        return self.allowed.setdefault(text, asyncio.get_running_loop().create_future())

    async def build(self, name: str, text: str, told: Callable[[str], None]) -> Built:
        self.asked.append((name, text))
        told("resolving 1 requirement")
        try:
            await asyncio.shield(self.may(text))
        except asyncio.CancelledError:
            self.canceled.append(text)
            raise
        return Built(Path(sys.executable), "3.11", "e" * 64, Path("/"))


class Trust:
    """Knows one secret."""

    def __init__(self) -> None:
        self.forgotten: list[str] = []

    def variables(
        self, endpoint: EndpointDesired, deployment: str, instance: str, spec: OnlineDeploymentSpec
    ) -> Mapping[str, str]:
        if "SECRET" in spec.environment_variables:
            raise SecretsInjectionError(["environment variable SECRET: there is no connection 'vault'"])
        return {**spec.environment_variables, "IDENTITY_HEADER": "h"}

    def forget(self, instance: str) -> None:
        self.forgotten.append(instance)


class House:
    """A reconciler at work on `desired`."""

    def __init__(self, home: Path, log: Log, prepares_from: "Store | None" = None, stop_seconds: float = 20):
        self.home = home
        self.log = log
        self.desired: dict[str, EndpointDesired] = {}
        self.decisions: dict[str, ScaleDecision] = {}
        self.store = ArtifactStore(str(home / "store"), home / "artifacts", 1 << 20)
        (home / "src").mkdir(exist_ok=True)
        (home / "src" / "score.py").write_text(SCORE)
        (home / "src" / "sample.json").write_text('{"rows": [[1]]}')
        self.code = self.store.add(home / "src")
        self.builder, self.trust = Builder(), Trust()
        self.events = Events(log)
        self.compute = ProcessCompute(home, load_catalog())
        meter = InstanceMeter(home, log, "p", 1, 5)  # type: ignore[arg-type]
        timing = Timing(drain_seconds=0.1, stop_seconds=stop_seconds)
        self.reconciler = Reconciler(self.desired, self.decisions, self.compute, meter, self.trust, self.events, timing)
        runtime, logs = partial(install, home), home / "logs" / "preparations"
        self.preparation = Preparation(
            prepares_from or self.store, self.builder, runtime, logs, self.reconciler.changed, self.events
        )
        self.announcer = Announcer(log, {}, self.reconciler.told)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self.reconciler.adopt()
        self.reconciler.begin(self.announcer, self.preparation)
        works = (self.reconciler.run(), self.announcer.run(), self.events.run())
        self.tasks = [asyncio.create_task(work) for work in works]

    async def crash(self) -> None:
        """Stop working; the instances go on."""
        probers = [tracked.prober for tracked in self.reconciler.running() if tracked.prober is not None]
        for task in (*self.tasks, *probers):
            task.cancel()
        await asyncio.gather(*self.tasks, *probers, self.preparation.stop(), return_exceptions=True)

    async def end(self) -> None:
        await self.crash()
        for tracked in self.reconciler.running():
            tracked.process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.reconciler.idle.wait(), PATIENCE)
        await self.reconciler.instances.cleared()

    def want(
        self, endpoint: str, instances: int, generation: int = 2, environment: str | None = None, **settings: Any
    ) -> None:
        """`environment` is the text of an environment file."""
        configuration = CodeConfiguration(code="/src", scoring_script="score.py")
        spec = OnlineDeploymentSpec(code_configuration=configuration, instance_count=instances, **settings)
        asked = None
        if environment is not None:
            (self.home / "conda.yml").write_text(environment)
            asked = EnvironmentDesired(artifact=self.store.add(self.home / "conda.yml"))
        blue = DeploymentDesired(generation=generation, spec=spec, code=self.code, environment=asked)
        self.desired[endpoint] = EndpointDesired(
            endpoint=endpoint,
            generation=generation,
            created_at=NOON,
            updated_at=NOON,
            spec=OnlineEndpointSpec(),
            deployments={"blue": blue},
        )
        self.reconciler.changed(endpoint)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition of the reconciler, which changes only when it works or an instance does something."""
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def ready(self, endpoint: str) -> list[Tracked]:
        return [
            tracked
            for tracked in self.reconciler.running()
            if tracked.instance.place.endpoint == endpoint and tracked.instance.phase is Phase.READY
        ]

    def told(self, endpoint: str) -> DeploymentObserved | None:
        """What the log says last."""
        documents = [message for key, message in self.log.told if key == endpoint]
        last = documents[-1] if documents else None
        return last.deployments.get("blue") if isinstance(last, EndpointObserved) else None


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path, Log())
    made.begin()
    yield made
    await made.end()


async def test_instances_are_healed_while_the_log_cannot_be_reached(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    house.log.cut = True
    (first,) = house.ready("shop")
    os.kill(first.process.record.pid, signal.SIGKILL)
    await house.until(lambda: [each.instance.id for each in house.ready("shop")] not in ([], [first.instance.id]))
    blue = house.told("shop")
    assert blue is not None
    assert [each.id for each in blue.instances] == [first.instance.id], "the log still says what it said"
    house.log.cut = False
    (second,) = house.ready("shop")
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.instances[0].id == second.instance.id)


async def test_nothing_drains_away_before_the_log_says_so_but_a_stop_does_not_wait_for_ever(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    house.log.cut = True
    house.log.tried.clear()
    house.reconciler.stop_all()
    await asyncio.wait_for(house.log.tried.wait(), PATIENCE)
    assert [tracked.instance.phase for tracked in house.reconciler.running()] == [Phase.DRAINING]
    house.reconciler.stop_waiting()
    await asyncio.wait_for(house.reconciler.idle.wait(), PATIENCE)


async def test_an_error_about_one_endpoint_delays_that_one_alone(house: House) -> None:
    house.want("broken", 1)
    house.decisions["broken/blue"] = None  # type: ignore[assignment]
    house.desired["broken"].deployments["blue"] = None  # type: ignore[assignment]
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    assert not house.ready("broken")


async def test_nothing_is_told_or_done_when_nothing_changes(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    told = list(house.log.told)
    running = [tracked.instance for tracked in house.reconciler.running()]
    for _ in range(5):
        house.reconciler.changed("shop")
        await asyncio.sleep(0)
    house.want("other", 0)
    await house.until(lambda: house.log.told[-1][0] == "other")
    assert [each for each in house.log.told if each[0] == "shop"] == told
    assert [tracked.instance for tracked in house.reconciler.running()] == running


async def test_a_deleted_endpoint_is_forgotten_with_its_last_instance(house: House) -> None:
    house.want("shop", 2)
    await house.until(lambda: len(house.ready("shop")) == 2)
    del house.desired["shop"]
    house.reconciler.changed("shop")
    assert house.reconciler.remains("shop")
    await house.until(lambda: ("shop", None) in house.log.told)
    assert not house.reconciler.remains("shop")
    states = [
        [each.state for each in message.deployments["blue"].instances]
        for key, message in house.log.told
        if isinstance(message, EndpointObserved)
    ]
    assert ["Draining", "Draining"] in states


async def test_an_adopted_instance_is_ready_from_the_first_word_on(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    await house.crash()
    next_one = House(house.home, Log())
    next_one.want("shop", 1)
    next_one.begin()
    await next_one.until(lambda: next_one.told("shop") is not None)
    blue = next_one.told("shop")
    assert blue is not None
    assert [each.id for each in blue.in_state("Ready")] == [house.ready("shop")[0].instance.id]
    assert len(next_one.log.told) == 1
    await next_one.end()


async def test_an_instance_that_was_told_to_end_before_the_crash_is_not_taken_for_one_that_serves(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    (ending,) = house.ready("shop")
    await house.crash()
    next_one = House(house.home, Log(), stop_seconds=0.2)
    next_one.want("shop", 1)
    ending.process.folder.write(ending.process.record.model_copy(update={"stopping": True}))
    ending.process.record.process.send(signal.SIGTERM)
    next_one.begin()
    await next_one.until(lambda: bool(next_one.ready("shop")))
    await next_one.until(lambda: len(next_one.reconciler.running()) == 1)
    states = [
        each.state
        for _, message in next_one.log.told
        if isinstance(message, EndpointObserved)
        for each in message.deployments["blue"].instances
        if each.id == ending.instance.id
    ]
    assert set(states) == {"Draining"}
    blue = next_one.told("shop")
    assert blue is not None
    assert blue.error is None
    await next_one.end()


async def test_nothing_starts_before_its_environment_is_built_and_no_other_endpoint_waits_for_that(
    house: House,
) -> None:
    house.want("slow", 2, environment="large")
    await house.until(lambda: house.builder.asked == [("conda.yml", "large")])
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    blue = house.told("slow")
    assert blue is not None
    assert (blue.state, blue.error, blue.instances) == ("Creating", None, ())
    house.builder.may("large").set_result(None)
    await house.until(lambda: len(house.ready("slow")) == 2)
    assert [message for reason, message in house.log.events if reason == "Building"] == [
        "building the environment of 'conda.yml'",
        "resolving 1 requirement",
    ]
    assert house.builder.asked == [("conda.yml", "large")]
    text = house.preparation.log_file("slow", "blue", 2).read_text()
    assert "resolving 1 requirement" in text
    assert "code 'src'" in text


async def test_a_new_version_whose_environment_cannot_be_built_replaces_nothing(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    (good,) = house.ready("shop")
    house.builder.may("bad").set_exception(BuildFailed("numpy==99 does not exist", ("no solution found",)))
    house.want("shop", 1, generation=3, environment="bad")
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.error is not None)
    blue = house.told("shop")
    assert blue is not None
    assert blue.error is not None
    assert (blue.state, blue.error.code, blue.error.log_tail) == ("Failed", "ImageBuildFailure", ("no solution found",))
    assert "numpy==99 does not exist" in blue.error.message
    assert [each.id for each in blue.in_state("Ready")] == [good.instance.id]
    house.builder.allowed["good"] = asyncio.get_running_loop().create_future()
    house.builder.may("good").set_result(None)
    house.want("shop", 1, generation=4, environment="good")
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    assert {"ImageBuildFailure", "BackOff", "Built"} <= {reason for reason, _ in house.log.events}


async def test_a_new_version_that_fails_its_warm_up_request_replaces_nothing(house: House) -> None:
    warmed = {WARMUP_REQUEST: "sample.json"}
    house.want("shop", 1, properties=warmed)
    await house.until(lambda: bool(house.ready("shop")))
    (good,) = house.ready("shop")
    house.want("shop", 1, generation=3, properties=warmed, environment_variables={"FAILS": "yes"})
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.error is not None)
    blue = house.told("shop")
    assert blue is not None
    assert blue.error is not None
    assert blue.error.code == "UserScriptInitFailed"
    assert "no such column" in "\n".join((blue.error.message, *blue.error.log_tail))
    assert [each.id for each in blue.in_state("Ready")] == [good.instance.id]


async def test_a_deployment_that_is_deleted_while_it_is_prepared_is_not_built_to_the_end(house: House) -> None:
    house.want("shop", 1, environment="large")
    await house.until(lambda: bool(house.builder.asked))
    del house.desired["shop"]
    house.reconciler.changed("shop")
    await house.until(lambda: house.builder.canceled == ["large"])
    await house.until(lambda: not house.reconciler.remains("shop"))


class Endless:
    """A store that never comes to the end of an artifact."""

    def __init__(self) -> None:
        self.began, self.ended, self._never = threading.Event(), threading.Event(), threading.Event()

    def fetch(self, artifact: Artifact, progress: Callable[[str], None]) -> Path:
        try:
            while not self._never.wait(0.001):
                progress("some more")
                self.began.set()
        finally:
            self.ended.set()
        raise AssertionError("nobody sets it")

    def read(self, artifact: Artifact, path: str, largest: int) -> bytes:
        raise AssertionError("nothing is to be read")


async def test_files_are_no_longer_brought_for_a_deployment_that_is_deleted(tmp_path: Path) -> None:
    store = Endless()
    house = House(tmp_path, Log(), store)
    house.begin()
    house.want("shop", 1)
    await house.until(store.began.is_set)
    assert "some more" in house.preparation.log_file("shop", "blue", 2).read_text()
    del house.desired["shop"]
    house.reconciler.changed("shop")
    await house.until(store.ended.is_set)
    await house.end()
    assert not house.preparation.log_file("shop", "blue", 2).exists()


async def test_a_restart_in_the_middle_of_a_preparation_goes_on_with_it(house: House) -> None:
    house.want("shop", 1, environment="large")
    await house.until(lambda: bool(house.builder.asked))
    await house.crash()
    next_one = House(house.home, Log())
    next_one.builder.may("large").set_result(None)
    next_one.want("shop", 1, environment="large")
    next_one.begin()
    await next_one.until(lambda: bool(next_one.ready("shop")))
    await next_one.end()


async def test_a_secret_that_is_not_there_is_the_deployments_error_and_nobody_elses(house: House) -> None:
    house.want("shop", 1, environment_variables={"SECRET": "${{azureml://connections/vault/credentials/key}}"})
    house.want("bank", 1)
    await house.until(lambda: bool(house.ready("bank")))
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.error is not None)
    blue = house.told("shop")
    assert blue is not None
    assert blue.error is not None
    assert blue.error.code == "SecretsInjectionError"
    assert "connection 'vault'" in blue.error.message


async def test_events_tell_the_life_of_an_instance(house: House) -> None:
    house.want("shop", 1)
    await house.until(lambda: bool(house.ready("shop")))
    (first,) = house.ready("shop")
    os.kill(first.process.record.pid, signal.SIGKILL)
    await house.until(lambda: [each.instance.id for each in house.ready("shop")] not in ([], [first.instance.id]))
    del house.desired["shop"]
    house.reconciler.changed("shop")
    await house.until(lambda: not house.reconciler.remains("shop"))
    reasons = [reason for reason, _ in house.log.events]
    assert reasons == [
        "Pulling",
        "Pulled",
        "Created",
        "Started",
        "Ready",
        "Failed",
        "Created",
        "Started",
        "Ready",
        "Killing",
    ]
    assert first.instance.id in house.trust.forgotten
    lacks = house.compute.isolation.not_enforced(first.process.record.user)
    told = [message for reason, message in house.log.events if reason == "Created"]
    assert all(("not enforced" in message) == bool(lacks) for message in told)
    assert all(each in message for each in lacks for message in told)


async def test_an_instance_that_hangs_gets_no_traffic_until_it_answers_again_and_is_not_restarted(house: House) -> None:
    quick = Probe(period=1, timeout=1, failure_threshold=1)
    house.want("shop", 1, readiness_probe=quick, liveness_probe=Probe(failure_threshold=1000))
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    (it,) = house.ready("shop")
    it.process.record.process.send(signal.SIGSTOP)
    await house.until(lambda: (blue := house.told("shop")) is not None and not blue.in_state("Ready"))
    blue = house.told("shop")
    assert blue is not None
    assert [(each.id, each.state) for each in blue.instances] == [(it.instance.id, "Starting")]
    assert blue.error is None
    it.process.record.process.send(signal.SIGCONT)
    await house.until(lambda: (blue := house.told("shop")) is not None and blue.state == "Succeeded")
    blue = house.told("shop")
    assert blue is not None
    assert [each.id for each in blue.in_state("Ready")] == [it.instance.id]
    assert it.process.record.process.alive
    reasons = [reason for reason, _ in house.log.events][2:]
    assert reasons == ["Created", "Started", "Ready", "ReadinessProbeFailed", "Ready"]


async def test_a_preparation_that_fails_again_and_again_writes_a_bounded_log(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation_module, "_LARGEST_TEXT", 20_000)
    build_log = house.home / "build.log"
    build_log.write_text("".join(f"uv says {number}\n" for number in range(1000)))
    house.builder.may("bad").set_exception(BuildFailed("numpy==99 does not exist", ("no solution",), build_log))
    house.want("shop", 0, environment="bad")
    template, tries = house.desired["shop"].deployments["blue"], 0
    while tries < 8:
        result = house.preparation.of("shop", "blue", template)
        if isinstance(result, DeploymentError):
            tries += 1
            text = house.preparation.log_file("shop", "blue", 2)
            assert text.stat().st_size <= 20_000
        await asyncio.sleep(0)
    lines = text.read_text().splitlines()
    assert [line for line in lines if line.startswith("uv says ")][-1] == "uv says 999"
    assert "numpy==99 does not exist" in "".join(lines[-5:])
    failures = [reason for reason, _ in house.log.events if reason == "ImageBuildFailure"]
    assert len(failures) <= 1, "and it is told once"


async def test_the_announcer_writes_the_newest_document_once(tmp_path: Path) -> None:
    log, heard = Log(), asyncio.Queue[str]()
    announcer = Announcer(log, {}, lambda endpoint, _: heard.put_nowait(endpoint))  # type: ignore[arg-type]

    def document(generation: int) -> EndpointObserved:
        return EndpointObserved(endpoint="shop", generation=generation, state="Succeeded")

    assert not announcer.tell("shop", document(1))
    assert not announcer.tell("shop", document(2))
    task = asyncio.create_task(announcer.run())
    assert await asyncio.wait_for(heard.get(), PATIENCE) == "shop"
    assert log.told == [("shop", document(2))]
    assert announcer.tell("shop", document(2))
    assert announcer.latest("shop") == document(2)
    assert not announcer.tell("shop", None)
    assert announcer.latest("shop") is None
    assert not announcer.tell("shop", document(2)), "what waits may be on its way: only a write makes sure"
    task.cancel()
