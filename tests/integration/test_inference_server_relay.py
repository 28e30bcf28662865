"""The online server when the main thread has taken the loop: what a quick script is served like, and that one slow call
of it then holds up nobody else.

`run()` tells by its own stack whether it was called from the loop. Calls that must be caught in the middle read a named
pipe or spin until a file is there.
"""

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import pytest
from tests.integration.instances import DEADLINE, ServerProcess

SCRIPT = """
import os, sys, time
def init(): os.mkfifo(os.environ["GATE"])
def run(data):
    if data.startswith("seen"):
        with open(os.environ["SEEN"], "a") as seen: seen.write(data + "\\n")
    if data in ("read", "sleep", "spin"): print("run waits")
    if data == "read":
        with open(os.environ["GATE"]) as gate: gate.read()
    if data == "sleep":
        while not os.path.exists(os.environ["GATE"] + ".open"): time.sleep(0.001)
    if data == "spin":
        while not os.path.exists(os.environ["GATE"] + ".open"): pass
    if data == "stream": return (piece for piece in ("a", "b"))
    frame, names = sys._getframe(), []
    while frame is not None:
        names.append(frame.f_code.co_name)
        frame = frame.f_back
    return [data, "turn" in names]
"""


class Quick(ServerProcess):
    def __init__(self, folder: Path, script: str, **environ: str):
        self.gate, self.seen = folder / "gate", folder / "seen"
        super().__init__(folder, script, GATE=str(self.gate), SEEN=str(self.seen), **environ)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def hurry(self) -> None:
        """Asks until `run()` is called from the loop."""
        deadline = time.monotonic() + DEADLINE
        with contextlib.closing(self.connect()) as connection:
            while time.monotonic() < deadline:
                connection.request("POST", "/score", "quick")
                if json.loads(connection.getresponse().read()) == ["quick", True]:
                    return
        raise AssertionError("the main thread never took the loop")

    def open_gate(self, how: str) -> None:
        if how == "read":
            self.gate.write_text("go")
        else:
            self.gate.with_name("gate.open").touch()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Quick]]:
    servers: list[Quick] = []

    def start(script: str = SCRIPT, **environ: str) -> Quick:
        servers.append(Quick(tmp_path, script, **environ))
        return servers[-1]

    yield start
    for server in servers:
        server.process.kill()
        server.wait()


def post(body: bytes) -> bytes:
    return b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("how", ["read", "sleep", "spin"])
def test_health_is_answered_during_any_run(serve: Callable[..., Quick], how: str) -> None:
    server = serve()
    with contextlib.closing(server.connect()) as kept, ThreadPoolExecutor() as threads:
        kept.request("GET", "/")
        assert kept.getresponse().read() == b"Healthy"
        server.hurry()
        slow = threads.submit(server.ask, "POST", "/score", how)
        server.wait_for_log("run waits")
        for _ in range(3):
            kept.request("GET", "/")
            assert kept.getresponse().read() == b"Healthy"
            assert server.ask("GET", "/")[1] == b"Healthy"
        assert not slow.done()
        next_one = threads.submit(server.ask, "POST", "/score", "next")
        server.open_gate(how)
        assert json.loads(slow.result(DEADLINE)[1])[0] == how
        assert json.loads(next_one.result(DEADLINE)[1])[0] == "next"
    server.hurry()  # it is quick again


def test_a_stream_of_a_quick_script(serve: Callable[..., Quick]) -> None:
    server = serve()
    server.hurry()
    assert server.ask("POST", "/score", "stream")[1] == b"ab"
    server.hurry()


def test_a_client_that_left_while_a_run_was_slow_is_not_run_for(serve: Callable[..., Quick]) -> None:
    server = serve()
    server.hurry()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(server.ask, "POST", "/score", "read")
        server.wait_for_log("run waits")
        with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as gone:
            gone.sendall(post(b"seen 1"))
            assert server.ask("GET", "/")[1] == b"Healthy"
        assert server.ask("GET", "/")[1] == b"Healthy"
        server.open_gate("read")
        slow.result(DEADLINE)
    server.ask("POST", "/score", "seen 2")
    assert server.seen.read_text() == "seen 2\n"


