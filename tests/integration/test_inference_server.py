"""The online server as a process: real sockets, real signals, real user scripts.

Scripts that must be caught in the middle of `run()` read a named pipe, so that the test decides when they go on.
"""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 30.0

ECHO = """
import json
def init(): print("init was here")
def run(data): return {"got": json.loads(data)}
"""

WAIT = """
import os
def init(): os.mkfifo(os.environ["GATE"])
def run(data):
    with open(os.environ["SEEN"], "a") as seen: seen.write(data + "\\n")
    if data.startswith("wait"):
        print("run waits", flush=True)
        with open(os.environ["GATE"]) as gate: gate.read()
    return data
"""


class Instance:
    """A server process on an inherited listening socket, as the provisioner starts it."""

    def __init__(self, folder: Path, script: str, **environ: str):
        (folder / "score.py").write_text(script)
        self.status_file = folder / "status.json"
        self.gate, self.seen = folder / "gate", folder / "seen"
        variables = {
            "AML_APP_ROOT": str(folder),
            "AZUREML_ENTRY_SCRIPT": "score.py",
            "ENDPUNKT_STATUS_FILE": str(self.status_file),
            "GATE": str(self.gate),
            "SEEN": str(self.seen),
        }
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.port = listener.getsockname()[1]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference_server", "--fd", str(listener.fileno())],
                env=os.environ | variables | environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
                text=True,
            )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()

    @property
    def log(self) -> str:
        return "".join(self._lines)

    def wait_for_log(self, text: str) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: text in self.log, DEADLINE), self.log

    def wait(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = json.loads(self.status_file.read_text())
        return status

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)

    def ask(
        self, method: str, path: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = self.connect()
        with contextlib.closing(connection):
            connection.request(method, path, body, {k.replace("_", "-"): v for k, v in headers.items()})
            response = connection.getresponse()
            return response, response.read()

    def score(self, body: bytes | str) -> bytes:
        return self.ask("POST", "/score", body)[1]

    def raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), DEADLINE)

    def exchange(self, data: bytes) -> bytes:
        """What the server says to these bytes until it closes."""
        with self.raw() as connection:
            connection.sendall(data)
            return read_all(connection)

    def open_gate(self) -> None:
        self.gate.write_text("go")

    def stop_accepting(self) -> None:
        """Sends SIGTERM and returns when the listener is closed."""
        self.process.terminate()
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            try:
                self.raw().close()
            except (ConnectionRefusedError, ConnectionResetError):
                return
        raise AssertionError("the listener is still open")


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    return b"".join(parts)


def background(action: Callable[[], Any]) -> Callable[[], Any]:
    """Starts the action on a thread; the function returned waits for its result."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(action()), daemon=True)
    thread.start()

    def result() -> Any:
        thread.join(DEADLINE)
        return results[0]

    return result


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Instance]]:
    instances: list[Instance] = []

    def start(script: str, **environ: str) -> Instance:
        instances.append(Instance(tmp_path, script, **environ))
        return instances[-1]

    yield start
    for instance in instances:
        instance.process.kill()
        instance.wait()


def test_the_contract_of_a_plain_script(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO)
    response, body = instance.ask("GET", "/")  # waits in the backlog until init() has run
    assert (response.status, body) == (200, b"Healthy")
    assert instance.status() == {"state": "ready", "code": None, "message": None, "pid": instance.process.pid}
    instance.wait_for_log("init was here")

    response, body = instance.ask("POST", "/score", "[1]", x_request_id="R", x_ms_client_request_id="C", TraceId="T")
    assert (response.status, body) == (200, b'{"got": [1]}')
    headers = dict(response.getheaders())
    assert headers.pop("Date")
    assert float(headers.pop("x-ms-run-fn-exec-ms")) >= 0
    assert headers == {
        "Content-Type": "application/json",
        "Content-Length": "12",
        "x-ms-run-function-failed": "False",
        "x-ms-server-version": "endpunkt/0.1.0",
        "x-request-id": "R",
        "x-ms-request-id": "C",
        "x-ms-client-request-id": "C",
        "TraceId": "T",
    }
    assert instance.ask("GET", "/score?a=1&a=x&b=")[1] == b'{"got": {"a": [1, "x"], "b": ""}}'


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "message"),
    [
        ("GET", "/nowhere", {}, 404, "The requested URL was not found on the server. If you entered"),
        ("PUT", "/score", {}, 405, "The method is not allowed for the requested URL."),
        ("POST", "/", {}, 405, "The method is not allowed for the requested URL."),
        ("POST", "/score", {"x_request_id": "x" * 101}, 431, "x-request-id must not exceed 100 characters"),
        ("GET", "/", {"x_ms_client_request_id": "x" * 101}, 431, "x-ms-request-id and x-ms-client-request-id"),
        ("OPTIONS", "/score", {}, 200, None),
        ("HEAD", "/", {}, 200, None),
        ("HEAD", "/score", {}, 405, None),
    ],
)
def test_requests_that_need_no_script(
    serve: Callable[..., Instance], method: str, path: str, headers: dict[str, str], status: int, message: str | None
) -> None:
    response, body = serve(ECHO).ask(method, path, **headers)
    assert response.status == status
    if message is None:
        assert body == b""
    else:
        assert json.loads(body)["message"].startswith(message)
        assert response.getheader("x-ms-run-function-failed") == "False"
        assert response.getheader("x-ms-run-fn-exec-ms") is None


FAILING = """
import json
def init(): pass
def run(data):
    if data == "set": return {1}
    if data == "exit": raise SystemExit(1)
    if data == "late": return (piece for piece in [1])
    if data == "secret": raise ValueError("secret")
    return json.loads(data)
