"""Environments built for real: uv, the package index, this machine's interpreters. Their packages are tiny."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from contracts.environments.builder import BuildFailed, Built, EnvironmentBuilder
from contracts.environments.pythons import Interpreter
from contracts.environments.runtime import install
from contracts.shell.processes import ProcessIdentity

PATIENCE = 60
CONDA = """\
name: tiny
channels: [conda-forge]
dependencies:
- python=%s
- six=1.16
- pip:
  - tabulate
"""
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - what other processes do is no event here
            await asyncio.sleep(0.01)


def says(built: Built, code: str) -> str:
    """What the environment's interpreter prints."""
    done = subprocess.run([built.python, "-c", code], capture_output=True, text=True, check=True, timeout=PATIENCE)
    return done.stdout.strip()


def left(root: Path) -> list[str]:
    """What builds have left behind."""
    return [path.name for path in (root / "building").iterdir()]


async def test_an_environment_is_built_once_and_found_again_by_whatever_file_means_the_same(tmp_path: Path) -> None:
    builder, told = EnvironmentBuilder(tmp_path / "environments"), list[str]()
    assert builder.check("conda.yml", CONDA % OWN) == []
    old = os.umask(0o077)
    try:
        built = await builder.build("conda.yml", CONDA % OWN, told.append)
    finally:
        os.umask(old)
    assert says(built, "import six, tabulate, sys; print(six.__version__, sys.prefix)") == (
        f"1.16.0 {built.folder / 'venv'}"
    )
    assert told[0].startswith(f"resolving 2 requirements for Python {OWN}.")
    assert told[1] == "installing 2 packages"
    assert told[2].startswith("the environment is ready, in ")
    log = built.log.read_text()
    assert all(line in log for line in (*told, "    |  + six==1.16.0"))
    description = json.loads((built.folder / "environment.json").read_text())
    assert "six==1.16.0" in description["packages"]
    assert "--hash=sha256:" in (built.folder / "requirements.lock").read_text()

    for path in (tmp_path / "environments", built.folder, *built.folder.rglob("*")):
        if not path.is_symlink():
            assert path.stat().st_mode & 0o055 == (0o055 if path.is_dir() else path.stat().st_mode & 0o011 | 0o044)

    again = list[str]()
    same = await EnvironmentBuilder(tmp_path / "environments").build(
        "requirements.txt", "tabulate  # tables\nsix==1.16.*\n", again.append
    )
    assert (same.digest, again) == (built.digest, ["the environment is there already"])


async def test_packages_are_hard_links_of_the_cache(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "environments", tmp_path / "cache")
    built = await builder.build("r.txt", "six==1.16.0", print)
    assert next(built.folder.glob("venv/lib/*/site-packages/six.py")).stat().st_nlink == 2


@pytest.fixture
def second_python(tmp_path: Path) -> Path:
    """This interpreter once more, in a place of its own: a machine need have no other."""
    own = Path(os.path.realpath(sys.executable))
    python = tmp_path / "second" / "bin" / f"python{OWN}"
    python.parent.mkdir(parents=True)
    shutil.copy(own, python)
    (tmp_path / "second" / "lib").symlink_to(Path(sys.base_prefix) / "lib")
    return python


async def test_another_python_that_is_asked_for_is_taken(tmp_path: Path, second_python: Path) -> None:
    builder = EnvironmentBuilder(tmp_path / "environments")
    assert builder.check("c.yml", CONDA % OWN) == []
    # No Python has this version, so it is this one that is asked for.
    builder.orders.installed.append(Interpreter("3.98.1", str(second_python)))
    own = await builder.build("c.yml", CONDA % OWN, print)
    other = await builder.build("c.yml", CONDA % "3.98", print)
    home = "import six, sys; print(sys.base_prefix)"
    assert (other.version, says(other, home)) == ("3.98.1", str(tmp_path / "second"))
    assert own.version != other.version
    assert own.digest != other.digest
    assert says(own, home) != says(other, home)


def test_a_python_on_the_path_is_found(tmp_path: Path, second_python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(second_python.parent), prepend=os.pathsep)
    builder = EnvironmentBuilder(tmp_path / "environments")
    builder.check("c.yml", CONDA % OWN)
    [found] = [one for one in builder.orders.installed if one.path == str(second_python)]
    assert found.minor == OWN


async def test_bytecode_is_compiled_in_the_background_for_the_runtime_too(tmp_path: Path) -> None:
    runtime = install(tmp_path)
    builder = EnvironmentBuilder(tmp_path / "environments", runtime=lambda: runtime)
    built = await builder.build("r.txt", "six==1.16.0", print)
    await until((built.folder / "compiled").exists)
    assert list(built.folder.glob("venv/lib/*/site-packages/__pycache__/six.*.pyc"))
    tag = says(built, "import sys; print(sys.implementation.cache_tag)")
    assert (runtime / "inference_server" / "__pycache__" / f"__main__.{tag}.pyc").exists()
    code = (
        f"import sys; sys.path.insert(0, {str(runtime)!r}); import inference_server; print(inference_server.__file__)"
    )
    assert says(built, code) == str(runtime / "inference_server" / "__init__.py")


