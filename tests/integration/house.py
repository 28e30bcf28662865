"""A whole Endpunkt, and a person at a shell who uses it as README says."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.stack.control import down, up
from endpunkt_infra.stack.ports import free_ports

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE = 60


class House:
    """A running Endpunkt, and a person's shell in a folder that has the examples."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.work = folder / "work"
        self.settings = free_ports() | {"ENDPUNKT_USAGE_SECONDS": "1"}
        shutil.copytree(ROOT / "examples", self.work / "examples")

    def up(self) -> dict[str, str]:
        return up(self.home, self.settings, lambda line: None, alone=True)

    def down(self) -> None:
        down(self.home, lambda line: None)

    def environment(self) -> dict[str, str]:
        """What `eval "$(make -s env)"` gives."""
        command = [sys.executable, "-m", "endpunkt_infra.stack", "--home", str(self.home), "env"]
        exports = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        script = f"{exports}\nenv -0"
        shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in shell.split("\0") if "=" in line)

    def shell(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a person would type it; stops at the first line that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.work,
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def endpunkt(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`endpunkt …` in the shell."""
        command = [sys.executable, "-m", "endpunkt_cli", *arguments]
        return subprocess.run(
            command,
            cwd=self.work,
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def walk(self) -> subprocess.CompletedProcess[str]:
        """README's walk: two models behind one endpoint, and a first answer."""
        block = readme_block("sh", "endpunkt online-endpoint invoke -n")
        lines = [line for line in block.splitlines() if line.startswith(("python", "endpunkt"))]
        assert len(lines) == 8, "README's walk has changed: look at what this runs"
        return self.shell("\n".join(lines))

    def scores(self) -> bool:
        """Whether `endpunkt online-endpoint invoke` gets an answer."""
        invoke = ("online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json")
        return self.endpunkt(*invoke).returncode == 0

    def show(self, *arguments: str) -> dict[str, object]:
        """The JSON that a show command prints."""
        done = self.endpunkt(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def traffic(self) -> object:
        """The endpoint's split."""
        return self.show("online-endpoint", "show", "-n", "diabetes")["traffic"]

    def process(self, service: str) -> ProcessIdentity | None:
        """The service's process, once it has said which it is."""
        try:
            return ProcessIdentity.of(int(json.loads((self.home / "run" / f"{service}.json").read_text())["pid"]))
        except FileNotFoundError:
            return None


@contextmanager
def walked(folder: Path) -> Iterator[House]:
    """A house in which README's walk was done."""
    house = House(folder)
    house.up()
    try:
        done = house.walk()
        assert done.returncode == 0, done.stderr
        assert '"predictions"' in done.stdout
        yield house
    finally:
        house.down()


def readme_block(language: str, holds: str) -> str:
    """The one block of README in `language` that holds a text."""
    [block] = [found for found in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holds in found]
    return str(block)


def eventually(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def commands() -> Iterator[bytes]:
    """Every process's command line and environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            try:
                yield (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
                continue