"""
GENERIC = "An unexpected error occurred in scoring script. Check the logs for more info."


@pytest.mark.parametrize(
    ("body", "status", "message", "logged"),
    [
        (b"secret", 500, GENERIC, "ValueError: secret"),
        (b"exit", 500, GENERIC, "SystemExit: 1"),
        (b"late", 500, GENERIC, "TypeError: A response is made of str or bytes, not of int."),
        (b"{nonsense", 500, GENERIC + " The request's body is not JSON: Expecting property name", "JSONDecodeError"),
        (b"set", 500, "run() returned a value that cannot be sent as JSON: Object of type set", "type set"),
        (b"\xff", 400, "Input cannot be decoded as UTF-8: ", None),
    ],
)
def test_scripts_that_fail(
    serve: Callable[..., Instance], body: bytes, status: int, message: str, logged: str | None
) -> None:
    instance = serve(FAILING)
    response, answer = instance.ask("POST", "/score", body)
    assert response.status == status
    assert json.loads(answer)["message"].startswith(message)
    assert b"secret" not in answer
    assert response.getheader("x-ms-run-function-failed") == str(status == 500)
    if logged:
        instance.wait_for_log(logged)
        instance.wait_for_log(f"x-request-id: {response.getheader('x-request-id')}")
    assert instance.score("[1]") == b"[1]"


RAW = """
from azureml.contrib.services.aml_request import AMLRequest, rawhttp
from azureml_inference_server_http.api.aml_response import AMLResponse
def init(): pass
@rawhttp
def run(request):
    assert isinstance(request, AMLRequest)
    if request.method == "OPTIONS": return AMLResponse("options", 200)
    if request.method == "HEAD": return AMLResponse("unseen", 200)
    if request.files:
        return {name: [file.filename, len(file.read())] for name, file in request.files.items()} | request.form
    return AMLResponse(request.get_data()[::-1], 418, {"X-Query": request.args["q"], "Content-Type": "image/png"})
"""


def test_raw_http(serve: Callable[..., Instance]) -> None:
    instance = serve(RAW)
    response, body = instance.ask("POST", "/score?q=a%20b", b"\x00\xff")
    assert (response.status, body) == (418, b"\xff\x00")
    assert response.getheader("X-Query") == "a b"
    assert response.getheader("Content-Type") == "image/png"
    form = (
        b'--B\r\nContent-Disposition: form-data; name="k"\r\n\r\nv\r\n'
        b'--B\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n\r\n\x00\r\n--B--'
    )
    body = instance.ask("POST", "/score", form, Content_Type="multipart/form-data; boundary=B")[1]
    assert json.loads(body) == {"f": ["n", 3], "k": "v"}
    assert instance.ask("OPTIONS", "/score")[1] == b"options"
    response, body = instance.ask("HEAD", "/score")
    assert (response.getheader("Content-Length"), body) == ("6", b"")


def test_request_headers(serve: Callable[..., Instance]) -> None:
    instance = serve("def init(): pass\ndef run(data, request_headers): return request_headers")
    headers = json.loads(instance.ask("POST", "/score", "x", x_my_header="1", Content_Type="text/plain")[1])
    assert headers["X-My-Header"] == "1"
    assert headers["Content-Type"] == "text/plain"
    assert headers["Content-Length"] == "1"


STREAM = """
import os
def init(): os.mkfifo(os.environ["GATE"])
def run(data):
    yield "first"
    with open(os.environ["GATE"]) as gate: gate.read()
    if data == "break": raise RuntimeError("broken off")
    yield b"second"
