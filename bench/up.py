"""From `make up` to everything ready, and what the idle system with two deployments costs: `make bench-up`.

Memory is the sum of the processes' proportional set sizes (a page that several share is counted once), CPU their user
and system time over the interval by process accounting. Every process of Endpunkt counts: Kafka, supervisor, services,
instances.
"""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from results import write_results
from rich.console import Console

from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Client
from endpunkt_infra.demo.story import Story
from endpunkt_infra.stack.control import down, up
from endpunkt_infra.stack.ports import free_ports

STARTS = 3
SETTLE_SECONDS = 15
IDLE_SECONDS = 30

TARGETS = {"ready_s": {"max": 15}, "idle_mib": {"max": 1228.8}, "idle_core_share": {"max": 0.08}}


def processes(home: Path) -> dict[int, str]:
    """Every process of the Endpunkt under `home`, by name: home is in its arguments or environment."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if str(home).encode() in command + (folder / "environ").read_bytes() and int(folder.name) != os.getpid():
                found[int(folder.name)] = _name(command.decode(errors="replace").split("\0"))
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
            continue
    return found


def _name(arguments: list[str]) -> str:
    return arguments[arguments.index("-m") + 1] if "-m" in arguments else arguments[-2]


def pss_mib(pid: int) -> float:
    """Proportional set size in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Pss for {pid}")


def cpu_seconds(pid: int) -> float:
    """User and system time so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _two_deployments(story: Story, home: Path, work: Path, addresses: dict[str, str]) -> None:
    async with Client(home, work, addresses) as client:
        steps.prepare(story, work)
        await steps.register(story, client)
        await steps.deploy(story, client)


def main() -> int:
    """Measure, print, write bench/results/up.json; 1 when a target is missed."""
    story = Story(Console(), steps=1)
    with tempfile.TemporaryDirectory(prefix="endpunkt-bench-") as folder:
        home, work = Path(folder) / "home", Path(folder) / "work"
        ready = []
        try:
            for _ in range(STARTS):
                down(home, story.say)
                shutil.rmtree(home, ignore_errors=True)
                began = time.monotonic()
                addresses = up(home, free_ports(), story.say, alone=True)
                ready.append(time.monotonic() - began)
                story.say(f"ready after {ready[-1]:.1f} s")
            asyncio.run(_two_deployments(story, home, work, addresses))
            time.sleep(SETTLE_SECONDS)
            before = {pid: cpu_seconds(pid) for pid in processes(home)}
            time.sleep(IDLE_SECONDS)
            names = processes(home)
            shares = {pid: (cpu_seconds(pid) - before.get(pid, 0.0)) / IDLE_SECONDS for pid in names}
            memory = {pid: pss_mib(pid) for pid in names}
        finally:
            down(home, story.say)
    for pid, name in sorted(names.items()):
        story.say(f"{name:34} {memory[pid]:7.0f} MiB {shares[pid] * 100:6.2f} % of a core")
    met = write_results(
        "up",
        ratios={},
        figures={
            "ready_s": round(statistics.median(ready), 2),
            "idle_mib": round(sum(memory.values()), 1),
            "idle_core_share": round(sum(shares.values()), 4),
            "processes": len(names),
        },
        targets=TARGETS,
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
