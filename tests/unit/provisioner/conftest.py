"""A home whose instances are real processes, prepared from files that a test writes."""

import asyncio
import http.client
import importlib.util
import json
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from contracts.artifacts import artifact_path
from contracts.catalog import Catalog, InstanceType, load_catalog
from contracts.messages import (
    Artifact,
    CodeConfiguration,
    DeploymentDesired,
    DeploymentError,
    OnlineDeploymentSpec,
)
from provisioner.compute.prepared import Prepared
from provisioner.compute.probes import probe
from provisioner.compute.process import InstanceProcess, ProcessCompute
from provisioner.core.failures import Exit
from provisioner.core.lifecycle import Place

PLACE = Place("shop", "blue", 3, 0)
PATIENCE = 20
GOOD = "import os\ndef init(): pass\ndef run(data): return dict(os.environ)\n"


def catalog() -> Catalog:
    """The usual one, and types that are small enough for tests."""
    known = load_catalog()
    small = {
        "Tiny": InstanceType(vcpus=0.2, memory_gib=0.15, price_per_hour="0"),
    }
    return known.model_copy(update={"instance_types": {**known.instance_types, **small}})


class Heard:
    """Hears what a probe tells. `words` are what it said, the two events are set by the first of theirs."""

    def __init__(self, settings: OnlineDeploymentSpec):
        self.settings = settings
        self.words: list[str] = []
        self.errors: list[DeploymentError] = []
        self.is_ready, self.is_unready = asyncio.Event(), asyncio.Event()

    def spec(self) -> OnlineDeploymentSpec:
        return self.settings

    def ready(self) -> None:
        self.words.append("ready")
        self.is_ready.set()

    def unready(self, failures: int, last: str) -> None:
        self.words.append(f"unready after {failures}: {last}")
        self.is_unready.set()

    def condemned(self, error: DeploymentError) -> None:
        self.words.append("condemned")
        self.errors.append(error)


class Home:
    """A home with artifacts, and everything that was started in it."""

    def __init__(self, path: Path):
        self.path = path
        self.compute = ProcessCompute(path, catalog())
        self.started: list[InstanceProcess] = []

    def again(self) -> ProcessCompute:
        """The compute of a provisioner that comes after."""
        return ProcessCompute(self.path, catalog())

    def artifact(self, name: str, text: str) -> Artifact:
        artifact = Artifact(digest=f"{len(text) + len(name):064x}", name=name)
        folder = artifact_path(self.path / "artifacts", artifact)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "score.py").write_text(text)
        return artifact

    def template(self, script: str = GOOD, model: bool = False, **settings: Any) -> DeploymentDesired:
        configuration = CodeConfiguration(code="/src", scoring_script="score.py")
        return DeploymentDesired(
            generation=3,
            spec=OnlineDeploymentSpec(code_configuration=configuration, **settings),
            model=self.artifact("weights", "w") if model else None,
            code=self.artifact("src", script),
        )

    def prepared(self, template: DeploymentDesired) -> Prepared:
        package = importlib.util.find_spec("inference_server")
        assert package is not None
        assert package.origin is not None
        runtime, copied = Path(package.origin).parent, self.path / "runtime" / "inference_server"
        if not copied.exists():
            shutil.copytree(runtime, copied, ignore=shutil.ignore_patterns("__pycache__"))
        code, model = (
            artifact_path(self.path / "artifacts", each) if each is not None else None
            for each in (template.code, template.model)
        )
        return Prepared(Path(sys.executable), copied.parent, code, model)

    def start(
        self, template: DeploymentDesired, id: str = "shop-blue-1", variables: Mapping[str, str] | None = None
    ) -> tuple[InstanceProcess, "asyncio.Future[Exit]"]:
        given = template.spec.environment_variables if isinstance(template.spec, OnlineDeploymentSpec) else {}
        process = self.compute.start(id, PLACE, template, self.prepared(template), variables or given)
        self.started.append(process)
        return process, self.watch(process)

    def watch(self, process: InstanceProcess) -> "asyncio.Future[Exit]":
        ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        process.watch(ended.set_result)
        return ended

    async def answered(self, process: InstanceProcess) -> None:
        """Wait until the instance is ready; fails with its output when it ends instead."""
        heard = Heard(process.record.spec)
        watching = asyncio.create_task(probe(process.record.address, process.folder, heard, False))
        try:
            async with asyncio.timeout(PATIENCE):
                await heard.is_ready.wait()
        except TimeoutError:
            raise AssertionError(process.folder.log_tail().decode()) from None
        finally:
            watching.cancel()

    async def score(self, process: InstanceProcess, data: object) -> Any:
        """What the instance answers."""

        def ask() -> Any:
            connection = http.client.HTTPConnection(process.record.address, timeout=PATIENCE)
            try:
                connection.request("POST", "/score", json.dumps(data), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                body = answer.read()
                assert answer.status == 200, body
                return json.loads(body)
            finally:
                connection.close()

        return await asyncio.to_thread(ask)


@pytest.fixture
def hears() -> type[Heard]:
    return Heard


@pytest.fixture
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    made = Home(tmp_path)
    yield made
    for process in made.started:
        process.kill()
        # Groups outlive their processes by a moment.
        await asyncio.to_thread(made.compute.discard, process, False)
    made.compute.close()
    assert not any(folder.exists() for folder in made.compute.isolation.groups.folders.values())
