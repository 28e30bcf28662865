"""`endpunkt` as a process, in a folder of its own."""

import asyncio
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60


@dataclass
class Result:
    """How a command ended."""

    code: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """What it printed; it must have succeeded."""
        assert self.code == 0, self.errors
        return json.loads(self.output)


@dataclass
class Command:
    """`endpunkt` in a folder, with an environment that names one installation."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("ENDPUNKT_") and name not in ("PYTHONDONTWRITEBYTECODE", "FORCE_COLOR")
        }
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "endpunkt_cli", *arguments,
            cwd=self.folder, env={**environment, "COLUMNS": "200", **self.environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def __call__(self, *arguments: str) -> Result:
        process = await self.start(*arguments)
        async with asyncio.timeout(PATIENCE):
            output, errors = await process.communicate()
        assert process.returncode is not None
        return Result(process.returncode, output.decode(), errors.decode())

    def write(self, name: str, text: str) -> str:
        """A file in the command's folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name
