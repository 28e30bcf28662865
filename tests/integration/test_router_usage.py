"""Usage from requests to rollups, by real processes: what a kill takes along is seen, and nothing else is lost."""

import asyncio
import hashlib
import json
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
from tests.integration.test_router import (
    KEY,
    PATIENCE,
    QUICK,
    Behaviour,
    StartService,
    World,
    deployment,
    eventually,
    world_of,
)

from contracts.log import DeadLetters, KafkaSettings, Publisher, Reader, Table
from contracts.messages import EndpointDesired, EndpointKey, EndpointKeys, OnlineEndpointSpec, UsageRollup
from endpunkt_infra.kafka.broker import Broker
from endpunkt_infra.services import ServiceProcess
from endpunkt_infra.topics import make_topics


async def serve(world: World, name: str) -> Behaviour:
    model = Behaviour()
    await world.observe(name, {"blue": {"b": await world.model(model)}})
    await world.desire(name, {"blue": 100}, {"blue": deployment()})
    await world.until_status(200, name)
    return model


class Books:
    """The rollups of one endpoint."""

    def __init__(self, kafka: KafkaSettings, endpoint: str):
        self._endpoint, self._changed = endpoint, asyncio.Event()
        self._table = Table(UsageRollup, lambda _, __: self._changed.set())
        self._publisher = Publisher(kafka, "test")
        self._reader = Reader(kafka, [self._table], DeadLetters(self._publisher, "studio"))

    async def __aenter__(self) -> "Books":
        await self._publisher.start()
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()
        await self._publisher.stop()

    def total(self) -> tuple[int, int]:
        """Requests, and records that are missing."""
        mine = [rollup for rollup in self._table.entries.values() if rollup.endpoint == self._endpoint]
        return sum(rollup.quantities["requests"] for rollup in mine), sum(rollup.lost for rollup in mine)

    async def until(self, requests: int) -> int:
        """Wait until so many are metered; returns how many records are missing."""
        async with asyncio.timeout(PATIENCE):
            while self.total()[0] != requests:
                self._changed.clear()
                await self._changed.wait()
        return self.total()[1]


def lost(metering: ServiceProcess) -> float:
    run = json.loads((metering.home / "run" / "metering.json").read_text())
    with urllib.request.urlopen(f"http://127.0.0.1:{run['health_port']}/metrics", timeout=PATIENCE) as answer:
        page = answer.read().decode()
    [line] = [each for each in page.splitlines() if each.startswith("endpunkt_metering_lost_records_total ")]
    return float(line.split(" ")[1])


async def test_a_stop_loses_nothing_and_a_kill_loses_one_interval_that_metering_sees(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    metering = await asyncio.to_thread(start_service, "metering")
    long = {"router_port": "0", "usage_seconds": "3600"}  # an interval ends with the process
    router = await asyncio.to_thread(start_service, "router", **QUICK)
    async with world_of(kafka, router) as world, Books(kafka, "gap") as books:
        model = await serve(world, "gap")
        for _ in range(3):  # stopped, and started again
            assert await asyncio.to_thread(world.router.stop) == 0
            assert await books.until(model.requests) == 0
            world.router = await asyncio.to_thread(start_service, "router", **QUICK)
            assert (await world.score("gap"))[0] == 200
        assert await books.until(model.requests) == 0
        assert await asyncio.to_thread(world.router.stop) == 0

        world.router = await asyncio.to_thread(start_service, "router", **QUICK)
        assert (await world.score("gap"))[0] == 200
        told = model.requests
        assert await books.until(told) == 0  # this interval is told, and the next one is not
        await asyncio.to_thread(world.router.kill)
        world.router = await asyncio.to_thread(start_service, "router", **long)
        assert (await world.score("gap"))[0] == 200
        assert await asyncio.to_thread(world.router.stop) == 0
        assert await books.until(told + 1) == 1
        assert await asyncio.to_thread(lost, metering) == 1


async def test_what_a_stop_could_not_send_is_sent_at_the_next_start(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "kafka", port=0)
    kafka = KafkaSettings(await asyncio.to_thread(broker.start))
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        **{f"ENDPUNKT_{name.upper()}": value for name, value in QUICK.items()},
    }
    router, metering = (ServiceProcess(name, tmp_path, environment) for name in ("router", "metering"))
    try:
        await make_topics(kafka)
        router.start()
        await asyncio.to_thread(router.wait_ready)
        async with world_of(kafka, router) as world:
            model = await serve(world, "alone")
            await world.until(
                lambda: sum(each.quantities["requests"] for each in world.usage("alone")) == model.requests
            )
            await asyncio.to_thread(broker.stop)
            for _ in range(20):
                assert (await world.score("alone"))[0] == 200
            assert await asyncio.to_thread(router.stop) == 0
            assert "waits on disk" in router.log.read_text()
            [file] = (tmp_path / "usage").glob("*.json")
            assert file.stat().st_mode & 0o777 == 0o600
            await asyncio.to_thread(broker.start)
            router.start()
            await asyncio.to_thread(router.wait_ready)
            metering.start()
            async with Books(kafka, "alone") as books:
                assert await books.until(model.requests) == 0

                async def nothing_is_left() -> bool:
                    return json.loads(file.read_text())["intervals"] == []

                await eventually(nothing_is_left)
                # Nothing comes twice when it is all sent again.
                await asyncio.to_thread(router.kill)
                router.start()
                await asyncio.to_thread(router.wait_ready)
                assert (await world.score("alone"))[0] == 200
                assert await asyncio.to_thread(router.stop) == 0
                assert await books.until(model.requests) == 0
    finally:
        router.stop()
        if metering.process is not None:
            metering.stop()
        broker.stop()


async def test_an_endpoint_that_is_not_public_answers_on_the_private_port_that_a_setting_opens(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    without = await asyncio.to_thread(start_service, "router", **QUICK)
    async with world_of(kafka, without) as world:
        await world.observe("inside", {"blue": {"b": await world.model(Behaviour())}})
        now = datetime.now(UTC)
        key = EndpointKey(digest=hashlib.sha256(KEY.encode()).hexdigest(), sealed="-")
        await world._publisher.publish(
            EndpointDesired(
                endpoint="inside",
                generation=1,
                created_at=now,
                updated_at=now,
                spec=OnlineEndpointSpec(public_network_access="disabled"),
                keys=EndpointKeys(primary=key, secondary=key),
                traffic={"blue": 100},
                deployments={"blue": deployment()},
            )
        )
        await world.until_status(403, "inside")
        _, _, refusal = await world.score("inside")
        assert refusal["error"]["code"] == "PublicNetworkAccessDisabled"
        assert "ENDPUNKT_PRIVATE_PORT" in refusal["error"]["message"]
        assert "private_scoring" not in without.readiness()["addresses"]
        assert await asyncio.to_thread(without.stop) == 0

        world.router = await asyncio.to_thread(start_service, "router", private_port="0", **QUICK)
        addresses: dict[str, Any] = world.router.readiness()["addresses"]
        headers = {"Authorization": f"Bearer {KEY}"}

        async def status(address: str) -> int:
            answer: aiohttp.ClientResponse
            async with world.session.post(f"{address}/inside/score", json={}, headers=headers) as answer:
                return answer.status

        assert await status(addresses["scoring"]) == 403
        assert await status(addresses["private_scoring"]) == 200
