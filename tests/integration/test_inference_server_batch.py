"""The batch worker as a process: the protocol of its module docstring, spoken by the test as the parent."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

DEADLINE = 30.0

SCRIPT = """
import os, sys
from pathlib import Path
def init():
    print("init prints")
    os.write(1, b"to the descriptor\\n")
def run(mini_batch):
    print("run prints", len(mini_batch))
    if "none" in mini_batch: return None
    if "exit" in mini_batch: sys.exit(7)
    if "raise" in mini_batch: raise ValueError("bad file")
    return [f"{Path(file).name} {os.environ['AZUREML_MODEL_DIR']}" for file in mini_batch]
def shutdown():
    Path(os.environ["AZUREML_BI_OUTPUT_PATH"], "closed").touch()
"""


class Worker:
    def __init__(self, folder: Path, script: str, **environ: str):
        (folder / "score.py").write_text(script)
        variables = {
            "AML_APP_ROOT": str(folder),
            "AZUREML_ENTRY_SCRIPT": "score.py",
            "AZUREML_MODEL_DIR": "/model",
            "AZUREML_BI_OUTPUT_PATH": str(folder),
        }
        self.channel, theirs = socket.socketpair()
        self.channel.settimeout(DEADLINE)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "inference_server.batch", "--fd", str(theirs.fileno())],
                env=os.environ | variables | environ,
                pass_fds=[theirs.fileno()],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.replies = self.channel.makefile("rb")

    def read(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.replies.readline())
        return message

    def ask(self, identity: Any, *files: str) -> dict[str, Any]:
        self.channel.sendall(json.dumps({"id": identity, "files": files}).encode() + b"\n")
        return self.read()

    def end(self) -> tuple[int, str]:
        """Closes the parent's end; the exit code and what was printed."""
        self.replies.close()
        self.channel.close()
        printed, _ = self.process.communicate(timeout=DEADLINE)
        return self.process.returncode, printed


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def begin(script: str = SCRIPT, **environ: str) -> Worker:
        workers.append(Worker(tmp_path, script, **environ))
        return workers[-1]

    yield begin
    for worker in workers:
        worker.process.kill()
        worker.process.communicate()
        worker.replies.close()
        worker.channel.close()


def test_mini_batches(start: Callable[..., Worker], tmp_path: Path) -> None:
    worker = start()
    assert worker.read() == {"state": "ready"}
    first = worker.ask("a", "/in/1.csv", "/in/2.csv")
    assert first.pop("seconds") >= 0
    assert first == {"id": "a", "ok": True, "rows": ["1.csv /model", "2.csv /model"]}
    assert worker.ask({"any": 1})["id"] == {"any": 1}
    code, printed = worker.end()
    assert code == 0
    assert "init prints\nto the descriptor\n" in printed
    assert "run prints 2\n" in printed
    assert (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("file", "kind", "says"),
    [
        ("raise", "ValueError", "bad file"),
        ("exit", "SystemExit", "7"),
        ("none", "TypeError", "should return a list or a pandas DataFrame. "),
    ],
)
def test_a_mini_batch_that_fails_fails_alone(start: Callable[..., Worker], file: str, kind: str, says: str) -> None:
    worker = start()
    worker.read()
    reply = worker.ask(1, file)
    assert reply.pop("seconds") >= 0
    error = reply.pop("error")
    assert reply == {"id": 1, "ok": False}
    assert error["type"] == kind
    assert says in error["message"]
    assert error["traceback"].startswith("Traceback (most recent call last):\n")
    assert worker.ask(2, "fine")["ok"]
    code, printed = worker.end()
    assert code == 0
    assert error["traceback"] in printed


def test_a_frame_becomes_rows(start: Callable[..., Worker]) -> None:
    worker = start(
        "import pandas\ndef init(): ...\n"
        "def run(files): return pandas.DataFrame({'file': files, 'class': range(len(files))})"
    )
    worker.read()
    assert worker.ask(1, "a", "b c")["rows"] == ["a 0", '"b c" 1']


@pytest.mark.parametrize(
    ("script", "code", "says"),
    [
        ("def init(): raise OSError('no model')\ndef run(files): ...", "UserScriptInitFailed", "OSError: no model"),
        ("def init(): ...", "UserScriptFunctionNotFound", "does not have a run() function defined."),
        ("import nowhere", "UserScriptImportError", "No module named 'nowhere'"),
    ],
)
def test_a_script_that_cannot_run(start: Callable[..., Worker], script: str, code: str, says: str) -> None:
    worker = start(script)
    hello = worker.read()
    assert (hello["state"], hello["code"]) == ("failed", code)
    assert says in hello["message"]
    assert says in hello["traceback"]
    exit_code, printed = worker.end()
    assert exit_code == 3
    assert says in printed


def test_settings_that_cannot_be_used(start: Callable[..., Worker]) -> None:
    worker = start(AZUREML_LOG_LEVEL="loud")
    hello = worker.read()
    assert (hello["state"], hello["code"]) == ("failed", "BadArgument")
    assert "AZUREML_LOG_LEVEL='LOUD'" in hello["message"]
    assert worker.end()[0] == 3


@pytest.mark.parametrize(
    "line", [b"nonsense\n", b"[]\n", b"{}\n", b'{"id": 1, "files": "a"}\n', b'{"id": 1, "files": [1]}\n']
)
def test_a_parent_that_does_not_speak_the_protocol(start: Callable[..., Worker], line: bytes) -> None:
    worker = start()
    worker.read()
    worker.channel.sendall(line)
    assert worker.replies.readline() == b""
    code, printed = worker.end()
    assert code == 2
    assert "The parent sent a line that is not a mini-batch: " in printed


def test_a_shutdown_that_raises(start: Callable[..., Worker]) -> None:
    worker = start("def init(): ...\ndef run(files): return files\ndef shutdown(): 1 / 0")
    worker.read()
    code, printed = worker.end()
    assert code == 1
    assert "ZeroDivisionError" in printed


def test_a_parent_that_dies_is_noticed(start: Callable[..., Worker], tmp_path: Path) -> None:
    """Also in the middle of a mini-batch, and although the script's child still lives."""
    script = (
        "import os, time\ndef init(): ...\n"
        "def run(files):\n  if os.fork() == 0:\n    time.sleep(600)\n    os._exit(0)\n  return files\n"
        "def shutdown(): os.mkfifo(os.environ['AZUREML_BI_OUTPUT_PATH'] + '/closed')\n"
    )
    worker = start(script)
    worker.read()
    worker.channel.sendall(b'{"id": 1, "files": ["a"]}\n{"id": 2')
    assert worker.read()["rows"] == ["a"]
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text().split()
    try:
        worker.channel.shutdown(socket.SHUT_WR)
        assert worker.replies.readline() == b""  # the child, which lives on, has let go of the channel
        assert worker.process.wait(DEADLINE) == 0
        assert (tmp_path / "closed").exists()
    finally:
        for child in children:
            os.kill(int(child), signal.SIGKILL)
