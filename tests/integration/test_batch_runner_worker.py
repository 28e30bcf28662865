"""One worker process with hostile and unlucky scripts; no Kafka takes part."""

import asyncio
import os
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from batch_runner import worker as worker_module
from batch_runner.worker import MARK, Answer, Launch, StartError, Worker, kill_marked, marked

PLAIN = "def init(): pass\n"
RUN = "def run(files): return []\n"
# The worker's end of the protocol, as user code can find it.
CHANNEL = """
import os, socket, time

def channel():
    for number in os.listdir("/proc/self/fd"):
        if os.path.exists("/proc/self/fd/" + number) and os.readlink("/proc/self/fd/" + number).startswith("socket:"):
            return socket.socket(fileno=int(number))

"""


def launch(folder: Path, script: str, seconds: float = 30) -> Launch:
    folder.mkdir(exist_ok=True)
    (folder / "score.py").write_text(dedent(script))
    return Launch(
        command=[sys.executable, "-P", "-m", "inference_server.batch"],
        environment={
            "PATH": os.environ["PATH"],
            "AML_APP_ROOT": str(folder),
            "AZUREML_ENTRY_SCRIPT": "score.py",
            MARK: str(folder),
        },
        folder=folder,
        stdout=folder / "stdout",
        stderr=folder / "stderr",
        seconds=seconds,
    )


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - what other processes do is no event here
            await asyncio.sleep(0.02)


async def start(folder: Path, script: str) -> Worker:
    return await Worker.start(launch(folder, script))


async def fate(folder: Path, script: str, seconds: float = 30) -> str:
    """What is said of a mini-batch whose worker is of no more use, and of which nothing is left."""
    worker = await start(folder, script)
    answer = await worker.score(1, ["/a"], seconds)
    assert not worker.alive
    await until(lambda: not marked(str(folder)))
    assert answer.error is not None
    return answer.error


async def test_a_worker_scores_one_mini_batch_after_the_other_and_ends_by_its_own_shutdown(tmp_path: Path) -> None:
    script = """
        import os
        def init(): print("to stdout")
        def run(files):
            if not files: raise LookupError("nothing")
            return [os.path.basename(file) for file in files]
        def shutdown(): open("ended", "w").close()
    """
    (tmp_path / "json.py").write_text("raise ImportError('a file of the script shadows the worker\\'s own')")
    worker = await start(tmp_path, script)
    assert await worker.score(1, ["/x/a", "/x/b c\n"], 30) == Answer(rows=2, content=b"a\nb c\n\n")
    failed = await worker.score(2, [], 30)
    assert (failed.error, "LookupError: nothing" in failed.traceback, worker.alive) == (
        "LookupError: nothing",
        True,
        True,
    )
    assert (await worker.score(3, ["/caf\udce9"], 30)).content == b"caf\xe9\n"
    await worker.stop(30)
    assert (tmp_path / "ended").exists()
    assert "to stdout" in (tmp_path / "stdout").read_text()
    assert marked(str(tmp_path)) == []


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (PLAIN + "def run(files):\n    import os\n    os._exit(7)", "the worker exited with code 7"),
        (PLAIN + "def run(files):\n    import os\n    os.abort()", "the worker was killed by SIGABRT"),
        (PLAIN + CHANNEL + "def run(files): channel().sendall(b'nonsense\\n')", "the worker said what is no answer"),
        (PLAIN + CHANNEL + "def run(files): channel().sendall(b'[1]\\n')", "the worker said what is no answer"),
        (
            PLAIN + CHANNEL + 'def run(files): channel().sendall(b\'{"id": 1, "ok": true, "rows": [5]}\\n\')',
            "the worker said what is no answer",
        ),
        (
            PLAIN + CHANNEL + 'def run(files): channel().sendall(b\'{"id": 9, "ok": true, "rows": []}\\n\')',
            "the worker answered another question",
        ),
        (PLAIN + CHANNEL + "def run(files): channel().sendall(b'[' * 100_000 + b'\\n')", "what is no answer"),
        (PLAIN + CHANNEL + "def run(files):\n    channel().shutdown(2)\n    time.sleep(3600)", "closed its connection"),
        (PLAIN + "def run(files): return ['x' * 100] * 20", "are more than 0 MiB: lower mini_batch_size"),
    ],
)
async def test_a_worker_that_dies_or_lies_is_killed_and_the_reason_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    if "MiB" in said:
        monkeypatch.setattr(worker_module, "LARGEST_ANSWER", 1000)
    assert said in await fate(tmp_path, script)


