"""The server under each Python that a user's environment may have, as far as this machine has it."""

import json
import os
import subprocess
import sys
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
PYTHONS[f"{sys.version_info[0]}.{sys.version_info[1]}"] = Path(sys.executable)


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
    names = [
        ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        for path in sorted((SOURCE / "inference_server").rglob("*.py"))
        if path.name != "__init__.py"
    ]
    command = [str(PYTHONS[version]), "-c", f"import importlib\nfor name in {names}: importlib.import_module(name)"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