"""


def test_a_generator_streams(serve: Callable[..., Instance]) -> None:
    instance = serve(STREAM)
    connection = instance.connect()
    connection.request("POST", "/score", "x")
    response = connection.getresponse()
    assert response.getheader("Transfer-Encoding") == "chunked"
    assert response.read(5) == b"first"  # while run() waits
    instance.open_gate()
    assert response.read() == b"second"
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"Healthy"
    connection.close()


def test_a_stream_that_breaks_off_is_cut(serve: Callable[..., Instance]) -> None:
    instance = serve(STREAM)
    connection = instance.connect()
    connection.request("POST", "/score", "break")
    response = connection.getresponse()
    assert response.read(5) == b"first"
    instance.open_gate()
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()
    instance.wait_for_log("RuntimeError: broken off")


def test_a_stream_that_is_longer_than_an_answer_may_be_is_cut(serve: Callable[..., Instance]) -> None:
    script = "def init(): ...\ndef run(data): return (data for _ in range(3))"
    instance = serve(script, ENDPUNKT_MAX_RESPONSE_BYTES="6")
    with contextlib.closing(instance.connect()) as connection:
        connection.request("POST", "/score", "abc")
        with pytest.raises(http.client.IncompleteRead) as cut:
            connection.getresponse().read()
    assert cut.value.partial == b"abcabc"
    instance.wait_for_log("A streamed answer is cut: it has more than ENDPUNKT_MAX_RESPONSE_BYTES=6.")
    assert instance.score("ab") == b"ababab"


def test_a_stream_to_an_old_client_ends_with_the_connection(serve: Callable[..., Instance]) -> None:
    instance = serve("def init(): pass\ndef run(data): yield from ('a', 'b')")
    answer = instance.exchange(b"POST /score HTTP/1.0\r\nContent-Length: 1\r\n\r\nx")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"ab"
    assert b"Connection: close" in head
    assert b"Transfer-Encoding" not in head


ENDLESS = """
def init(): pass
def run(data):
    try:
        while data == "endless": yield bytes(65536)
        yield "short"
    finally:
        print("the generator is closed")
"""


def test_a_client_that_leaves_a_stream_frees_its_place(serve: Callable[..., Instance]) -> None:
    instance = serve(ENDLESS)
    with instance.raw() as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nendless")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    instance.wait_for_log("the generator is closed")
    assert instance.score("x") == b"short"


def test_a_client_that_takes_nothing_of_a_stream_is_dropped(serve: Callable[..., Instance]) -> None:
    instance = serve(ENDLESS, ENDPUNKT_SEND_TIMEOUT_SECONDS="0.1")
    with instance.raw() as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 7\r\n\r\nendless")
        instance.wait_for_log("it is dropped")
        instance.wait_for_log("the generator is closed")
        assert instance.score("x") == b"short"


def test_health_is_answered_while_run_works_and_requests_wait_in_order(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT)
    first = background(lambda: instance.score("wait 1"))
    instance.wait_for_log("run waits")
    gone = instance.raw()
    gone.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\ngone")
    assert instance.ask("GET", "/")[1] == b"Healthy"  # and so `gone` has been read and is queued
    gone.close()
    assert instance.ask("GET", "/")[1] == b"Healthy"
    second = background(lambda: instance.score("second"))
    instance.open_gate()
    assert (first(), second()) == (b'"wait 1"', b'"second"')
    assert instance.seen.read_text().split("\n") == ["wait 1", "second", ""]


def test_concurrency(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT, ENDPUNKT_CONCURRENCY="2")
    waiting = background(lambda: instance.score("wait"))
    instance.wait_for_log("run waits")
    assert instance.score("quick") == b'"quick"'
    instance.open_gate()
    assert waiting() == b'"wait"'


def test_a_run_that_takes_too_long_is_answered_and_interrupted(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT, SCORING_TIMEOUT_MS="100")
    response, body = instance.ask("POST", "/score", "wait for ever")
    assert response.status == 500
    assert json.loads(body) == {"message": "Scoring timeout after 100 ms"}
    assert response.getheader("x-ms-run-function-failed") == "True"
    assert instance.score("next") == b'"next"'


def test_run_is_called_on_the_main_thread(serve: Callable[..., Instance]) -> None:
    script = """
