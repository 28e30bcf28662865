"""Writes what a benchmark measured: bench/results/<name>.json, and the same as a table with met / missed."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def write_results(
    name: str,
    *,
    ratios: Mapping[str, float],
    figures: Mapping[str, Any],
    targets: Mapping[str, Mapping[str, float]],
) -> bool:
    """Write and print one benchmark's results; whether every target was met.

    `targets` maps a ratio's or a figure's name to {"max": …} or {"min": …}.
    """
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False)
    result = {
        "name": name,
        "commit": commit.stdout.strip(),
        "machine": {"system": platform.platform(), "processor": _processor(), "cores": os.cpu_count()},
        "ratios": dict(ratios),
        "figures": dict(figures),
        "targets": {target: dict(bound) for target, bound in targets.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    all_met = True
    for measured, value in {**ratios, **figures}.items():
        verdict = ""
        if bound := targets.get(measured):
            met = value <= bound.get("max", float("inf")) and value >= bound.get("min", float("-inf"))
            all_met = all_met and met
            verdict = f"{'met' if met else 'MISSED'} ({', '.join(f'{kind} {limit}' for kind, limit in bound.items())})"
        sys.stdout.write(f"  {measured:32} {value!s:>12}  {verdict}\n")
    return all_met


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
