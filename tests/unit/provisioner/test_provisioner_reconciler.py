"""The reconciler and its announcer with real instances and a log that can be cut off."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.catalog import load_catalog
from contracts.log import Offset
from contracts.messages import (
    CodeConfiguration,
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    Message,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    ScaleDecision,
)
from provisioner.announcer import Announcer
from provisioner.artifacts import ArtifactStore
from provisioner.compute.process import ProcessCompute
from provisioner.core.lifecycle import Phase
from provisioner.core.plan import Timing
from provisioner.core.world import Source
from provisioner.meter import InstanceMeter
from provisioner.reconciler import Reconciler, Tracked

NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
PATIENCE = 20
SCORE = "def init(): pass\ndef run(data): return data\n"


class Log:
    """Takes documents; while `cut` it takes none."""

    def __init__(self) -> None:
        self.cut = False
        self.told: list[tuple[str, Message | None]] = []
        self.tried = asyncio.Event()

    async def publish(self, message: Message, *, id: str | None = None) -> Offset:
        return self._take(message.key(), message)

    async def delete(self, topic: str, key: str, *, id: str | None = None) -> Offset:
        return self._take(key, None)

    def _take(self, key: str, message: Message | None) -> Offset:
        self.tried.set()
        if self.cut:
            raise ConnectionError("cut off")
        self.told.append((key, message))
        return Offset("t", 0, len(self.told))


class House:
    """A reconciler at work on `desired`."""

    def __init__(self, home: Path, log: Log, stop_seconds: float = 20):
        self.home = home
        self.log = log
        self.desired: dict[str, EndpointDesired] = {}
        self.decisions: dict[str, ScaleDecision] = {}
        store = ArtifactStore(home / "artifacts", 1 << 20)
        (home / "src").mkdir(exist_ok=True)
        (home / "src" / "score.py").write_text(SCORE)
        artifact = store.store(Source("code", str(home / "src"))).artifact
        assert artifact is not None
        self.code = artifact
        compute = ProcessCompute(home, home / "artifacts", load_catalog())
        meter = InstanceMeter(home, log, "p", 1, 5)  # type: ignore[arg-type]
        self.reconciler = Reconciler(
            self.desired, self.decisions, compute, meter, Timing(drain_seconds=0.1, stop_seconds=stop_seconds)
        )
        self.announcer = Announcer(log, {}, self.reconciler.told)  # type: ignore[arg-type]
        self.tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self.reconciler.begin(self.announcer)
        self.tasks = [asyncio.create_task(self.reconciler.run()), asyncio.create_task(self.announcer.run())]

    async def crash(self) -> None:
        """Stop working; the instances go on."""
        probers = [tracked.prober for tracked in self.reconciler.running() if tracked.prober is not None]
        for task in (*self.tasks, *probers):
            task.cancel()
        await asyncio.gather(*self.tasks, *probers, return_exceptions=True)

    async def end(self) -> None:
        await self.crash()
        for tracked in self.reconciler.running():
            tracked.process.kill()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.reconciler.idle.wait(), PATIENCE)

    def want(self, endpoint: str, instances: int) -> None:
        configuration = CodeConfiguration(code="/src", scoring_script="score.py")
        spec = OnlineDeploymentSpec(code_configuration=configuration, instance_count=instances)
        self.desired[endpoint] = EndpointDesired(
            endpoint=endpoint,
            generation=2,
            created_at=NOON,
            updated_at=NOON,
            spec=OnlineEndpointSpec(),
            deployments={"blue": DeploymentDesired(generation=2, spec=spec, code=self.code)},
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
    ending.process.folder.write(ending.process.record.model_copy(update={"stopping": True}))
    ending.process.record.process.send(signal.SIGTERM)
    next_one = House(house.home, Log(), stop_seconds=0.2)
    next_one.want("shop", 1)
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
