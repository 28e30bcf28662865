"""How the demo reaches Endpunkt, as a user would: the `endpunkt` command, the management API, the scoring URI."""

import asyncio
import json
import os
import ssl
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp

from contracts.shell.secrets import admin_token
from contracts.shell.tls import ca_path

T = TypeVar("T")

_POLL_SECONDS = 0.2


class DemoFailed(RuntimeError):
    """Something did not go as the story tells; the text says what was seen instead."""


@dataclass
class Answers:
    """What came back from scoring: counts by deployment, by status, and what went wrong without a status."""

    sent: int = 0
    deployments: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @property
    def failed(self) -> int:
        """How many were not answered with 200."""
        return self.sent - self.statuses.get(200, 0)


class Client:
    """One user of the Endpunkt under `home`."""

    def __init__(self, home: Path, work: Path, addresses: dict[str, str]):
        self._home = home
        self._work = work
        self._management = addresses["management"]
        self._scoring = addresses["scoring"]
        self._http: aiohttp.ClientSession | None = None
        self.routed = 0
        """How many scoring requests were answered by a deployment: what metering has to count."""

    async def __aenter__(self) -> "Client":
        context = ssl.create_default_context(cafile=ca_path(self._home))
        connector = aiohttp.TCPConnector(ssl=context, limit=64, keepalive_timeout=60)
        self._http = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def command(self, *arguments: str) -> Any:
        """Run `endpunkt …` in the examples' folder; the JSON that it prints. Raises DemoFailed with what it said."""
        environment = {
            **os.environ,
            "ENDPUNKT_HOME": str(self._home),
            "ENDPUNKT_CA": str(ca_path(self._home)),
            "ENDPUNKT_TOKEN": "",
            "ENDPUNKT_STUDIO_URL": self._management,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "endpunkt_cli", *arguments, "-o", "json",
            cwd=self._work, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            output, errors = await process.communicate()
        finally:
            if process.returncode is None:  # canceled, because another command failed
                process.kill()
                await process.wait()
        if process.returncode != 0:
            raise DemoFailed(f"endpunkt {' '.join(arguments)} failed:\n{errors.decode(errors='replace')}")
        return json.loads(output) if output.strip() else None

    async def get(self, path: str) -> Any:
        """GET a path of the management API. Raises DemoFailed with what went wrong."""
        assert self._http is not None
        headers = {"Authorization": f"Bearer {admin_token(self._home)}"}
        try:
            async with self._http.get(self._management + path, headers=headers) as answer:
                if answer.status != 200:
                    raise DemoFailed(f"GET {path} answered {answer.status}: {await answer.text()}")
                return await answer.json()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoFailed(f"GET {path} failed: {error!r}") from error

    async def until(
        self, what: str, ask: Callable[[], Awaitable[T]], enough: Callable[[T], bool], seconds: float = 40
    ) -> T:
        """Ask until the answer is enough. Raises DemoFailed with the last answer when it never is."""
        deadline = time.monotonic() + seconds
        while True:
            answer = await ask()
            if enough(answer):
                return answer
            if time.monotonic() > deadline:
                raise DemoFailed(f"{what}: not after {seconds:.0f} s; the last answer was {answer}")
            await asyncio.sleep(_POLL_SECONDS)

    async def score(self, answers: Answers, key: str, body: bytes, deployment: str | None = None) -> None:
        """Send one scoring request and note what came back."""
        assert self._http is not None
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        if deployment is not None:
            headers["azureml-model-deployment"] = deployment
        answers.sent += 1
        try:
            async with self._http.post(f"{self._scoring}/diabetes/score", data=body, headers=headers) as answer:
                text = await answer.text()
                status = answer.status
                answers.statuses[status] = answers.statuses.get(status, 0) + 1
                if status != 200:
                    answers.errors.append(f"{status} {text[:200]}")
                if (name := answer.headers.get("azureml-model-deployment")) is not None:
                    answers.deployments[name] = answers.deployments.get(name, 0) + 1
                    self.routed += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            answers.errors.append(repr(error))
