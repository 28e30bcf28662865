"""The server under each Python that a user's environment may have. It is run under those that this machine has; the run
says which it has not, and the oldest one's grammar is checked on every machine.
"""

import ast
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import uv
from tests.integration.instances import ServerProcess

import inference_server

SOURCE = Path(inference_server.__file__).parents[1]
VERSIONS = ("3.9", "3.10", "3.11", "3.12", "3.13")
SCRIPT = """
import asyncio, sys
def init(): ...
async def later(data): return data
def run(data):
    if data == "stream": return (piece for piece in "ab")
    return [asyncio.run(later(data)), *sys.version_info[:2]]
"""


def found(version: str) -> Path | None:
    """An interpreter of this version, where one is installed; pyenv keeps its own outside of PATH."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    kept = [folder for folder in os.environ["PATH"].split(os.pathsep) if not folder.startswith(str(pyenv))]
    path = os.pathsep.join([*map(str, sorted(pyenv.glob("versions/*/bin"))), *kept])
    command = [uv.find_uv_bin(), "python", "find", "--no-project", "--no-python-downloads", version]
    environ = {**os.environ, "PATH": path}
    environ.pop("VIRTUAL_ENV", None)
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    return Path(done.stdout.strip()) if done.returncode == 0 else None


PYTHONS = {version: path for version in VERSIONS if (path := found(version)) is not None}
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
PYTHONS[OWN] = Path(sys.executable)
MODULES = sorted((SOURCE / "inference_server").rglob("*.py"))


def test_the_versions_that_are_not_covered_here_are_told() -> None:
    """In pytest's summary of warnings: one Python is enough to work on Endpunkt, and the run says what that leaves."""
    assert OWN in PYTHONS
    for version, python in PYTHONS.items():
        says = [str(python), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        assert subprocess.run(says, capture_output=True, text=True, check=True).stdout.strip() == version
    if missing := [version for version in VERSIONS if version not in PYTHONS]:
        warnings.warn(
            f"the server was run under Python {', '.join(PYTHONS)} and not under {', '.join(missing)}, which this "
            "machine has not: install them (pyenv will do) to have them covered",
            stacklevel=1,
        )


def test_every_module_is_written_in_the_oldest_pythons_grammar() -> None:
    major, minor = map(int, VERSIONS[0].split("."))
    assert MODULES
    for module in MODULES:
        ast.parse(module.read_text(), str(module), feature_version=(major, minor))


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("version", PYTHONS)
def test_the_server_runs(tmp_path: Path, version: str, workers: str) -> None:
    python = str(PYTHONS[version])
    server = ServerProcess(tmp_path, SCRIPT, python=python, PYTHONPATH=str(SOURCE), WORKER_COUNT=workers)
    try:
        assert server.ask("GET", "/")[1] == b"Healthy"
        for number in range(40):
            expected = [str(number), *map(int, version.split("."))]
            assert json.loads(server.ask("POST", "/score", str(number))[1]) == expected
        assert server.ask("POST", "/score", "stream")[1] == b"ab"
        assert server.ask("GET", "/swagger.json")[0].status == 200
        assert server.stop() == 0
    finally:
        server.process.kill()
        server.wait()


@pytest.mark.parametrize("version", PYTHONS)
def test_every_module_can_be_imported(version: str) -> None:
    """Also those that the server imports only when they are asked for."""
    names = [".".join(path.relative_to(SOURCE).with_suffix("").parts) for path in MODULES if path.name != "__init__.py"]
    command = [str(PYTHONS[version]), "-c", f"import importlib\nfor name in {names}: importlib.import_module(name)"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
