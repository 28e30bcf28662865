"""What hostile user code can do: run in a real instance, it tries. What is expected follows from what the compute says
to be in force on this machine."""

import asyncio
import os
import shutil
import signal
import sys
import venv
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contracts.shell.processes import ProcessIdentity
from provisioner.compute import process as process_module
from provisioner.compute.cgroups import Cgroups
from provisioner.compute.housekeeping import Housekeeping
from provisioner.compute.interpreter import closed_to_others
from provisioner.compute.limits import limits_of
from provisioner.compute.process import NotStarted
from provisioner.core.lifecycle import Place

PLACE = Place("shop", "blue", 3, 0)
PATIENCE = 20
OURS = tuple(os.path.realpath(path) for path in (sys.prefix, sys.base_prefix))
EVALUATE = """
import os, subprocess, sys, time, socket, json
def init(): pass
def run(data):
    names = dict(globals())
    try:
        exec(json.loads(data)["do"], names)
    except BaseException as error:
        return type(error).__name__
    return names.get("answer", "done")
"""


async def instance(home: Any, id: str = "shop-blue-1", **settings: Any) -> Any:
    process, ended = home.start(home.template(EVALUATE, **settings), id)
    await home.answered(process)
    return process, ended


@pytest.fixture
def poor(home: Any) -> Any:
    """A home as a machine has it that permits nothing: no root, no control groups."""
    isolation = home.compute.isolation
    isolation.hides = isolation.switches = False
    isolation.groups = Cgroups(1, {})
    return home


@pytest.fixture(params=["home", "poor"])
def either(request: pytest.FixtureRequest) -> Any:
    """What this machine permits, and nothing of it: where more is permitted, less must still be told as it is."""
    return request.getfixturevalue(request.param)


def lacks(home: Any, process: Any) -> str:
    """What is told not to hold for an instance."""
    return "; ".join(home.compute.isolation.not_enforced(process.record.user))


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


async def test_an_instance_has_no_rights_and_cannot_get_any(home: Any) -> None:
    process, _ = await instance(home)
    status = status_of(process.record.pid)
    assert status["NoNewPrivs"] == "1"
    core = "import resource; answer = resource.getrlimit(resource.RLIMIT_CORE)"
    assert await home.score(process, {"do": core}) == [0, 0]
    user = os.geteuid()
    if process.record.user is not None:
        user = process.record.user
        assert user in home.compute.isolation.users
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert status["Groups"] == ""
    assert status["Uid"].split() == [str(user)] * 4
    # A setuid-root program gives nothing.
    shell = process.folder.work / "id"
    shutil.copy2(shutil.which("id") or "/usr/bin/id", shell)
    shell.chmod(0o4755)
    told = await home.score(
        process, {"do": "answer = subprocess.run(['./id', '-u'], capture_output=True).stdout.decode()"}
    )
    assert told.strip() == str(user)
    if process.record.user is not None:
        for forbidden in ("os.setuid(0)", "os.setgroups([0])", "os.chroot('/')", "os.kill(1, 0)"):
            assert await home.score(process, {"do": forbidden}) == "PermissionError", forbidden


