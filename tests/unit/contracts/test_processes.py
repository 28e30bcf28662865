"""A process is its pid, its start time and its boot; nothing that merely bears the pid is touched."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from contracts.shell.processes import ProcessIdentity

OBEDIENT = "import signal; print('ready', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + OBEDIENT


@pytest.fixture
def child(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[str]]:
    script = getattr(request, "param", OBEDIENT)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def identity(process: subprocess.Popen[str]) -> ProcessIdentity:
    found = ProcessIdentity.of(process.pid)
    assert found
    return found


def test_a_live_process_is_itself(child: subprocess.Popen[str]) -> None:
    assert identity(child).alive
    assert identity(child) != ProcessIdentity.of(os.getpid())


def test_a_zombie_is_not_alive(child: subprocess.Popen[str]) -> None:
    before = identity(child)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # dead, and not yet reaped
    assert ProcessIdentity.of(child.pid) is None
    assert not before.alive


@pytest.mark.parametrize("change", [{"started": 1}, {"boot": "an earlier boot"}])
def test_a_recycled_pid_is_another_process_and_is_not_signalled(
    child: subprocess.Popen[str], change: dict[str, Any]
) -> None:
    earlier = replace(identity(child), **change)
    assert not earlier.alive
    assert earlier.terminate(patience=0.0)
    assert child.poll() is None


def test_sigterm_is_enough_for_most(child: subprocess.Popen[str]) -> None:
    assert identity(child).terminate(patience=30.0)
    assert child.wait() == -signal.SIGTERM


@pytest.mark.parametrize("child", [STUBBORN], indirect=True)
def test_sigkill_after_the_patience(child: subprocess.Popen[str]) -> None:
    assert not identity(child).terminate(patience=0.05)
    assert child.wait() == -signal.SIGKILL


def test_to_terminate_what_is_gone_is_done_already(child: subprocess.Popen[str]) -> None:
    gone = identity(child)
    child.kill()
    child.wait()
    assert gone.terminate(patience=0.0)