@pytest.mark.parametrize("leave", [socket.socket.close, lambda client: client.shutdown(socket.SHUT_WR)])
def test_a_client_that_left_before_its_request_was_read_is_not_run_for(
    serve: Callable[..., Quick], leave: Callable[[socket.socket], None]
) -> None:
    server = serve()
    server.hurry()
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as gone:
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED | os.WNOWAIT)
        gone.sendall(post(b"seen 1"))
        leave(gone)
        server.process.send_signal(signal.SIGCONT)
        server.ask("POST", "/score", "seen 2")
    assert server.seen.read_text() == "seen 2\n"


def test_pipelined_requests_of_one_client_do_not_hold_up_another(serve: Callable[..., Quick]) -> None:
    server = serve()
    server.hurry()
    with socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.sendall(b"".join(post(b"%03d" % number) for number in range(200)))
        assert server.ask("GET", "/")[1] == b"Healthy"
        answers = b""
        while answers.count(b"HTTP/1.1 200 OK") < 200 or not answers.endswith(b"]"):
            answers += client.recv(65536)
    found = [answers.index(b'["%03d", ' % number) for number in range(200)]
    assert found == sorted(found)


def test_a_slow_call_of_a_quick_script_is_interrupted_when_its_time_is_up(serve: Callable[..., Quick]) -> None:
    server = serve(SCORING_TIMEOUT_MS="200")
    server.hurry()
    response, body = server.ask("POST", "/score", "read")
    assert (response.status, json.loads(body)) == (500, {"message": "Scoring timeout after 200 ms"})
    server.hurry()


def test_many_clients_of_a_quick_script(serve: Callable[..., Quick]) -> None:
    server = serve()

    def ask(name: str) -> list[str]:
        with contextlib.closing(server.connect()) as connection:
            answers = []
            for _ in range(100):
                connection.request("POST", "/score", name)
                answers.append(json.loads(connection.getresponse().read())[0])
            return answers

    names = [f"client {number}" for number in range(8)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, names)) == [[name] * 100 for name in names]
    assert server.stop() == 0


def test_draining_a_quick_script(serve: Callable[..., Quick]) -> None:
    server = serve()
    server.hurry()
    with ThreadPoolExecutor() as threads:
        slow = threads.submit(server.ask, "POST", "/score", "read")
        server.wait_for_log("run waits")
        server.process.terminate()
        server.wait_for_log("Draining")
        server.open_gate("read")
        response, body = slow.result(DEADLINE)
    assert (json.loads(body)[0], response.getheader("Connection")) == ("read", "close")
    assert server.wait() == 0


def test_asyncio_and_signals_in_a_quick_run(serve: Callable[..., Quick]) -> None:
    server = serve(
        "import asyncio, signal, threading\n"
        "async def later(data): return data\n"
        "def init(): ...\n"
        "def run(data):\n"
        "  assert threading.current_thread() is threading.main_thread()\n"
        "  signal.signal(signal.SIGUSR1, lambda *_: None)\n"
        "  return asyncio.run(later(data))\n"
    )
    with contextlib.closing(server.connect()) as connection:
        for number in range(100):
            connection.request("POST", "/score", str(number))
            assert json.loads(connection.getresponse().read()) == str(number)
    assert server.stop() == 0


NOW_AND_THEN = """
import itertools, time
count = itertools.count()
def init(): pass
def run(data):
    if next(count) % 100 == 0: time.sleep(0.0015)
    return data
"""


class Asking(asyncio.Protocol):
    """A client that asks again with each answer, until it has had enough of them."""

    def __init__(self, enough: int):
        self.left = enough
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.ask()

    def ask(self) -> None:
        self.transport.write(b"POST /score HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")

    def data_received(self, data: bytes) -> None:
        assert data.startswith(b"HTTP/1.1 200 ")
        assert data.endswith(b'\r\n\r\n"hi"')
        self.left -= 1
        if self.left:
            self.ask()
        else:
            self.done.set_result(None)


async def test_the_loop_goes_to_and_fro_under_many_clients_and_everybody_is_answered(
    serve: Callable[..., Quick],
) -> None:
    """Not every call is quick: the main thread takes and loses the loop all the time, with requests waiting."""
    server = serve(NOW_AND_THEN)
    loop = asyncio.get_running_loop()
    clients = [
        (await loop.create_connection(lambda: Asking(enough=600), "127.0.0.1", server.port))[1] for _ in range(64)
    ]
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*(client.done for client in clients))
    for client in clients:
        client.transport.close()