async def test_an_instance_reads_what_it_needs_and_where_that_can_be_nothing_else(either: Any) -> None:
    home = either
    secret = home.path / "secrets" / "admin"
    secret.parent.mkdir()
    secret.write_text("hush")
    other, _ = await instance(home, "other", model=True)
    process, _ = await instance(home, "one", model=True, environment_variables={"HUSH": "x"})
    await home.score(other, {"do": "open('mine', 'w').write('private')"})
    (home.path / "data").mkdir()

    async def read(path: object) -> Any:
        return await home.score(process, {"do": f"answer = open({str(path)!r}).read()"})

    assert await home.score(process, {"do": "open('x', 'w').write('1'); answer = open('x').read()"}) == "1"
    own = f"endpunkt-{process.record.pid}"
    assert (
        await home.score(process, {"do": f"open('/tmp/{own}', 'w').write('1'); answer = open('/tmp/{own}').read()"})
        == "1"
    )
    assert (
        await home.score(process, {"do": "answer = open(os.environ['AZUREML_MODEL_DIR']+'/weights/score.py').read()"})
        == "w"
    )
    assert await home.score(process, {"do": "print('said', file=open('/dev/stdout', 'w'))"}) == "done"
    reads_all = "can read what that can" in lacks(home, process)
    assert reads_all == (process.record.user is None)
    if reads_all:
        assert await read(secret) == "hush"
        assert await read(other.folder.work / "mine") == "private"
        return
    failures = ("FileNotFoundError", "PermissionError")
    for path in (
        secret,
        other.folder.work / "mine",
        other.folder.console,
        process.folder.path / "instance.json",
        f"/proc/{other.record.pid}/environ",
        f"/proc/{os.getpid()}/environ",
        "/etc/shadow",
    ):
        assert await read(path) in failures, path
    code = process.record.template.code
    for forged in (
        process.folder.path / "instance.json",
        home.path / "instances" / "new",
        home.path / "artifacts" / "sha256" / code.digest / "src" / "score.py",
        home.path / "runtime" / "inference_server" / "x.py",
    ):
        told = await home.score(process, {"do": f"open({str(forged)!r}, 'w')"})
        assert told in ("OSError", *failures), forged
    assert ("sees what others may read" in lacks(home, process)) != home.compute.isolation.hides
    if home.compute.isolation.hides:
        seen = await home.score(process, {"do": f"answer = sorted(os.listdir({str(home.path)!r}))"})
        assert seen == ["artifacts", "instances", "runtime"]
        assert await home.score(process, {"do": f"answer = os.listdir({str(home.path / 'instances')!r})"}) == ["one"]
        visible = await home.score(
            process, {"do": "answer = [int(name) for name in os.listdir('/proc') if name.isdigit()]"}
        )
        assert process.record.pid in visible
        assert other.record.pid not in visible
        assert own not in os.listdir("/tmp")
        # Where the way into it is closed, of root's own home only the interpreter is to be seen.
        if closed_to_others(Path("/root/x")) is not None:
            expected = {path.split("/")[2] for path in OURS if path.startswith("/root/")}
            shown = await home.score(process, {"do": "answer = os.listdir('/root')"})
            assert shown == "PermissionError" or set(shown) <= expected


async def test_who_uses_up_its_memory_is_ended_for_that(either: Any) -> None:
    home = either
    process, ended = await instance(home, instance_type="Tiny")
    asking = asyncio.create_task(home.score(process, {"do": "held = bytearray(400_000_000); time.sleep(60)"}))
    assert ("memory over that of its type is seen once a second" in lacks(home, process)) != (
        process.record.group is not None and "memory" in process.record.group.folders
    )
    if not home.compute.isolation.bounds_memory:
        keeping = asyncio.create_task(Housekeeping(home.compute, lambda: [process], 1 << 20).run())
        result = await asyncio.wait_for(ended, PATIENCE)
        keeping.cancel()
    else:
        result = await asyncio.wait_for(ended, PATIENCE)
    assert result.out_of_memory
    assert result.code == -signal.SIGKILL
    assert result.limit_bytes == int(0.15 * 2**30)
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever a cut connection is
        await asking


async def test_files_that_were_read_do_not_count_as_memory_that_is_used_up(home: Any) -> None:
    process, _ = await instance(home, instance_type="Tiny")
    write = "file = open('big', 'wb')\nfor _ in range(300): file.write(bytes(1 << 20))\nfile.close()"
    read = "answer = sum(len(part) for part in iter(lambda f=open('big', 'rb'): f.read(1 << 20), b''))"
    assert await home.score(process, {"do": write}) == "done"
    assert await home.score(process, {"do": read}) == 300 << 20


async def test_a_busy_instance_gets_the_share_of_its_type_or_that_is_told_not_to_be_so(either: Any) -> None:
    home = either
    process, _ = await instance(home, instance_type="Tiny")
    spin = "end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    assert await home.score(process, {"do": spin}) == "done"
    group = process.record.group
    unbounded = "its CPU is not bounded" in lacks(home, process)
    assert unbounded == any("CPU of instances is not bounded" in each for each in home.compute.enforcement())
    if unbounded:
        assert cpu_group_of(process.record.pid) == cpu_group_of("self"), "what bounds us bounds it, and nothing else"
        return
    folder = group.folders["cpu"]
    if group.version == 1:
        assert (folder / "cpu.cfs_quota_us").read_text() == "20000\n"
    else:
        assert (folder / "cpu.max").read_text() == "20000 100000\n"
    assert int((folder / "cpu.stat").read_text().partition("nr_throttled ")[2].split()[0]) > 0


