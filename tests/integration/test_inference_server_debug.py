"""A debugger attaches to a scoring script, as an editor does."""

import importlib.util
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.dap import DebugAdapter
from tests.integration.instances import ServerProcess

SCRIPT = """\
START = "imported"
def init():
    global model
    model = {"weight": 2}
def run(data):
    answer = len(data) * model["weight"]
    return answer
"""
IN_INIT, IN_RUN = 4, 7


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        chosen: int = free.getsockname()[1]
        return chosen


@pytest.fixture
def server(tmp_path: Path, port: int, request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    server = ServerProcess(tmp_path, SCRIPT, AZUREML_DEBUG_PORT=str(port), **request.param)
    yield server
    server.process.kill()
    server.wait()


@pytest.mark.parametrize("server", [{}], indirect=True)
def test_a_request_stops_at_a_breakpoint(server: ServerProcess, port: int, tmp_path: Path) -> None:
    assert server.ask("GET", "/")[1] == b"Healthy"  # nobody has to attach
    with DebugAdapter(port) as debugger:
        assert debugger.attach({tmp_path / "score.py": [IN_RUN]}) == {tmp_path / "score.py": [True]}
        answers: list[bytes] = []
        asking = threading.Thread(target=lambda: answers.append(server.ask("POST", "/score", "four")[1]))
        asking.start()
        stopped = debugger.wait_for("stopped")
        assert stopped["reason"] == "breakpoint"
        assert debugger.frame(stopped)["line"] == IN_RUN
        assert debugger.variables(stopped) | {"data": "'four'", "answer": "8"} == debugger.variables(stopped)
        assert answers == []
        debugger.resume(stopped)
        asking.join(30)
        assert answers == [b"8"]
        debugger.disconnect()
    assert server.ask("POST", "/score", "x")[1] == b"2"


@pytest.mark.parametrize("server", [{"ENDPUNKT_DEBUG_WAIT": "true", "WORKER_COUNT": "2"}], indirect=True)
def test_the_script_waits_for_the_debugger(server: ServerProcess, port: int, tmp_path: Path) -> None:
    server.wait_for_log("Waiting for the debugger")
    assert server.status()["state"] == "starting"
    with DebugAdapter(port) as debugger:
        debugger.attach({tmp_path / "score.py": [IN_INIT]})
        stopped = debugger.wait_for("stopped")
        assert debugger.frame(stopped)["name"] == "init"
        debugger.resume(stopped)
        assert server.ask("GET", "/")[1] == b"Healthy"


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = ServerProcess(tmp_path, SCRIPT, AZUREML_DEBUG_PORT=str(port))
        assert server.wait() == 3
    assert server.status()["code"] == "BadArgument"
    assert f"AZUREML_DEBUG_PORT={port}: debugpy cannot listen" in server.status()["message"]


def test_an_environment_without_debugpy(tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden/sitecustomize.py").write_text("import sys\nsys.modules['debugpy'] = None\n")
    assert importlib.util.find_spec("debugpy") is not None
    server = ServerProcess(tmp_path, SCRIPT, AZUREML_DEBUG_PORT="1", PYTHONPATH=str(tmp_path / "hidden"))
    assert server.wait() == 3
    assert "debugpy is not installed in this environment. Add debugpy" in server.status()["message"]