async def test_two_who_want_the_same_build_it_once(tmp_path: Path) -> None:
    builders = [EnvironmentBuilder(tmp_path) for _ in range(3)]
    told = list[str]()
    environments = await asyncio.gather(*(one.build("r.txt", "six==1.16.0", told.append) for one in builders))
    assert len({one.digest for one in environments}) == 1
    assert len([line for line in told if line.startswith("resolving")]) == 1
    assert "waiting for another process that builds the same environment" in told


SCRIPT = """
import asyncio, sys
from pathlib import Path
from contracts.environments.builder import EnvironmentBuilder
builder = EnvironmentBuilder(Path(sys.argv[1]))
built = asyncio.run(builder.build("r.txt", "six==1.16.0", lambda line: print(line, flush=True)))
print(built.digest)
"""


async def process(root: Path) -> asyncio.subprocess.Process:
    """Another process that builds an environment of six."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRIPT, str(root)), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def test_processes_build_one_after_the_other(tmp_path: Path) -> None:
    running = [await process(tmp_path) for _ in range(2)]
    said = [(await one.communicate())[0].decode().splitlines() for one in running]
    assert said[0][-1] == said[1][-1]
    assert len([line for line in (*said[0], *said[1]) if line.startswith("resolving")]) == 1


async def test_a_build_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    running = await process(tmp_path)
    assert running.stdout is not None
    assert (await running.stdout.readline()).startswith(b"resolving")
    running.send_signal(signal.SIGKILL)
    await running.wait()
    assert len(left(tmp_path)) == 1
    built = await EnvironmentBuilder(tmp_path).build("r.txt", "six==1.16.0", print)
    assert says(built, "import six; print(six.__version__)") == "1.16.0"
    assert left(tmp_path) == []


async def test_what_killed_builds_left_is_removed_by_the_next_build_of_anything(tmp_path: Path) -> None:
    (tmp_path / "building" / ("a" * 64) / "venv").mkdir(parents=True)
    await EnvironmentBuilder(tmp_path).build("r.txt", "six==1.16.0", print)
    assert left(tmp_path) == []


async def test_a_canceled_build_leaves_no_process_and_no_folder(tmp_path: Path) -> None:
    begun = asyncio.Event()
    building = asyncio.create_task(EnvironmentBuilder(tmp_path).build("r.txt", "six==1.16.0", lambda line: begun.set()))
    await asyncio.wait_for(begun.wait(), PATIENCE)
    await asyncio.sleep(0)
    building.cancel()
    await asyncio.wait({building})
    assert building.cancelled()
    assert left(tmp_path) == []
    assert not [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if builds_in(pid, tmp_path)]


def builds_in(pid: int, root: Path) -> bool:
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
    return os.fsencode(root) in arguments and ProcessIdentity.of(pid) is not None


async def test_an_environment_whose_interpreter_is_gone_is_built_again(tmp_path: Path) -> None:
    builder = EnvironmentBuilder(tmp_path)
    built = await builder.build("r.txt", "six==1.16.0", print)
    built.python.unlink()
    built.python.symlink_to("/nowhere/python")
    assert await builder.build("r.txt", "six==1.16.0", print) == built
    assert says(built, "import six; print(six.__version__)") == "1.16.0"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("r.txt", "tabulate\nsix==99", "(line 2 asks for six==99). Next: choose a version that exists"),
        ("r.txt", f"six==1.16.0 --hash=sha256:{'0' * 64}", "Next: the index serves another file than the one"),
        ("r.txt", "json-logging-py==0.2", "Next: only built packages (wheels) are installed"),
        (
            "c.yml",
            "dependencies:\n- mkl\n- python=3.99\n",
            "c.yml, line 3: Python 3.99 is not on this machine, which has",
        ),
        ("c.yml", "dependencies:\n- mkl\n- python=3.99\n", "c.yml, line 2: 'mkl' cannot be had from PyPI"),
        ("r.txt", "-e .", "r.txt, line 1: '-e .' names a folder"),
    ],
)
async def test_a_failure_says_which_line_why_and_what_next(tmp_path: Path, name: str, text: str, words: str) -> None:
    with pytest.raises(BuildFailed) as failed:
        await EnvironmentBuilder(tmp_path).build(name, text, print)
    assert words in str(failed.value)
    if failed.value.log is not None:
        assert failed.value.log.read_text().splitlines()[-1] == failed.value.tail[-1]
        assert left(tmp_path) == []


async def test_a_build_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match=r"took longer than 0.001 s.*ENDPUNKT_ENVIRONMENT_SECONDS"):
        await EnvironmentBuilder(tmp_path, seconds=0.001).build("r.txt", "six==1.16.0", print)
    assert left(tmp_path) == []


async def test_an_index_that_cannot_be_reached_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:secret@127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    with pytest.raises(BuildFailed, match="Next: the package index cannot be reached") as failed:
        await EnvironmentBuilder(tmp_path, tmp_path / "cache").build("r.txt", "six==1.16.0", print)
    assert failed.value.log is not None
    assert "secret" not in failed.value.log.read_text() + str(failed.value)


def test_checking_tells_every_trouble_without_building(tmp_path: Path) -> None:
    troubles = EnvironmentBuilder(tmp_path).check("c.yml", "dependencies:\n- python=3.99\n- mkl\n- nothing-known\n")
    assert [trouble.line for trouble in troubles] == [2, 3, 4]
    assert list(tmp_path.iterdir()) == []
