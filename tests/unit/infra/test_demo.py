"""A demo that fails says why, stops everything, exits with 1, and leaves no report that could be taken for its own."""

from pathlib import Path

import pytest

from contracts.shell.secrets import admin_token
from contracts.shell.tls import server_context
from endpunkt_infra.demo import __main__ as demo
from endpunkt_infra.demo import steps
from endpunkt_infra.demo.client import Client, DemoFailed
from endpunkt_infra.kafka.ports import free_port
from endpunkt_infra.stack.control import StackError


class Machine:
    """Stands in for `up` and `down`: keeps what was asked, fails as it is told to. Nothing listens where `up` says."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.up_fails: Exception | None = None
        self.down_fails: Exception | None = None

    def up(self, home: Path, environment: dict[str, str], tell: object, *, alone: bool) -> dict[str, str]:
        assert alone
        self.asked.append("up")
        if self.up_fails:
            raise self.up_fails
        server_context(home, "studio", ["localhost"])
        admin_token(home)
        nobody = f"https://localhost:{free_port()}"
        return {"kafka": "localhost:1", "scoring": nobody, "management": nobody}

    def down(self, home: Path, tell: object) -> None:
        self.asked.append("down")
        if self.down_fails and "up" in self.asked:
            raise self.down_fails


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(demo, "up", machine.up)
    monkeypatch.setattr(demo, "down", machine.down)
    return machine


@pytest.fixture
def broken_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = tmp_path / "example"
    example.mkdir()
    (example / "train.py").write_text("raise SystemExit('the data set is [not] here')\n")
    monkeypatch.setattr(steps, "EXAMPLES", example)


def fails(home: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run the demo where an earlier one left its report; what it prints."""
    home.mkdir()
    (home / "report.json").write_text("{}")
    assert demo.main(["--home", str(home)]) == 1
    assert not (home / "report.json").exists()
    said = capsys.readouterr()
    assert f"logs: {home / 'state' / 'logs'}" in said.out
    assert "Traceback" not in said.out + said.err
    return said.out


@pytest.mark.parametrize("why", [StackError("Endpunkt did not start: [Errno 28]"), OSError(28, "No space left")])
def test_what_does_not_start(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], why: Exception
) -> None:
    machine.up_fails = why
    assert f"the demo failed: {why}" in fails(tmp_path / "demo", capsys)
    assert machine.asked == ["down", "up", "down"]


@pytest.mark.usefixtures("broken_training")
def test_a_step_that_fails(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = fails(tmp_path / "demo", capsys)
    assert "the demo failed: train.py ended with 1:\nthe data set is [not] here" in told
    assert machine.asked == ["down", "up", "down"]


@pytest.mark.usefixtures("broken_training")
def test_a_stop_that_fails_after_a_step_has(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.down_fails = StackError("the supervisor 7 is still stopping")
    told = fails(tmp_path / "demo", capsys)
    assert told.index("train.py ended with 1") < told.index("the demo failed: the supervisor 7 is still stopping")


def test_a_stop_that_fails_after_a_story_that_went_well(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "_tell", lambda *told: machine.asked.append("up"))
    machine.down_fails = StackError("the supervisor 7 is still stopping")
    assert "the demo failed: the supervisor 7 is still stopping" in fails(tmp_path / "demo", capsys)


async def test_a_studio_that_does_not_answer_is_a_failure_that_names_the_question(
    machine: Machine, tmp_path: Path
) -> None:
    async with Client(tmp_path, tmp_path, machine.up(tmp_path, {}, None, alone=True)) as client:
        with pytest.raises(DemoFailed, match=r"GET /v1/costs failed: ClientConnectorError"):
            await client.get("/v1/costs")