import asyncio, threading
def init(): pass
async def later(data): return data
def run(data):
    assert threading.current_thread() is threading.main_thread()
    return asyncio.run(later(data))
"""
    instance = serve(script)
    assert instance.score("x") == b'"x"'


def test_pipelined_requests_are_answered_in_order(serve: Callable[..., Instance]) -> None:
    post = b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n%d"
    last = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    answer = serve(ECHO).exchange(b"".join(post % number for number in range(5)) + last)
    bodies = [part.partition(b"HTTP/1.1 ")[0] for part in answer.split(b"\r\n\r\n")[1:]]
    assert bodies == [b'{"got": %d}' % number for number in range(5)] + [b"Healthy"]


def test_bytes_that_are_no_request_are_refused_and_nothing_else_is_disturbed(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO)
    both = b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    answer = instance.exchange(both)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b'{"message": "Both Content-Length and Transfer-Encoding."}')
    assert answer.count(b"HTTP/1.1") == 1
    assert instance.score("1") == b'{"got": 1}'


def test_a_body_that_is_too_large_is_refused_while_it_is_sent(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO, ENDPUNKT_MAX_BODY_BYTES="1000")
    response, body = instance.ask("POST", "/score", b"1" * 1_000_000)
    assert response.status == 413
    assert json.loads(body) == {"message": "The request's body exceeds 1000 bytes."}
    assert instance.score("1") == b'{"got": 1}'


def test_a_large_body_in_chunks_and_100_continue(serve: Callable[..., Instance]) -> None:
    instance = serve("def init(): pass\ndef run(data): return len(data)")
    with instance.raw() as connection:
        connection.sendall(
            b"POST /score HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
            b"Connection: close\r\n\r\n"
        )
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        for _ in range(100):
            connection.sendall(b"10000\r\n" + b"x" * 65536 + b"\r\n")
        connection.sendall(b"0\r\n\r\n")
        assert read_all(connection).endswith(b"\r\n\r\n6553600")


def test_cors(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO, AML_CORS_ORIGINS="https://a.example, https://b.example")
    response, _ = instance.ask("OPTIONS", "/score", Origin="https://b.example", Access_Control_Request_Method="POST")
    assert response.status == 200
    assert response.getheader("Access-Control-Allow-Origin") == "https://b.example"
    assert response.getheader("Access-Control-Allow-Methods") == "GET, POST"
    response, _ = instance.ask("POST", "/score", "1", Origin="https://c.example")
    assert response.getheader("Access-Control-Allow-Origin") is None


def test_draining_finishes_what_is_in_flight(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT)
    in_flight = background(lambda: instance.ask("POST", "/score", "wait"))
    idle = instance.connect()
    idle.request("GET", "/")
    kept = idle.getresponse()
    kept.read()
    assert kept.getheader("Connection") is None
    instance.wait_for_log("run waits")
    instance.stop_accepting()
    idle.request("GET", "/")
    last = idle.getresponse()
    assert (last.read(), last.getheader("Connection")) == (b"Healthy", "close")
    assert instance.process.poll() is None
    instance.open_gate()
    response, body = in_flight()
    assert (body, response.getheader("Connection")) == (b'"wait"', "close")
    assert instance.wait() == 0


def test_an_idle_connection_does_not_hold_up_the_exit(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO, ENDPUNKT_LINGER_SECONDS="0.1")
    with contextlib.closing(instance.connect()) as idle:
        idle.request("GET", "/")
        idle.getresponse().read()
        instance.process.send_signal(signal.SIGINT)
        assert instance.wait() == 0


def test_draining_ends_when_its_time_is_over(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT, ENDPUNKT_DRAIN_SECONDS="0.1")
    with instance.raw() as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nwait")
        instance.wait_for_log("run waits")
        instance.process.terminate()
        assert instance.wait() == 0
    assert "1 requests unfinished" in instance.log


def test_a_second_signal_exits_at_once(serve: Callable[..., Instance]) -> None:
    instance = serve(WAIT)
    with instance.raw() as connection:
        connection.sendall(b"POST /score HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nwait")
        instance.wait_for_log("run waits")
        instance.process.terminate()
        instance.wait_for_log("Draining")
        instance.process.terminate()
        assert instance.wait() == 143


def test_threads_of_the_script_do_not_hold_up_the_exit(serve: Callable[..., Instance]) -> None:
    script = "import threading\ndef init(): threading.Thread(target=threading.Event().wait).start()\ndef run(data): ..."
    instance = serve(script, ENDPUNKT_DRAIN_SECONDS="0.1")
    instance.ask("GET", "/")
    instance.process.terminate()
    assert instance.wait() == 0


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("def init(): raise OSError('no model')\ndef run(data): ...", "UserScriptInitFailed", "OSError: no model"),
        ("def init(): ...", "UserScriptFunctionNotFound", "does not have a run() function defined."),
        ("import nowhere", "UserScriptImportError", "No module named 'nowhere'"),
        ("def init(): ...\ndef run(): ...", "BadArgument", "run() needs to accept an argument for input data."),
    ],
)
def test_a_script_that_cannot_be_served(
    serve: Callable[..., Instance], tmp_path: Path, script: str, code: str, says: str
) -> None:
    model = tmp_path / "models"
    model.mkdir()
    (model / "weights.bin").touch()
    instance = serve(script, AZUREML_MODEL_DIR=str(model))
    assert instance.wait() == 3
    status = instance.status()
    assert (status["state"], status["code"]) == ("failed", code)
    assert says in status["message"]
    assert says in instance.log
    assert "Model Directory Contents:\nmodels/\n    weights.bin\n" in instance.log


def test_settings_that_cannot_be_used(serve: Callable[..., Instance]) -> None:
    instance = serve(ECHO, ENDPUNKT_CONCURRENCY="many", SCORING_TIMEOUT_MS="-1")
    assert instance.wait() == 3
    assert instance.status()["code"] == "BadArgument"
    assert "ENDPUNKT_CONCURRENCY='many'" in instance.log
    assert "SCORING_TIMEOUT_MS='-1'" in instance.log


def test_a_port_that_is_taken(serve: Callable[..., Instance], tmp_path: Path) -> None:
    instance = serve(ECHO)
    instance.ask("GET", "/")
    command = [sys.executable, "-m", "inference_server", "--port", str(instance.port)]
    second = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE)
    assert second.returncode == 3
    assert f"Cannot listen on 127.0.0.1:{instance.port}: " in second.stderr


def test_an_instance_outlives_whoever_started_it(tmp_path: Path) -> None:
    (tmp_path / "score.py").write_text(ECHO)
    parent = (
        "import socket, subprocess, sys, time\n"
        "s = socket.create_server(('127.0.0.1', 0))\n"
        "p = subprocess.Popen([sys.executable, '-m', 'inference_server', '--fd', str(s.fileno())],\n"
        "    pass_fds=[s.fileno()], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)\n"
        "print(p.pid, s.getsockname()[1], flush=True)\n"
        "p.wait()\n"
    )
    environ = os.environ | {"AML_APP_ROOT": str(tmp_path), "AZUREML_ENTRY_SCRIPT": "score.py"}
    provisioner = subprocess.Popen([sys.executable, "-c", parent], env=environ, stdout=subprocess.PIPE, text=True)
    assert provisioner.stdout is not None
    pid, port = (int(word) for word in provisioner.stdout.readline().split())
    try:
        provisioner.kill()
        provisioner.wait(DEADLINE)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
        connection.request("POST", "/score", "1")
        assert connection.getresponse().read() == b'{"got": 1}'
        connection.close()
    finally:
        os.kill(pid, signal.SIGKILL)
        provisioner.stdout.close()
