"""Several router processes: the parts of a limit, the port that they share, and their metrics as one page."""

import json
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from contracts.log.settings import KafkaSettings
from contracts.messages import EndpointDesired
from router.ports import reserve
from router.settings import RouterSettings
from router.shares import Share, SharedTable, shared
from router.worker_metrics import WorkerMetrics
from router.workers import Worker, Workers

Bench = Any


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_the_parts_add_up_to_the_limit_unless_there_are_too_few_of_it(of: int) -> None:
    for total in range(1, 50):
        parts = [Share(number, of).part(total) for number in range(1, of + 1)]
        assert sum(parts) == max(total, of)
        assert max(parts) - min(parts) <= 1


def limits(desired: EndpointDesired) -> tuple[int, dict[str, str]]:
    [(_, spec)] = desired.online().values()
    assert not isinstance(desired.spec, str)
    return spec.request_settings.max_concurrent_requests_per_instance, dict(desired.spec.properties)


def test_what_is_divided_of_a_document(bench: Bench) -> None:
    documents = bench.documents
    properties = {
        "endpunkt.requests_per_second": "5",
        "endpunkt.connections": "many",
        "endpunkt.sticky": "header:x-session",
        "requests_per_second": "4",
    }
    blue = {"blue": documents.deployment(max_concurrent_requests_per_instance=3)}
    desired = documents.desired(blue, {"blue": 100}, properties=properties)
    assert shared(desired, Share()) is desired
    for number, (most, rate) in {1: (2, "3"), 2: (1, "2")}.items():
        mine = shared(desired, Share(number, 2))
        assert limits(mine) == (most, {**properties, "endpunkt.requests_per_second": rate})
        assert EndpointDesired.model_validate_json(mine.model_dump_json()) == mine
        table: SharedTable[Any, Any] = SharedTable(Share(number, 2))
        table.apply("diabetes", desired, {}, 0.0)
        assert table.entries[b"diabetes"].guard.rate == int(rate)
        assert table.deployments["diabetes", "blue"].route.concurrency == most
    assert limits(desired)[0] == 3  # it is the tables' and stays as it is


def test_how_many_processes_there_are() -> None:
    assert (RouterSettings().processes, RouterSettings().share) == (1, Share(1, 1))
    assert RouterSettings(router_processes=0).processes == len(os.sched_getaffinity(0))
    assert RouterSettings(router_processes=3, router_worker=2).share == Share(2, 3)


def test_what_is_told_of_all_processes() -> None:
    service = Workers(RouterSettings(router_processes=2), KafkaSettings("localhost:9092"))
    assert service.not_ready() == ["its processes"]
    one, two = service._workers = [Worker(number, Path("none"), {}) for number in (1, 2)]
    ready = {"ready": True, "addresses": {"scoring": "https://127.0.0.1:1"}, "warnings": ["Kafka is silent"]}
    one.state = ready
    two.state = {"ready": False, "waiting_for": ["the tables"]}
    assert service.not_ready() == ["process 2: the tables"]
    assert service.addresses() == ready["addresses"]
    service._complete = True  # both were ready once
    two.state, two.deaths = {}, 3
    assert service.not_ready() == []
    kafka, gone = service.warnings()
    assert kafka == "process 1: Kafka is silent"
    assert "process 2 of 2 does not answer" in gone
    one.state = {}
    assert len(service.not_ready()) == 2
    two.state = ready
    assert service.not_ready() == []
    assert service.addresses() == ready["addresses"]


def test_a_reserved_port_is_for_those_that_share_it_and_nobody_else() -> None:
    (held,) = reserve("127.0.0.1", 0)
    address = held.getsockname()
    with held, socket.socket() as alone, socket.socket() as first, socket.socket() as second:
        with pytest.raises(OSError, match="in use"):
            alone.bind(address)
        with pytest.raises(ConnectionRefusedError):  # it does not listen
            socket.create_connection(address)
        for each in (first, second):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            each.bind(address)
            each.listen()
        socket.create_connection(address).close()
        with pytest.raises(OSError, match="in use"):  # another installation of the same user
            reserve(*address)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        reserve(*taken.getsockname())


PAGE = """# HELP endpunkt_router_handed_total Requests
# TYPE endpunkt_router_handed_total counter
endpunkt_router_handed_total{endpoint="a\\"b",deployment="blue"} %d
# HELP endpunkt_router_connections Connections
# TYPE endpunkt_router_connections gauge
endpunkt_router_connections 2.0
"""


@pytest.fixture
def pages() -> Iterator[list[int]]:
    """The health ports of two processes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.path == "/metrics"
            self.send_response(200)
            self.end_headers()
            self.wfile.write((PAGE % self.server.server_port).encode())  # type: ignore[attr-defined]

        def log_message(self, *_: object) -> None: ...

    servers = [HTTPServer(("127.0.0.1", 0), Handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    yield [server.server_port for server in servers]
    for server, thread in zip(servers, threads, strict=True):
        server.shutdown()
        thread.join()
        server.server_close()


def test_metrics_of_all_are_one_page_and_who_does_not_answer_is_left_out(pages: list[int], tmp_path: Any) -> None:
    class Process:
        def __init__(self, pid: int):
            self.pid = pid

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        ports = [*pages, silent.getsockname()[1]]
        workers = []
        for number, port in enumerate(ports, 1):
            file = tmp_path / f"{number}.json"
            file.write_text(json.dumps({"pid": number, "health_port": port}))
            process: Any = Process(number)
            workers.append(Worker(number, file, {}, process, deaths=number, state={"ready": number < 3}))
        workers.append(Worker(4, tmp_path / "4.json", {}))
        (tmp_path / "3.json").write_text(json.dumps({"pid": 99, "health_port": pages[0]}))  # its predecessor's
        registry = CollectorRegistry()
        registry.register(WorkerMetrics(workers, "127.0.0.1"))
        text = generate_latest(registry).decode()
    assert text.count("# TYPE endpunkt_router_handed_total counter") == 1
    samples = {
        (sample.name, sample.labels["process"]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    handed = {process: value for (name, process), value in samples.items() if name == "endpunkt_router_handed_total"}
    assert handed == {"1": pages[0], "2": pages[1]}
    assert [samples["endpunkt_router_process_ready", str(number)] for number in (1, 2, 3, 4)] == [1, 1, 0, 0]
    assert [samples["endpunkt_router_process_deaths_total", str(number)] for number in (1, 2, 3, 4)] == [1, 2, 3, 0]
