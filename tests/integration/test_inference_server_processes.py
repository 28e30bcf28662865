"""WORKER_COUNT: several processes behind one listener, as real processes."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.integration.instances import DEADLINE, ServerProcess

SCRIPT = """
import os, signal
print("imported")
def init(): print("initialised")
def run(data):
    if data == "die": os._exit(9)
    if data == "stop": os.kill(os.getpid(), signal.SIGSTOP)
    if data == "wait":
        print("run waits in", os.getpid())
        with open(os.environ["GATE"]) as gate: gate.read()
    return os.getpid()
"""

Serve = Callable[..., ServerProcess]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    servers: list[ServerProcess] = []
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def start(script: str = SCRIPT, **environ: str) -> ServerProcess:
        servers.append(ServerProcess(tmp_path, script, **{"WORKER_COUNT": "2", "GATE": str(gate)} | environ))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.wait()


def wait_for_workers(server: ServerProcess, count: int) -> None:
    """Until so many have become ready since the start."""
    text = "ready for serving traffic"
    with server._changed:
        assert server._changed.wait_for(lambda: server.log.count(text) == count, DEADLINE), server.log


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def looks(pid: int) -> int:
    """How often the threads of a process have gone to sleep: one that waits for its turn looks up again and again."""
    tasks = Path(f"/proc/{pid}/task").glob("*/status")
    return sum(int(re.findall(r"^voluntary_ctxt_switches:\t(\d+)", task.read_text(), re.M)[0]) for task in tasks)


def score(server: ServerProcess, body: str) -> int:
    pid: int = json.loads(server.ask("POST", "/score", body)[1])
    return pid


@pytest.mark.parametrize(("preload", "imports"), [("", 2), ("true", 1)])
def test_each_worker_serves_and_none_waits_for_the_other(serve: Serve, preload: str, imports: int) -> None:
    server = serve(WORKER_PRELOAD=preload)
    wait_for_workers(server, 2)
    assert server.ask("GET", "/")[1] == b"Healthy"
    deadline = time.monotonic() + 30
    while server.status()["state"] != "ready":  # a worker listens a moment before its parent says so
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert server.status()["pid"] == server.process.pid
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(score, server, "wait")
        server.wait_for_log("run waits")
        others = {score(server, "go") for _ in range(10)}
        assert server.ask("GET", "/")[1] == b"Healthy"
        (server.status_file.parent / "gate").write_text("go")
        assert {waits.result(DEADLINE)} | others == set(children(server.process.pid))
    assert len(others) == 1
    assert server.log.splitlines().count("imported") == imports
    assert server.log.splitlines().count("initialised") == 2


def test_a_busy_worker_leaves_connections_to_an_idle_one_that_is_slow(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(score, server, "wait")
        server.wait_for_log("run waits")
        busy = int(server.log.partition("run waits in ")[2].split()[0])
        (idle,) = set(children(server.process.pid)) - {busy}
        os.kill(idle, signal.SIGSTOP)
        looked = looks(busy)
        goes = threads.submit(score, server, "go")
        while looks(busy) < looked + 5:
            time.sleep(0.005)
        os.kill(idle, signal.SIGCONT)
        assert goes.result(DEADLINE) == idle
        (server.status_file.parent / "gate").write_text("go")
        assert waits.result(DEADLINE) == busy


def test_lines_of_two_workers_do_not_mix(serve: Serve) -> None:
    server = serve("def init(): ...\ndef run(data): print(*range(200)); return 1", PYTHONUNBUFFERED="1")
    wait_for_workers(server, 2)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            threads.submit(server.ask, "POST", "/score", "x")
    line = " ".join(map(str, range(200)))
    server.wait_for_log(line, times=100)
    assert server.log.splitlines().count(line) == 100


def test_a_worker_keeps_no_more_connections_than_it_can_run(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    with contextlib.ExitStack() as stack:
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=DEADLINE) for _ in range(6)]
        kept = 0
        for connection in connections:
            stack.callback(connection.close)
            connection.request("POST", "/score", "go")
        for connection in connections:
            response = connection.getresponse()
            response.read()
            kept += response.getheader("Connection") != "close"
    assert 1 <= kept <= 2


def test_a_worker_that_dies_is_replaced(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    before = set(children(server.process.pid))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        server.ask("POST", "/score", "die")
    server.wait_for_log("ended with exit code 9; another one is started.")
    wait_for_workers(server, 3)
    after = set(children(server.process.pid))
    assert len(after) == 2
    assert len(after - before) == 1
    assert score(server, "go") in after
    assert server.stop() == 0


def test_workers_that_die_again_and_again_end_the_instance(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("from inference_server import deaths\ndeaths.FIRST_WAIT_SECONDS = 0\n")
    server = serve(PYTHONPATH=str(tmp_path))
    for died in range(7):
        wait_for_workers(server, 2 + died)
        os.kill(children(server.process.pid)[0], signal.SIGKILL)
    assert server.wait() == 4
    status = server.status()
    assert (status["state"], status["code"]) == ("failed", "InternalServerError")
    assert "died again and again, the last one, " in status["message"]
    assert "by signal 9: the machine's or the instance's memory was probably used up" in status["message"]
    assert server.log.count("another one is started") == 6


def test_a_worker_that_is_silent_is_replaced(serve: Serve) -> None:
    server = serve(WORKER_TIMEOUT="1")
    wait_for_workers(server, 2)
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        server.ask("POST", "/score", "stop")
    server.wait_for_log("was silent for 1 s (WORKER_TIMEOUT)")
    wait_for_workers(server, 3)
    assert score(server, "go") in children(server.process.pid)


def test_a_long_call_is_not_silence(serve: Serve) -> None:
    server = serve("import time\ndef init(): ...\ndef run(data): time.sleep(2.5); return 'slept'", WORKER_TIMEOUT="1")
    assert server.ask("POST", "/score", "x")[1] == b'"slept"'
    assert "silent" not in server.log


@pytest.mark.parametrize("preload", ["", "true"])
@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("def init(): raise OSError('no model')\ndef run(data): ...", "UserScriptInitFailed", "OSError: no model"),
        (
            "import os\ndef init(): os.mkdir(os.environ['AML_APP_ROOT'] + '/once')\ndef run(data): ...",
            "UserScriptInitFailed",
            "FileExistsError",
        ),
        ("import nowhere", "UserScriptImportError", "No module named 'nowhere'"),
        ("def init(): ...", "UserScriptFunctionNotFound", "does not have a run() function defined."),
        ("import os\ndef init(): os._exit(9)\ndef run(data): ...", "UserScriptInitFailed", "ended with exit code 9"),
        ("import os\ndef init(): os.abort()\ndef run(data): ...", "UserScriptInitFailed", "ended by signal 6"),
    ],
)
def test_a_worker_that_cannot_start_ends_everything(
    serve: Serve, script: str, code: str, says: str, preload: str
) -> None:
    server = serve(script, WORKER_PRELOAD=preload)
    assert server.wait() == 3
    status = server.status()
    assert (status["state"], status["code"]) == ("failed", code)
    assert says in status["message"]


def test_a_worker_that_takes_too_long_to_start(serve: Serve) -> None:
    script = "import time\ndef init(): time.sleep(600)\ndef run(data): ..."
    server = serve(script, WORKER_TIMEOUT="1")
    assert server.wait() == 3
    assert "took longer to start" in server.status()["message"]
    assert "in init" in server.log  # its stack


@pytest.mark.parametrize(
    ("script", "variables", "where"),
    [
        ("import time\ndef init(): time.sleep(600)\ndef run(data): ...", {"WORKER_COUNT": "1"}, "in init"),
        ("import time; time.sleep(600)", {"WORKER_COUNT": "1"}, "in <module>"),
        ("import time; time.sleep(600)", {"WORKER_PRELOAD": "true"}, "in <module>"),
    ],
)
def test_a_process_that_nothing_watches_and_that_takes_too_long_to_start(
    serve: Serve, script: str, variables: dict[str, str], where: str
) -> None:
    server = serve(script, WORKER_TIMEOUT="1", **variables)
    assert server.wait() == 3
    status = server.status()
    assert (status["state"], status["code"]) == ("failed", "UserScriptInitFailed")
    assert "took longer than 1 s (WORKER_TIMEOUT)" in status["message"]
    assert f'score.py", line {script.count(chr(10)) or 1} {where}' in server.log  # its stack


def test_a_start_in_time_is_not_cut_short(serve: Serve) -> None:
    slow = "import time\ndef init(): ...\ndef run(data): time.sleep(1.5); return 'slept'"
    server = serve(slow, WORKER_COUNT="1", WORKER_TIMEOUT="1")
    assert server.ask("POST", "/score", "x")[1] == b'"slept"'
    assert server.stop() == 0


def test_draining_finishes_what_is_in_flight(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(server.ask, "POST", "/score", "wait")
        server.wait_for_log("run waits")
        server.process.terminate()
        server.wait_for_log("Draining: 1 connections")
        (server.status_file.parent / "gate").write_text("go")
        response, _ = waits.result(DEADLINE)
    assert (response.status, response.getheader("Connection")) == (200, "close")
    assert server.wait() == 0


def test_a_signal_while_workers_start(serve: Serve) -> None:
    server = serve("import time\ndef init(): print('starts'); time.sleep(600)\ndef run(data): ...")
    server.wait_for_log("starts")
    server.process.terminate()
    assert server.wait() == 0


def test_a_second_signal_exits_at_once(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    with ThreadPoolExecutor() as threads:
        waits = threads.submit(server.ask, "POST", "/score", "wait")
        server.wait_for_log("run waits")
        server.process.terminate()
        server.wait_for_log("Draining: 1 connections")
        server.process.terminate()
        assert server.wait() == 143
        assert waits.exception(DEADLINE) is not None


def test_workers_do_not_outlive_the_process_that_started_them(serve: Serve) -> None:
    server = serve()
    wait_for_workers(server, 2)
    workers = [os.pidfd_open(pid) for pid in children(server.process.pid)]
    server.process.send_signal(signal.SIGKILL)
    for worker in workers:
        with os.fdopen(worker):
            assert select.select([worker], [], [], DEADLINE)[0], "a worker lives on"
