"""What a data directory says of the broker that runs on it."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka.broker import Broker, Running


@pytest.mark.parametrize("content", ["", "4711", "{}", '{"process": {"pid": 1}, "port": 1, "recording": ""}', "[]"])
def test_a_pid_file_that_is_not_ours_is_no_running_broker(tmp_path: Path, content: str) -> None:
    (tmp_path / "kafka.pid").write_text(content)
    broker = Broker(tmp_path)
    assert not broker.is_running
    assert not broker.stop()
    assert not (tmp_path / "kafka.pid").exists()


def test_stop_leaves_a_stranger_with_the_old_pid_alone(tmp_path: Path) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
    identity = ProcessIdentity.of(stranger.pid)
    assert identity
    stale = Running(replace(identity, started=1), port=20000, recording="")
    (tmp_path / "kafka.pid").write_text(json.dumps(asdict(stale)))
    broker = Broker(tmp_path)
    assert not broker.is_running
    assert not broker.stop()
    assert identity.alive
    stranger.kill()
    stranger.wait()


def test_stop_makes_no_data_directory(tmp_path: Path) -> None:
    assert not Broker(tmp_path / "none").stop()
    assert not (tmp_path / "none").exists()
