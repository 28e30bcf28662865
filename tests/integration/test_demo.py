"""`make demo`: the whole story ends well, its report holds the figures that it promises, and nothing of it is left."""

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from tests.integration.house import commands

STEPS = ["start", "register", "split", "scaling", "recovery", "batch", "cost"]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a demo ran that exited with 0, over the remains of another one."""
    home = tmp_path_factory.mktemp("demo")
    (home / "report.json").write_text('{"of": "an earlier run"}')
    (home / "work" / "models").mkdir(parents=True)
    command = [sys.executable, "-m", "endpunkt_infra.demo", "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    assert f"every figure: {home / 'report.json'}" in done.stdout
    return home


@pytest.fixture(scope="module")
def report(home: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((home / "report.json").read_text())
    return report


def test_the_report_tells_each_step_and_how_long_it_took(report: dict[str, Any]) -> None:
    told = ["split", "pinned", "unauthorized", "scaling", "recovery", "batch", "cost", "seconds"]
    assert list(report) == told
    assert list(report["seconds"]) == STEPS
    assert all(isinstance(seconds, float) and seconds >= 0 for seconds in report["seconds"].values())


def test_requests_are_split_pinned_and_refused(report: dict[str, Any]) -> None:
    assert report["split"] == {"requests": 1000, "blue": 900, "green": 100}
    assert report["pinned"] == {"requests": 50, "green": 50}
    assert report["unauthorized"] == {"requests": 1, "status": 401}


def test_a_rule_scales_out_and_in_again_and_says_why(report: dict[str, Any]) -> None:
    out, back = report["scaling"]
    assert (out["previous"], out["instances"]) == (1, 2)
    assert (back["previous"], back["instances"]) == (2, 1)
    assert "GreaterThan 3000: 1 -> 2" in out["reason"]
    assert "LessThan 600: 2 -> 1" in back["reason"]
    assert out["decided_at"] < back["decided_at"]


def test_no_request_fails_while_an_instance_is_killed_and_replaced(report: dict[str, Any]) -> None:
    assert report["recovery"]["failed"] == 0
    assert report["recovery"]["requests"] > 40  # it is killed at the 40th
    assert "replaced_within_seconds" in report["recovery"]


def test_the_batch_job_scores_every_row_and_leaves_no_compute(home: Path, report: dict[str, Any]) -> None:
    files = list((home / "work" / "patients").glob("*.csv"))
    rows = sum(len(file.read_text().splitlines()) - 1 for file in files)
    assert (len(files), rows) == (12, 442)
    assert report["batch"] == {"files": 12, "rows": 442, "status": "Completed", "processes": 2, "left": 0}


def test_the_costs_of_all_deployments_sum_exactly_to_the_whole(report: dict[str, Any]) -> None:
    *rows, whole = report["cost"]
    assert [(row["endpoint"], row["deployment"]) for row in rows] == [
        ("diabetes", "blue"),
        ("diabetes", "green"),
        ("diabetes-batch", "linear"),
    ]
    assert (whole["endpoint"], whole["deployment"]) == ("all", "all")
    assert all(Decimal(row["cost"]) > 0 for row in rows)
    assert sum(Decimal(row["cost"]) for row in rows) == Decimal(whole["cost"])
    assert sum(row["requests"] for row in rows) == whole["requests"]
    assert whole["requests"] >= 1000 + 50 + report["recovery"]["requests"]


def test_no_process_of_it_is_left(home: Path, report: dict[str, Any]) -> None:
    assert report
    assert [command for command in commands() if str(home).encode() in command] == []
