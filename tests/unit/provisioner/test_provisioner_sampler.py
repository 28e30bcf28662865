"""Samples of what instances use: percentages of their type, told together, and never in the way."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from contracts.catalog import load_catalog
from contracts.log import Offset
from contracts.messages import OnlineDeploymentSpec, ResourceSample
from provisioner.compute.use import Use
from provisioner.core.lifecycle import Place
from provisioner.meter import Sampler

PATIENCE = 10


class Instance:
    """One that runs, as the sampler sees it."""

    def __init__(self, id: str, folder: Path, kind: str = "Standard_DS2_v2"):
        spec = OnlineDeploymentSpec(code_configuration={"code": "/s", "scoring_script": "s.py"}, instance_type=kind)
        self.record = SimpleNamespace(id=id, place=Place("shop", "blue", 1, 0), spec=spec)
        self.folder = SimpleNamespace(path=folder)
        self.used: Use | None = Use(10.0, 7 * 2**29)

    def use(self, sessions: object) -> Use | None:
        return self.used


class Log:
    """Takes samples; says that they are durable only when `acknowledged` is set."""

    def __init__(self) -> None:
        self.samples: list[ResourceSample] = []
        self.acknowledged = asyncio.Event()
        self.came = asyncio.Condition()

    async def send(self, sample: ResourceSample) -> "asyncio.Future[Offset]":
        async with self.came:
            self.samples.append(sample)
            self.came.notify_all()
        return asyncio.ensure_future(self._durable())

    async def _durable(self) -> Offset:
        await self.acknowledged.wait()
        return Offset("scaling.signals", 0, len(self.samples))


@pytest.mark.parametrize("acknowledges", [True, False])
async def test_every_ready_instance_is_told_each_second(tmp_path: Path, acknowledges: bool) -> None:
    """All of a second are sent before the first is waited for; a log that takes none holds nothing up."""
    log = Log()
    if acknowledges:
        log.acknowledged.set()
    ready: list[Any] = [Instance("a", tmp_path), Instance("b", tmp_path), Instance("c", tmp_path, "Moon")]
    gone = Instance("d", tmp_path)
    gone.used = None
    sampler = Sampler(log, "p", load_catalog(), lambda: [*ready, gone])  # type: ignore[arg-type]
    running = asyncio.create_task(sampler.run())
    async with asyncio.timeout(PATIENCE), log.came:
        await log.came.wait_for(lambda: len(log.samples) >= 4)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    log.acknowledged.set()
    assert [sample.instance for sample in log.samples[:4]] == ["a", "b", "a", "b"]
    first = log.samples[0]
    assert (first.endpoint, first.deployment, first.source) == ("shop", "blue", "p")
    assert (first.cpu_percent, first.memory_percent) == (0.0, 50.0)
    assert first.disk_percent is not None
    assert 0 < first.disk_percent <= 100
    assert log.samples[2].at > first.at
    assert first.at.microsecond == 0


def test_cpu_is_the_share_of_what_the_type_has_between_two_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance, now = Instance("a", tmp_path / "gone"), iter([100.0, 102.0, 103.0])
    monkeypatch.setattr("provisioner.meter.time.monotonic", lambda: next(now))
    sampler = Sampler(None, "p", load_catalog(), list)  # type: ignore[arg-type]
    assert sampler._samples([instance]) == [], "the first look begins the account"  # type: ignore[list-item]
    instance.used = Use(12.0, 0)
    (sample,) = sampler._samples([instance])  # type: ignore[list-item]
    assert sample.cpu_percent == 50.0, "two seconds of the four that two processors have in two"
    assert sample.disk_percent is None
    instance.used = Use(11.0, 0)
    (sample,) = sampler._samples([instance])  # type: ignore[list-item]
    assert sample.cpu_percent == 0.0
