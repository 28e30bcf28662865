"""What the Makefile sees to before it runs something: Kafka's jars are there before anybody waits for Kafka."""

import os
import subprocess
from pathlib import Path

import pytest

INSTALL = "-m endpunkt_infra.kafka install"


def would_run(target: str, **environment: str) -> list[str]:
    """The commands of a target, in their order; none is run."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "KAFKA_"))}
    command = ["make", "--dry-run", "--always-make", target]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, cwd=root, env=inherited | environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def place(commands: list[str], part: str) -> int:
    [number] = [number for number, command in enumerate(commands) if part in command]
    return number


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        ("demo", "-m endpunkt_infra.demo"),
        ("up", "-m endpunkt_infra.stack"),
        ("test", "tests/integration"),
        ("bench-up", "bench/up.py"),
        ("bench-deploy", "bench/deploy.py"),
    ],
)
def test_what_starts_a_kafka_installs_its_jars_first(target: str, runs: str) -> None:
    commands = would_run(target)
    assert place(commands, "pip sync") < place(commands, INSTALL) < place(commands, runs)


def test_setup_installs_both_the_environment_and_the_jars() -> None:
    commands = would_run("setup")
    assert place(commands, "pip sync") < place(commands, INSTALL)


@pytest.mark.parametrize("target", ["test-fast", "lint", "down", "status"])
def test_what_starts_no_kafka_installs_no_jars(target: str) -> None:
    assert INSTALL not in "\n".join(would_run(target))


def test_with_a_cluster_of_ones_own_up_installs_no_jars() -> None:
    commands = "\n".join(would_run("up", KAFKA_BOOTSTRAP_SERVERS="kafka:9092"))
    assert "-m endpunkt_infra.stack" in commands
    assert INSTALL not in commands
    assert INSTALL in "\n".join(would_run("up", KAFKA_BOOTSTRAP_SERVERS=" "))