async def test_a_worker_that_takes_too_long_is_killed_with_its_children(tmp_path: Path) -> None:
    script = """
        import subprocess, sys, time
        def init(): pass
        def run(files):
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
            time.sleep(3600)
    """
    assert await fate(tmp_path, script, 0.5) == "the mini-batch took longer than its timeout of 0.5 s"


async def test_what_leaves_the_workers_group_is_found_by_its_mark(tmp_path: Path) -> None:
    script = """
        import subprocess, sys
        def init():
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
        def run(files): return []
    """
    worker = await start(tmp_path, script)
    await worker.stop(30)
    [escaped] = marked(str(tmp_path))
    assert escaped != worker.pid
    assert await kill_marked(str(tmp_path)) == []
    assert marked(str(tmp_path)) == []


async def test_a_worker_whose_parent_is_gone_ends_by_itself(tmp_path: Path) -> None:
    script = f"""
        import asyncio, os, sys
        from pathlib import Path
        from batch_runner.worker import Launch, Worker
        async def main():
            folder = Path({str(tmp_path)!r})
            environment = dict(PATH=os.environ["PATH"], AML_APP_ROOT=str(folder), AZUREML_ENTRY_SCRIPT="score.py")
            environment[{MARK!r}] = str(folder)
            command = [sys.executable, "-P", "-m", "inference_server.batch"]
            await Worker.start(Launch(command, environment, folder, folder / "stdout", folder / "stderr", 30))
            os._exit(0)
        asyncio.run(main())
    """
    (tmp_path / "score.py").write_text("def init(): pass\ndef run(files): pass\ndef shutdown(): open('ended', 'w')")
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", dedent(script))
    assert await parent.wait() == 0
    await until(lambda: not marked(str(tmp_path)))
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("def init(): raise RuntimeError('no model')\n" + RUN, ["UserScriptInitFailed", "no model", "line 1"]),
        ("import no_such_module", ["UserScriptImportError", "no_such_module"]),
        ("def init(): pass", ["UserScriptFunctionNotFound", "run() function"]),
        ("import os\ndef init():\n    os.write(2, b'last words')\n    os._exit(1)\n" + RUN, ["code 1;", "last words"]),
    ],
)
async def test_a_script_that_cannot_start_says_why_and_leaves_no_process(
    tmp_path: Path, script: str, said: list[str]
) -> None:
    with pytest.raises(StartError) as failure:
        await start(tmp_path, script)
    for text in said:
        assert text in str(failure.value)
    assert marked(str(tmp_path)) == []


async def test_an_init_that_hangs_is_ended(tmp_path: Path) -> None:
    script = "import time\ndef init(): time.sleep(3600)\ndef run(files): pass"
    with pytest.raises(StartError, match=r"init\(\) took longer than 0.5 s \(ENDPUNKT_WORKER_START_SECONDS\)"):
        await Worker.start(launch(tmp_path, script, 0.5))
    assert marked(str(tmp_path)) == []


async def test_a_start_that_is_dropped_leaves_no_process(tmp_path: Path) -> None:
    script = "import time\ndef init():\n    open('started', 'w')\n    time.sleep(3600)\ndef run(files): pass"
    starting = asyncio.create_task(Worker.start(launch(tmp_path, script)))
    await until((tmp_path / "started").exists)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert starting.cancelled()
    assert marked(str(tmp_path)) == []
