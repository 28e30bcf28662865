"""Several router processes on one port: one is killed, all are stopped, whoever looks after them is killed."""

import asyncio
import json
import os
import signal
import ssl
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
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

from contracts.log import KafkaSettings
from contracts.shell.processes import ProcessIdentity
from contracts.shell.tls import ca_path
from endpunkt_infra.services import ServiceProcess

TWO = {**QUICK, "router_processes": "2"}
NAME = "many"


class Link:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self._reader, self._writer = reader, writer
        self.port = writer.get_extra_info("sockname")[1]
        self.statuses: list[int] = []
        self.broken = False

    async def ask(self) -> bool:
        """One request; whether it was answered. A broken connection stays so."""
        lines = (f"POST /{NAME}/score HTTP/1.1", "Host: localhost", f"Authorization: Bearer {KEY}", "Content-Length: 2")
        try:
            async with asyncio.timeout(PATIENCE):
                self._writer.write("\r\n".join([*lines, "", "{}"]).encode())
                head = (await self._reader.readuntil(b"\r\n\r\n")).decode()
                length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
                await self._reader.readexactly(int(length.partition(":")[2]))
        except (OSError, asyncio.IncompleteReadError):
            self.broken = True
            return False
        self.statuses.append(int(head.split(" ")[1]))
        return True

    def close(self) -> None:
        self._writer.close()


class Many:
    """Two router processes and the endpoint that they serve."""

    def __init__(self, world: World):
        self.world, self.home, self.model = world, world.router.home, Behaviour()
        self.port = int(world.url.rpartition(":")[2])
        self.tls = ssl.create_default_context(cafile=ca_path(self.home))

    async def start(self) -> None:
        await self.world.observe(NAME, {"blue": {"b": await self.world.model(self.model)}})
        roomy: dict[str, Any] = {
            "max_concurrent_requests_per_instance": 200,
            "max_queue_wait_ms": 5000,
            "request_timeout_ms": 1000 * PATIENCE,
        }
        await self.world.desire(NAME, {"blue": 100}, {"blue": deployment(**roomy)})
        await eventually(self._both_serve)
        self.before = self.model.requests

    async def _both_serve(self) -> bool:
        """Each process reads the log for itself."""
        link = await self.link()
        await link.ask()
        link.close()
        entries = await asyncio.to_thread(self.metric, "endpunkt_router_ready_instances")
        return link.statuses == [200] and entries == {"1": 1, "2": 1}

    async def link(self) -> Link:
        return Link(*await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls, server_hostname="localhost"))

    def pid(self, number: int) -> int:
        return int(json.loads((self.home / "run" / f"router-{number}.json").read_text())["pid"])

    def served_by(self, pid: int) -> set[int]:
        """The clients' ports of the connections that a process has."""
        return {int(row[2].rpartition(":")[2], 16) for row in self._sockets(pid) if row[3] != "0A"}

    def _sockets(self, pid: int) -> list[list[str]]:
        """A process's rows of /proc/net/tcp on the router's port (proc_net_tcp(5))."""
        held = set()
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                held.add(os.readlink(descriptor))
            except FileNotFoundError:
                continue
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        return [row for row in rows if row[1].endswith(f":{self.port:04X}") and f"socket:[{row[9]}]" in held]

    def listens(self, pid: int) -> set[str]:
        """The listening sockets that a process has."""
        return {row[9] for row in self._sockets(pid) if row[3] == "0A"}

    def still_open(self, sockets: set[str]) -> bool:
        """Whether the kernel still has them: a killed process may be gone before its sockets are."""
        return any(line.split()[9] in sockets for line in Path("/proc/net/tcp").read_text().splitlines())

    def metric(self, name: str) -> dict[str, float]:
        """A metric's sums by process."""
        run = json.loads((self.home / "run" / "router.json").read_text())
        with urllib.request.urlopen(f"http://127.0.0.1:{run['health_port']}/metrics", timeout=PATIENCE) as answer:
            page = answer.read().decode()
        sums: Counter[str] = Counter()
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if sample.name == name:
                    sums[sample.labels["process"]] += sample.value
        return dict(sums)

    def usage(self) -> dict[tuple[str, int, int], int]:
        """Requests by (source, epoch, sequence)."""
        return {
            (each.source, each.epoch, each.sequence): each.quantities["requests"] for each in self.world.usage(NAME)
        }