def cpu_group_of(process: object) -> list[str]:
    lines = Path(f"/proc/{process}/cgroup").read_text().splitlines()
    return [line for line in lines if not (names := line.split(":")[1]) or "cpu" in names.split(",")]


FORKS = """
made = 0
try:
    while made < 100:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        made += 1
except OSError:
    pass
answer = made
"""


async def test_a_fork_bomb_is_bounded_where_that_is_not_told_otherwise_and_ends_with_its_instance(
    either: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = either
    monkeypatch.setattr(process_module, "limits_of", lambda kind, cpus: replace(limits_of(kind, cpus), pids=64))
    process, ended = await instance(home)
    made = await home.score(process, {"do": FORKS})
    if "number of processes is not bounded" in lacks(home, process):
        assert made == 100
    else:
        assert 0 < made < 64
    session = members(process.record.pid)
    assert len(session) > made
    assert await home.score(process, {"do": "answer = 1"}) == 1
    user = process.record.user
    process.kill()
    assert (await asyncio.wait_for(ended, PATIENCE)).code == -signal.SIGKILL
    assert all([await asyncio.to_thread(each.wait, PATIENCE) for each in session])
    if user is not None:
        assert not list(alive_of(user))


def members(leader: int) -> list[ProcessIdentity]:
    """The processes of a session."""
    found = []
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(ProcessLookupError):
            if os.getsid(pid) == leader and (identity := ProcessIdentity.of(pid)) is not None:
                found.append(identity)
    return found


def alive_of(user: int) -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    found = []
    for pid in pids:
        try:
            status = status_of(pid)
        except OSError:
            continue
        if status["Uid"].split()[0] == str(user) and status["State"][0] not in "ZX":
            found.append(pid)
    return found


DETACH = """
wait = (
    "import os, time; os.setsid() if os.fork() == 0 else os._exit(0); print(os.getpid(), flush=True); time.sleep(600)"
)
child = subprocess.Popen([sys.executable, "-c", wait], stdout=subprocess.PIPE, start_new_session=True)
answer = int(child.stdout.readline())
"""


async def test_what_detached_itself_dies_with_its_instance(home: Any) -> None:
    process, ended = await instance(home)
    detached = ProcessIdentity.of(await home.score(process, {"do": DETACH}))
    assert detached is not None
    process.terminate()
    assert (await asyncio.wait_for(ended, PATIENCE)).code == 0
    if process.record.group is None and process.record.user is None:
        assert detached.alive, "a session of its own is not found without root or control groups"
        os.kill(detached.pid, signal.SIGKILL)
    assert await asyncio.to_thread(detached.wait, PATIENCE)


async def test_an_adopted_instance_is_bounded_and_cleared_up_as_before(home: Any) -> None:
    process, _ = await instance(home)
    detached = ProcessIdentity.of(await home.score(process, {"do": DETACH}))
    assert detached is not None
    later = home.again()
    (adopted,) = later.adopt()
    assert (adopted.record.user, adopted.record.group) == (process.record.user, process.record.group)
    gone = home.watch(adopted)
    adopted.kill()
    await asyncio.wait_for(gone, PATIENCE)
    if adopted.record.group is None and adopted.record.user is None:
        os.kill(detached.pid, signal.SIGKILL)
    assert await asyncio.to_thread(detached.wait, PATIENCE)
    await asyncio.to_thread(later.discard, adopted, True)
    assert list(later.isolation.groups.instances()) == []
    assert [each.name for each in later.kept_consoles("shop", "blue")] == ["shop-blue-1.log"]
    later.forget_consoles("shop", "blue")
    assert later.kept_consoles("shop", "blue") == []


async def test_a_model_of_scikit_learn_scores(home: Any) -> None:
    script = (
        "import json\nfrom sklearn.linear_model import LinearRegression\n"
        "def init():\n    global model\n    model = LinearRegression(n_jobs=2).fit([[0.0], [1.0]], [0.0, 2.0])\n"
        "def run(data): return model.predict(json.loads(data)['data']).tolist()\n"
    )
    process, _ = home.start(home.template(script))
    await home.answered(process)
    assert await home.score(process, {"data": [[3.0]]}) == [pytest.approx(6.0)]


async def test_an_environment_in_the_home_is_within_reach(home: Any) -> None:
    environment = home.path / "environments" / "abc" / "venv"
    await asyncio.to_thread(venv.create, environment, symlinks=True)
    python = environment / "bin" / "python"
    template = home.template(EVALUATE)
    prepared = replace(home.prepared(template), python=python)
    process = home.compute.start("one", PLACE, template, prepared, {})
    home.started.append(process)
    home.watch(process)
    await home.answered(process)
    assert await home.score(process, {"do": "answer = [sys.executable, sys.prefix]"}) == [str(python), str(environment)]
    if process.record.user is not None:
        environment.chmod(0o700)
        with pytest.raises(NotStarted, match=r"may not read .*/venv: chmod -R o"):
            home.compute.start("two", PLACE, template, prepared, {})
        assert not (home.path / "instances" / "two").exists()


async def test_collected_data_is_fetched_while_an_instance_runs_and_when_it_has_ended(home: Any) -> None:
    process, ended = await instance(home, data_collector={"collections": {"request": {}}})
    write = """
folder = os.path.join(os.environ["ENDPUNKT_COLLECTOR_DIR"], "shop/blue/mine/2026/11/22/23")
os.makedirs(folder, exist_ok=True)
open(os.path.join(folder, NAME), "w").write("{}")
"""
    assert await home.score(process, {"do": write.replace("NAME", "'a.jsonl'")}) == "done"
    await Housekeeping(home.compute, lambda: [process], 1 << 20).fetch()
    kept = home.path / "data" / "shop" / "blue" / "mine" / "2026" / "11" / "22" / "23"
    assert [path.name for path in kept.iterdir()] == ["a.jsonl"]
    assert await home.score(process, {"do": write.replace("NAME", "'b.jsonl'")}) == "done"
    process.kill()
    await asyncio.wait_for(ended, PATIENCE)
    await asyncio.to_thread(home.compute.discard, process, False)
    assert sorted(path.name for path in kept.iterdir()) == ["a.jsonl", "b.jsonl"]
    assert not process.folder.path.exists()


async def test_the_output_of_the_last_three_is_kept(home: Any) -> None:
    for number in range(5):
        process, ended = home.start(home.template("raise ValueError(open)\n"), f"shop-blue-{number}")
        await asyncio.wait_for(ended, PATIENCE)
        await asyncio.to_thread(home.compute.discard, process, True)
    kept = home.compute.kept_consoles("shop", "blue")
    assert [path.stem for path in kept] == ["shop-blue-4", "shop-blue-3", "shop-blue-2"]
    assert "ValueError" in kept[0].read_text()


async def test_what_user_code_puts_into_the_environment_has_no_effect_on_the_launcher(home: Any) -> None:
    variables = {"LD_PRELOAD": "/nowhere/evil.so", "PYTHONHOME": "/nowhere"}
    process, ended = home.start(home.template(), variables=variables)
    assert (await asyncio.wait_for(ended, PATIENCE)).code not in (0, None)
    said = process.folder.log_tail().decode()
    assert "does not let an instance start" not in said
    assert "/nowhere" in said


async def test_no_instruction_is_left_for_others_to_read(home: Any) -> None:
    process, _ = await instance(home, environment_variables={"TOKEN": "hush"})
    argv, files = told_of(process.record.pid)
    assert b"hush" not in argv
    assert not any("instructions" in each for each in files)


def told_of(pid: int) -> tuple[bytes, list[str]]:
    """What others may see of a process: its command, its open files."""
    folder = Path(f"/proc/{pid}")
    return (folder / "cmdline").read_bytes(), [str(each.readlink()) for each in (folder / "fd").iterdir()]
