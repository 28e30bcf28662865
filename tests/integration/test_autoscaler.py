"""The autoscaler as a real process on a real broker; the test is provisioner and router."""

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from aiokafka import AIOKafkaProducer

from contracts.envelope import Record
from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table, Tail
from contracts.messages import (
    Artifact,
    AutoscaleSetting,
    Capacity,
    CodeConfiguration,
    DeadLetter,
    DeploymentDesired,
    DeploymentObserved,
    EndpointDesired,
    EndpointObserved,
    LoadSample,
    Message,
    MetricTrigger,
    OnlineDeploymentSpec,
    OnlineEndpointSpec,
    ScaleAction,
    ScaleDecision,
    ScaleProfile,
    ScaleRule,
)
from endpunkt_infra.services import ServiceProcess

PATIENCE = 60
NOW = datetime.now(UTC)

StartService = Callable[..., ServiceProcess]


def rule(direction: str, operator: str, threshold: float, cooldown: timedelta) -> ScaleRule:
    return ScaleRule(
        metric_trigger=MetricTrigger.model_validate(
            {
                "metric_name": "RequestsPerMinute",
                "time_grain": timedelta(seconds=1),
                "time_window": timedelta(seconds=2),
                "operator": operator,
                "threshold": threshold,
            }
        ),
        scale_action=ScaleAction.model_validate({"direction": direction, "value": 1, "cooldown": cooldown}),
    )


def setting(*, minimum: int = 1, cooldown: float = 2, enabled: bool = True) -> AutoscaleSetting:
    rules = (
        rule("Increase", "GreaterThan", 3000, timedelta(seconds=cooldown)),
        rule("Decrease", "LessThan", 600, timedelta(seconds=cooldown)),
    )
    capacity = Capacity(minimum=minimum, maximum=3, default=minimum)
    return AutoscaleSetting(enabled=enabled, profiles=(ScaleProfile(name="default", capacity=capacity, rules=rules),))


def desired(endpoint: str, autoscale: AutoscaleSetting | None) -> EndpointDesired:
    deployment = DeploymentDesired(
        generation=1,
        spec=OnlineDeploymentSpec(code_configuration=CodeConfiguration(code="file:///c", scoring_script="score.py")),
        code=Artifact(digest="0" * 64, name="code"),
        autoscale=autoscale,
    )
    return EndpointDesired(
        endpoint=endpoint,
        generation=1,
        created_at=NOW,
        updated_at=NOW,
        spec=OnlineEndpointSpec(),
        deployments={"blue": deployment},
    )


def observed(endpoint: str, instances: int) -> EndpointObserved:
    deployment = DeploymentObserved(generation=1, state="Succeeded", desired_instances=instances)
    return EndpointObserved(endpoint=endpoint, generation=1, state="Succeeded", deployments={"blue": deployment})


class World:
    """The bus around the autoscaler: a provisioner that obeys every decision, and two routers with as much load as is
    asked for."""

    def __init__(self, publisher: Publisher, endpoint: str):
        self.publisher = publisher
        self.endpoint = endpoint
        self.load: int | None = None
        self.history: list[ScaleDecision | None] = []
        self._changed = asyncio.Event()
        self._tasks: set[asyncio.Task[object]] = set()
        self.decisions = Table(ScaleDecision, self._decided)

    def _decided(self, key: str, decision: ScaleDecision | None) -> None:
        if key != f"{self.endpoint}/blue":
            return
        self.history.append(decision)
        self._changed.set()
        if decision is not None:
            obeying = asyncio.create_task(self.publisher.publish(observed(self.endpoint, decision.instances)))
            self._tasks.add(obeying)
            obeying.add_done_callback(self._tasks.discard)

    async def route(self) -> None:
        """Tell every second of `load`, as two routers do."""
        while True:
            at = datetime.now(UTC).replace(microsecond=0)
            await asyncio.sleep((at + timedelta(seconds=1) - datetime.now(UTC)).total_seconds())
            if self.load is not None:
                for router in ("router-1", "router-2"):
                    await self.publisher.publish(
                        LoadSample(
                            endpoint=self.endpoint, deployment="blue", source=router, at=at, requests=self.load // 2,
                            failures=0, in_flight=0, latency_ms_sum=0, latency_ms_max=0,
                        )
                    )  # fmt: skip

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    def changes(self) -> list[tuple[str, int, int] | None]:
        return [None if each is None else (each.kind, each.previous, each.instances) for each in self.history]


@asynccontextmanager
async def world(kafka: KafkaSettings, endpoint: str) -> AsyncIterator[World]:
    publisher = Publisher(kafka, "test")
    await publisher.start()
    around = World(publisher, endpoint)
    reader = Reader(kafka, [around.decisions], DeadLetters(publisher, "studio"))
    await asyncio.wait_for(reader.start(), PATIENCE)
    routing = asyncio.create_task(around.route())
    try:
        yield around
    finally:
        routing.cancel()
        await asyncio.gather(routing, return_exceptions=True)
        await reader.stop()
        await publisher.stop()


