"""The process compute, with real processes: started with what they are given, watched, adopted, ended."""

import asyncio
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from contracts.shell.processes import ProcessIdentity
from provisioner.compute.process import NotStarted
from provisioner.compute.records import InstanceFolder
from provisioner.compute.use import Sessions
from provisioner.core.lifecycle import Place

PLACE = Place("shop", "blue", 3, 0)
PATIENCE = 20
CHILDREN = """
import subprocess, sys
def init():
    global child
    text = "import time; data = bytearray(30_000_000); print('made', flush=True); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE)
    child.stdout.readline()
    open("child", "w").write(str(child.pid))
def run(data): return child.pid
"""

COLLECTS_AND_DIES = """
import os, signal
from pathlib import Path
from azureml.ai.monitoring import Collector
class DataFrame:
    def to_json(self, orient): return '["kept"]'
def init():
    global inputs
    inputs = Collector(name="inputs")
def run(data):
    inputs.collect(DataFrame())
    while not (written := [p for p in Path("collected").rglob("*.part") if p.stat().st_size]): pass
    written[0].open("ab").write(b'{"torn')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def open_files(pid: int) -> set[str]:
    return {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}


def environment_of(pid: int) -> dict[str, str]:
    pairs = Path(f"/proc/{pid}/environ").read_bytes().decode().rstrip("\0").split("\0")
    return dict(pair.split("=", 1) for pair in pairs)


async def test_an_instance_is_given_what_its_deployment_says_and_nothing_else(
    home: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KAFKA_SASL_PASSWORD", "hush")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    template = home.template(
        model=True,
        instance_type="Standard_DS2_v2",
        environment_variables={"MINE": "1", "OMP_NUM_THREADS": "7"},
        request_settings={"request_timeout_ms": 1234, "max_concurrent_requests_per_instance": 3},
    )
    assert template.model is not None
    process, ended = home.start(template)
    await home.answered(process)
    folder, store = tmp_path / "instances" / "shop-blue-1", tmp_path / "artifacts" / "sha256"
    environment = environment_of(process.record.pid)
    assert environment.pop("PATH").split(":")[0] == str(Path(sys.executable).parent)
    assert environment == {
        "HOME": str(folder / "work"),
        "PYTHONPATH": str(tmp_path / "runtime"),
        "LANG": "C.UTF-8",
        "OMP_NUM_THREADS": "7",
        "OPENBLAS_NUM_THREADS": "2",
        "MKL_NUM_THREADS": "2",
        "NUMEXPR_NUM_THREADS": "2",
        "MINE": "1",
        "AML_APP_ROOT": str(store / template.code.digest / "src"),
        "AZUREML_ENTRY_SCRIPT": "score.py",
        "AZUREML_MODEL_DIR": str(store / template.model.digest),
        "SCORING_TIMEOUT_MS": "1234",
        "ENDPUNKT_CONCURRENCY": "3",
        "ENDPUNKT_ENDPOINT": "shop",
        "ENDPUNKT_DEPLOYMENT": "blue",
        "ENDPUNKT_STATUS_FILE": str(folder / "work" / "status.json"),
        "ENDPUNKT_DRAIN_SECONDS": "30.0",
    }
    assert os.readlink(f"/proc/{process.record.pid}/cwd") == str(folder / "work")
    assert os.getsid(process.record.pid) == process.record.pid
    assert (folder / "work").stat().st_mode & 0o077 == 0
    files = {each for each in open_files(process.record.pid) if each.startswith("/") and not each.startswith("/dev")}
    assert files == {str(folder / "console.log")}
    status = process.folder.status()
    assert status is not None
    assert (status.state, status.pid) == ("ready", process.record.pid)
    process.terminate()
    assert (await asyncio.wait_for(ended, PATIENCE)).code == 0
    record = process.folder.read()
    assert record is not None
    assert record.stopping


async def test_the_end_of_an_instance_is_told_with_its_code_and_takes_its_children_along(home: Any) -> None:
    process, ended = home.start(home.template("import nothing_like_this\n"), "bad")
    assert (await asyncio.wait_for(ended, PATIENCE)).code == 3
    status = process.folder.status()
    assert status is not None
    assert status.code == "UserScriptImportError"
    assert b"nothing_like_this" in process.folder.log_tail()

    process, ended = home.start(home.template(CHILDREN), "parent")
    await home.answered(process)
    left = ProcessIdentity.of(int((process.folder.work / "child").read_text()))
    assert left is not None
    os.kill(process.record.pid, signal.SIGKILL)
    assert (await asyncio.wait_for(ended, PATIENCE)).code == -9
    assert await asyncio.to_thread(left.wait, PATIENCE)


async def test_what_a_killed_instance_collected_is_kept(home: Any, tmp_path: Path) -> None:
    collector = {"rolling_rate": "minute", "collections": {"inputs": {}}}
    process, ended = home.start(home.template(COLLECTS_AND_DIES, data_collector=collector))
    await home.answered(process)
    with pytest.raises(ConnectionResetError):
        await home.score(process, 1)
    assert (await asyncio.wait_for(ended, PATIENCE)).code == -9
    assert home.compute.fetch_collected(process) == 0
    home.compute.discard(process, keep_console=False)
    [kept] = (path for path in (tmp_path / "data").rglob("*") if path.is_file())
    assert [json.loads(line)["data"] for line in kept.read_text().splitlines()] == [["kept"]]
    place = kept.relative_to(tmp_path / "data" / "shop" / "blue" / "inputs").parts
    assert (len(place), kept.suffix) == (6, ".jsonl")


async def test_a_session_is_measured_with_its_children(home: Any) -> None:
    process, _ = home.start(home.template(CHILDREN))
    await home.answered(process)
    assert Sessions().use(2**22 + 1) is None
    for used in (Sessions().use(process.record.pid), process.use(Sessions())):
        assert used is not None
        assert used.memory_bytes > 40_000_000
        assert used.cpu_seconds > 0


async def test_instances_are_found_again_and_what_is_left_of_others_is_removed(home: Any, tmp_path: Path) -> None:
    running, _ = home.start(home.template(CHILDREN), "running")
    dead, dead_ended = home.start(home.template(), "dead")
    stray, stray_ended = home.start(home.template(), "stray")
    for process in (running, dead, stray):
        await home.answered(process)
    dead.kill()
    await asyncio.wait_for(dead_ended, PATIENCE)
    (stray.folder.path / "instance.json").unlink()  # as if the provisioner had been killed before it wrote it
    (tmp_path / "instances" / "half").mkdir()

    (adopted,) = home.again().adopt()
    assert adopted.record == running.record
    assert adopted.record.place == PLACE
    assert [each.name for each in (tmp_path / "instances").iterdir()] == ["running"]
    assert (await asyncio.wait_for(stray_ended, PATIENCE)).code == -9
    assert ProcessIdentity.of(running.record.pid) == running.record.process
    # Its end is seen although it is not asked for as a child.
    ended = home.watch(adopted)
    adopted.kill()
    assert (await asyncio.wait_for(ended, PATIENCE)).code is None


async def test_a_pid_that_another_process_has_is_not_adopted(home: Any, tmp_path: Path) -> None:
    process, ended = home.start(home.template())
    await home.answered(process)
    other = process.record.process.__class__(os.getpid(), process.record.process.started, process.record.process.boot)
    process.folder.write(process.record.model_copy(update={"process": other}))
    assert home.compute.adopt() == []
    assert ProcessIdentity.of(os.getpid()) is not None
    assert (await asyncio.wait_for(ended, PATIENCE)).code == -9, "the instance itself has no record any more"


async def test_what_cannot_be_started_leaves_nothing(home: Any, tmp_path: Path) -> None:
    with pytest.raises(NotStarted, match="no longer in the catalogue"):
        home.start(home.template(instance_type="Moon"))
    template = home.template()
    shutil.rmtree(tmp_path / "artifacts")
    with pytest.raises(NotStarted, match="is no longer there: put the deployment again"):
        home.start(template)
    assert not list((tmp_path / "instances").glob("*"))


def test_the_log_is_bounded_and_its_end_is_kept(tmp_path: Path) -> None:
    folder = InstanceFolder(tmp_path)
    folder.trim(100)
    with folder.console.open("ab") as writer:
        writer.write(b"a" * 90 + b"b" * 60)
        writer.flush()
        folder.trim(100)
        writer.write(b"after")
    assert (tmp_path / "console.log.1").read_bytes() == b"a" * 40 + b"b" * 60
    assert folder.log_tail() == b"a" * 40 + b"b" * 60 + b"after"
    assert folder.last_lines(5, 7) == ["bbafter"]
    folder.keep_console(tmp_path / "kept" / "log")
    assert (tmp_path / "kept" / "log").read_bytes() == folder.log_tail()