async def test_a_process_that_is_killed_takes_its_own_connections_along_and_is_replaced(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    router = await asyncio.to_thread(start_service, "router", **TWO)
    async with world_of(kafka, router) as world:
        many = Many(world)
        await many.start()
        killed = many.pid(1)
        links = [await many.link() for _ in range(24)]
        assert all(await asyncio.gather(*(link.ask() for link in links)))
        ports = {link.port for link in links}
        lost, kept = many.served_by(killed) & ports, many.served_by(many.pid(2)) & ports
        assert lost
        assert kept
        assert lost | kept == ports
        listening = many.listens(killed)
        assert listening
        stop, dead = asyncio.Event(), asyncio.Event()
        fresh = Counter[tuple[bool, bool]]()  # whether it began after the death, and whether it was answered

        async def load(link: Link) -> None:
            while not stop.is_set() and await link.ask():
                pass

        async def strangers() -> None:
            while not stop.is_set():
                after, answered = dead.is_set(), False
                try:
                    link = await many.link()
                    answered = await link.ask()
                    link.close()
                except OSError:
                    pass
                fresh[after, answered] += 1

        running = [asyncio.create_task(load(link)) for link in links]
        running += [asyncio.create_task(strangers()) for _ in range(2)]
        await many.model.seen(many.model.requests + 200)
        os.kill(killed, signal.SIGKILL)

        async def is_dead() -> bool:
            return not many.still_open(listening)

        await eventually(is_dead)
        dead.set()

        async def is_replaced() -> bool:
            state = await asyncio.to_thread(router.readiness)
            assert state["ready"]  # it serves all the time
            return many.pid(1) != killed and not state["warnings"]

        await eventually(is_replaced)
        seen = fresh[True, True]

        async def served_on() -> bool:
            return fresh[True, True] > seen + 20

        await eventually(served_on)
        late = [await many.link() for _ in range(24)]
        assert all(await asyncio.gather(*(link.ask() for link in late)))
        assert many.served_by(many.pid(1)) & {link.port for link in late}  # it has its part of the new ones
        stop.set()
        await asyncio.gather(*running)
        assert {link.port for link in links if link.broken} == lost
        assert {status for link in links for status in link.statuses} == {200}
        assert fresh[True, False] == 0
        assert fresh[True, True] > 20
        assert many.metric("endpunkt_router_process_deaths_total") == {"1": 1, "2": 0}
        assert await asyncio.to_thread(router.stop) == 0


async def test_a_stop_finishes_every_request_and_the_usage_of_all_processes_adds_up(
    kafka: KafkaSettings, start_service: StartService
) -> None:
    router = await asyncio.to_thread(start_service, "router", **TWO)
    async with world_of(kafka, router) as world:
        many = Many(world)
        await many.start()
        links = [await many.link() for _ in range(20)]
        for _ in range(10):
            assert all(await asyncio.gather(*(link.ask() for link in links)))
        handed = await asyncio.to_thread(many.metric, "endpunkt_router_handed_total")
        assert sum(handed.values()) == many.model.requests == many.before + 200
        assert min(handed.values()) > 0

        many.model.opened.clear()
        last = [asyncio.create_task(link.ask()) for link in links]
        await many.model.seen(many.before + 220)
        router.ask_to_stop()

        async def closed() -> bool:
            try:
                (await many.link()).close()
            except OSError:
                return True
            return False

        await eventually(closed)
        assert not any(each.done() for each in last)
        many.model.opened.set()
        assert all(await asyncio.gather(*last))
        assert {status for link in links for status in link.statuses} == {200}
        assert await asyncio.to_thread(router.stop) == 0
        await world.until(lambda: sum(many.usage().values()) == many.model.requests)
        records = world.usage(NAME)
        assert {each.source for each in records} == {"router-1-1", "router-1-2"}
        for source in ("router-1-1", "router-1-2"):
            own = sorted((each.sequence, each.open) for each in records if each.source == source)
            assert own == [(number, number < len(own)) for number in range(1, len(own) + 1)]


async def test_when_the_one_that_looks_after_them_is_killed_they_finish_and_its_successor_has_the_port(
    kafka: KafkaSettings, start_service: StartService, tmp_path: Path
) -> None:
    router = await asyncio.to_thread(start_service, "router", **TWO)
    async with world_of(kafka, router) as world:
        many = Many(world)
        await many.start()
        orphans = [many.pid(number) for number in (1, 2)]
        link = await many.link()
        many.model.opened.clear()
        asked = asyncio.create_task(link.ask())
        await many.model.seen(many.before + 1)
        await asyncio.to_thread(router.kill)
        # At once, on the same port and with the same sources; the request is still under way.
        world.router = await asyncio.to_thread(start_service, "router", **{**TWO, "router_port": str(many.port)})
        assert [many.pid(number) for number in (1, 2)] != orphans
        other = await many.link()
        asked_too = asyncio.create_task(other.ask())
        await many.model.seen(many.before + 2)
        many.model.opened.set()
        assert await asked
        assert await asked_too
        assert (link.statuses, other.statuses) == ([200], [200])

        async def gone() -> bool:
            return not any(ProcessIdentity.of(pid) for pid in orphans)

        await eventually(gone)
        assert await asyncio.to_thread(world.router.stop) == 0
        await world.until(lambda: sum(many.usage().values()) == many.model.requests)
        for source in ("router-1-1", "router-1-2"):  # an epoch's records come after those of the one before
            told = [(each.epoch, each.sequence) for each in world.usage(NAME) if each.source == source]
            assert told == sorted(told)


async def test_a_port_that_somebody_else_has_is_an_error_that_names_it(
    kafka: KafkaSettings, start_service: StartService, tmp_path: Path
) -> None:
    first = await asyncio.to_thread(start_service, "router", **TWO)
    port = first.readiness()["addresses"]["scoring"].rpartition(":")[2]
    environment = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "ENDPUNKT_ROUTER_PORT": port}
    second = ServiceProcess("router", tmp_path / "second", {**environment, "ENDPUNKT_ROUTER_PROCESSES": "2"})
    second.start()
    assert second.process is not None
    assert await asyncio.to_thread(second.process.wait, PATIENCE) == 1
    assert "Address already in use" in second.log_tail()
    assert first.readiness()["ready"]