async def test_load_scales_out_its_end_scales_in_and_each_says_why(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    async with world(kafka, "loaded") as around:
        await asyncio.to_thread(start_service, "autoscaler", evaluate_seconds="0.2")
        await around.publisher.publish(observed("loaded", 1))
        await around.publisher.publish(desired("loaded", setting()))
        around.load = 80
        await around.until(lambda: len(around.history) == 2)
        around.load = 0
        await around.until(lambda: len(around.history) == 4)
        assert around.changes() == [("ScaleOut", 1, 2), ("ScaleOut", 2, 3), ("ScaleIn", 3, 2), ("ScaleIn", 2, 1)]
        first, last = around.history[0], around.history[-1]
        assert first is not None
        assert first.reason == ("RequestsPerMinute Average over 2 s is 4800, GreaterThan 3000: 1 -> 2; cooldown 2 s")
        assert first.cooldown_until == first.decided_at + timedelta(seconds=2)
        assert last is not None
        assert last.reason == "RequestsPerMinute Average over 2 s is 0, LessThan 600: 2 -> 1; cooldown 2 s"
        for earlier, later in zip(around.history, around.history[1:], strict=False):
            assert earlier is not None
            assert later is not None
            assert earlier.cooldown_until is not None
            assert later.decided_at >= earlier.cooldown_until


async def test_a_kill_and_restart_keeps_the_count_the_cooldown_and_the_samples(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    async with world(kafka, "killed") as around:
        service = await asyncio.to_thread(start_service, "autoscaler", evaluate_seconds="0.2")
        await around.publisher.publish(observed("killed", 1))
        await around.publisher.publish(desired("killed", setting(cooldown=8)))
        around.load = 80
        await around.until(lambda: len(around.history) == 1)
        service.kill()
        await asyncio.to_thread(start_service, "autoscaler", evaluate_seconds="0.2")
        await around.until(lambda: len(around.history) == 2)
        first, second = around.history
        assert first is not None
        assert second is not None
        assert (second.kind, second.previous, second.instances) == ("ScaleOut", 2, 3)
        assert second.decided_at >= first.decided_at + timedelta(seconds=8)


async def test_bounds_hold_at_once_and_a_setting_takes_its_decision_along_when_it_is_switched_off_or_deleted(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    async with world(kafka, "bounded") as around:
        await asyncio.to_thread(start_service, "autoscaler", evaluate_seconds="0.2")
        await around.publisher.publish(observed("bounded", 1))
        await around.publisher.publish(desired("bounded", setting(minimum=2)))
        await around.until(lambda: len(around.history) == 1)
        await around.publisher.publish(desired("bounded", setting(minimum=3, enabled=False)))
        await around.until(lambda: len(around.history) == 2)
        await around.publisher.publish(observed("bounded", 1))
        await around.publisher.publish(desired("bounded", setting(minimum=2)))
        await around.until(lambda: len(around.history) == 3)
        await around.publisher.delete(EndpointDesired.TOPIC, "bounded")
        await around.until(lambda: len(around.history) == 4)
        assert around.changes() == [("Bounds", 1, 2), None, ("Bounds", 1, 2), None]


async def test_malformed_samples_and_state_are_parked_and_the_others_go_on(
    kafka: KafkaSettings, start_service: StartService, tmp_path: Path
) -> None:
    letters: list[DeadLetter] = []
    parked = asyncio.Event()

    def park(_: Record, letter: Message) -> None:
        assert isinstance(letter, DeadLetter)
        letters.append(letter)
        parked.set()

    async with world(kafka, "malformed") as around:
        reader = Reader(kafka, [Tail("deadletter.autoscaler", park)], DeadLetters(around.publisher, "studio"))
        await asyncio.wait_for(reader.start(), PATIENCE)
        await asyncio.to_thread(start_service, "autoscaler", evaluate_seconds="0.2")
        raw = AIOKafkaProducer(**kafka.client())
        await raw.start()
        for topic, kind, value in (
            (LoadSample.TOPIC, LoadSample.TYPE, b'{"endpoint": "malformed", "deployment": "blue", "requests": -5}'),
            (EndpointDesired.TOPIC, EndpointDesired.TYPE, b"\xff"),
        ):
            await raw.send_and_wait(topic, value, key=b"malformed", headers=[("ce_type", kind.encode())])
        await raw.stop()
        await around.publisher.publish(desired("malformed", setting(minimum=2)))
        await around.until(lambda: len(around.history) == 1)
        async with asyncio.timeout(PATIENCE):
            while len(letters) < 2:
                parked.clear()
                await parked.wait()
        await reader.stop()
        port = json.loads((tmp_path / "run" / "autoscaler.json").read_text())["health_port"]
        address = f"http://127.0.0.1:{port}/metrics"
        metrics = await asyncio.to_thread(lambda: urllib.request.urlopen(address).read().decode())
    assert {letter.topic for letter in letters} == {LoadSample.TOPIC, EndpointDesired.TOPIC}
    assert 'endpunkt_autoscaler_decisions_total{kind="Bounds"} 1.0' in metrics
    assert "endpunkt_autoscaler_holding{" in metrics
