"""The whole house: started as `make up` does, used as README says, given bad input, killed piece by piece, stopped."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from contracts.shell.processes import ProcessIdentity
from endpunkt_infra.kafka.jars import cache_directory
from endpunkt_infra.kcat import kcat_command
from endpunkt_infra.services import MODULES
from endpunkt_infra.stack.control import StackError, StackState, clean, down, up
from endpunkt_infra.stack.leftovers import leftovers
from endpunkt_infra.stack.ports import free_ports

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE = 60

pytestmark = pytest.mark.timeout(300)


class House:
    """A running Endpunkt, and a person's shell in a folder that has the examples."""

    def __init__(self, folder: Path):
        self.home = folder / "home"
        self.work = folder / "work"
        self.settings = free_ports() | {"ENDPUNKT_USAGE_SECONDS": "1"}
        shutil.copytree(ROOT / "examples", self.work / "examples")

    def up(self) -> dict[str, str]:
        return up(self.home, self.settings, lambda line: None, alone=True)

    def down(self) -> None:
        down(self.home, lambda line: None)

    def environment(self) -> dict[str, str]:
        """What `eval "$(make -s env)"` gives."""
        command = [sys.executable, "-m", "endpunkt_infra.stack", "--home", str(self.home), "env"]
        exports = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        script = f"{exports}\nenv -0"
        shell = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout
        return dict(line.split("=", 1) for line in shell.split("\0") if "=" in line)

    def shell(self, script: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a script as a person would type it; stops at the first line that fails."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.work,
            env={**self.environment(), **more},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def endpunkt(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """`endpunkt …` in the shell."""
        command = [sys.executable, "-m", "endpunkt_cli", *arguments]
        return subprocess.run(
            command,
            cwd=self.work,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def show(self, *arguments: str) -> dict[str, object]:
        """The JSON that a show command prints."""
        done = self.endpunkt(*arguments, "-o", "json")
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


def readme_block(language: str, holds: str) -> str:
    """The one block of README in `language` that holds a text."""
    [block] = [found for found in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if holds in found]
    return str(block)


def eventually(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    house = House(tmp_path_factory.mktemp("house"))
    house.up()
    try:
        block = readme_block("sh", "endpunkt online-endpoint invoke -n")
        lines = [line for line in block.splitlines() if line.startswith(("python", "endpunkt"))]
        assert len(lines) == 8, "README's walk has changed: look at what this fixture runs"
        done = house.shell("\n".join(lines))
        assert done.returncode == 0, done.stderr
        assert '"predictions"' in done.stdout
        yield house
    finally:
        house.down()


def traffic(house: House) -> object:
    return house.show("online-endpoint", "show", "-n", "diabetes")["traffic"]


def test_readme_curl_reaches_the_model_with_the_authority_and_the_key(house: House) -> None:
    done = house.shell(readme_block("sh", "curl --cacert"))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 2


def test_readme_kcat_changes_the_split_and_sees_the_reply(house: House) -> None:
    kcat = " ".join(kcat_command(cache_directory()))
    done = house.shell(f'kcat() {{ {kcat} "$@"; }}\n' + readme_block("sh", "kcat -P"))
    assert done.returncode == 0, done.stderr
    eventually("the split is 50/50", lambda: traffic(house) == {"blue": 50, "green": 50})
    replies = house.shell(
        f'{kcat} -C -b "$KAFKA_BOOTSTRAP_SERVERS" -t endpoints.replies -o beginning -e -q -f "%k %s\\n"'
    )
    assert [line for line in replies.stdout.splitlines() if line.startswith("split-50-50 ")]


def test_readme_python_changes_the_split(house: House) -> None:
    script = house.work / "publish.py"
    script.write_text(readme_block("python", "UpdateEndpoint"))
    done = house.shell("python publish.py")
    assert done.returncode == 0, done.stderr
    eventually("the split is all green", lambda: traffic(house) == {"blue": 0, "green": 100})


def test_readme_brings_a_folder_with_an_environment_and_reads_its_logs(house: House) -> None:
    done = house.shell(readme_block("sh", "teal.yml"))
    assert done.returncode == 0, done.stderr
    assert "init() took" in done.stdout
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "-d", "teal"]
    answer = house.endpunkt(*invoke, "--request-file", "examples/diabetes/request.json")
    assert answer.returncode == 0, answer.stderr
    assert len(json.loads(answer.stdout)["predictions"]) == 2
    deleted = house.endpunkt("online-deployment", "delete", "-e", "diabetes", "-n", "teal", "--yes")
    assert deleted.returncode == 0, deleted.stderr


def test_readme_debugs_a_deployment_without_any_service(house: House) -> None:
    done = house.shell(readme_block("sh", "--local-environment"), ENDPUNKT_LOCAL=str(house.work / "local"))
    assert done.returncode == 0, done.stderr
    assert '"predictions"' in done.stdout
    assert "init() took" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["online-endpoint", "create", "-n", "1-bad-"], ["name"]),
        (["online-endpoint", "update", "-n", "diabetes", "--traffic", "blue=60 green=30"], ["90", "100"]),
        (["online-endpoint", "update", "-n", "diabetes", "--traffic", "red=100"], ["red"]),
        (["online-endpoint", "show", "-n", "nowhere"], ["nowhere"]),
        (["online-deployment", "create", "-f", "missing-model.yml"], ["diabetes-cubic"]),
        (
            ["online-deployment", "create", "-f", "many-problems.yml"],
            ["many-problems.yml:9: instance_count", "many-problems.yml:10: environment"],
        ),
        (["online-deployment", "create", "-f", "unknown.yml"], ["Standard_No", "diabetes-linear:9"]),
        (["online-deployment", "create", "-f", "broken.yml"], ["broken.yml:18:3"]),
    ],
)
def test_bad_input_is_told_where_the_person_looks_and_changes_nothing(
    house: House, arguments: list[str], says: list[str]
) -> None:
    blue = (ROOT / "examples/diabetes/blue.yml").read_text().replace("code: online", "code: examples/diabetes/online")
    other = blue.replace("name: blue", "name: red")
    files = {
        "missing-model.yml": other.replace("diabetes-linear:1", "diabetes-cubic:1"),
        "many-problems.yml": other.replace("instance_count: 1", "instance_count: -1\nenvironment: {build: {path: .}}"),
        "unknown.yml": other.replace("Standard_DS1_v2", "Standard_No").replace(":1\ncode", ":9\ncode"),
        "broken.yml": other + "\n  - : [",
    }
    for name, text in files.items():
        (house.work / name).write_text(text)
    before = house.show("online-endpoint", "show", "-n", "diabetes")
    done = house.endpunkt(*arguments)
    assert done.returncode == 1
    for part in says:
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert house.show("online-endpoint", "show", "-n", "diabetes") == before


def test_a_script_that_raises_in_init_fails_its_deployment_alone_and_says_why(house: House) -> None:
    folder = house.work / "raises"
    folder.mkdir()
    (folder / "score.py").write_text(
        "def init():\n    raise OSError('the weights are missing')\n\ndef run(data):\n    return 1\n"
    )
    blue = (ROOT / "examples/diabetes/blue.yml").read_text()
    (house.work / "raises.yml").write_text(
        blue.replace("name: blue", "name: raises").replace("code: online", "code: raises")
    )
    done = house.endpunkt("online-deployment", "create", "-f", "raises.yml")
    assert done.returncode == 1
    assert "UserScriptInitFailed" in done.stderr
    assert "the weights are missing" in done.stderr
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
    assert house.endpunkt(*invoke).returncode == 0
    assert house.endpunkt("online-deployment", "delete", "-e", "diabetes", "-n", "raises", "--yes").returncode == 0


def test_a_body_that_is_no_json_and_a_certificate_that_is_not_trusted(house: House) -> None:
    key = "KEY=$(endpunkt online-endpoint get-credentials -n diabetes --query primaryKey -o tsv)\n"
    head = "-H @<(printf 'Authorization: Bearer %s' \"$KEY\")"
    post = f'{head} --data "not json" "$ENDPUNKT_SCORING_URL/diabetes/score"'
    done = house.shell(f'{key} curl -s --cacert "$ENDPUNKT_CA" -o body -w "%{{http_code}}" {post}; echo; cat body')
    status, body = done.stdout.split("\n", 1)
    assert status == "424", done.stdout
    assert "message" in body
    distrusting = house.shell(f"{key} curl -s --show-error {post}")
    assert distrusting.returncode == 60
    assert "certificate" in distrusting.stderr
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
    assert house.endpunkt(*invoke).returncode == 0


def running(house: House, name: str) -> ProcessIdentity | None:
    try:
        return ProcessIdentity.of(int(json.loads((house.home / "run" / f"{name}.json").read_text())["pid"]))
    except FileNotFoundError:
        return None


def test_a_service_that_is_killed_is_started_again_and_goes_on(house: House) -> None:
    for name in ("provisioner", "router"):
        killed = running(house, name)
        assert killed is not None
        killed.send(signal.SIGKILL)
        assert killed.wait(PATIENCE)
        eventually(f"{name} is back", lambda name=name, killed=killed: running(house, name) not in (None, killed))  # type: ignore[misc]
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
    eventually("scoring works again", lambda: house.endpunkt(*invoke).returncode == 0)
    update = ["online-endpoint", "update", "-n", "diabetes", "--traffic", "blue=90 green=10"]
    eventually("commands work again", lambda: house.endpunkt(*update).returncode == 0)


def test_down_leaves_nothing_running_and_up_finds_all_state_again(house: House) -> None:
    state = StackState.read(house.home)
    assert state is not None
    services = [running(house, name) for name in MODULES]
    records = [json.loads(file.read_text()) for file in house.home.glob("instances/*/instance.json")]
    instances = [ProcessIdentity(**record["process"]) for record in records]
    assert len(instances) >= 2
    house.down()
    assert not [
        process for process in (*services, *instances, state.supervisor) if process is not None and process.alive
    ]
    assert str(house.home).encode() not in b"".join(commands())
    house.up()
    assert traffic(house) == {"blue": 90, "green": 10}
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
    eventually("scoring works again", lambda: house.endpunkt(*invoke).returncode == 0)


def commands() -> Iterator[bytes]:
    """Every process's command line and environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        if int(folder.name) != os.getpid():
            try:
                yield (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes()
            except (FileNotFoundError, ProcessLookupError, PermissionError):  # gone, or somebody else's
                continue


def kill_supervisor(house: House) -> None:
    state = StackState.read(house.home)
    assert state is not None
    state.supervisor.send(signal.SIGKILL)
    assert state.supervisor.wait(PATIENCE)


def test_up_takes_over_from_a_supervisor_that_was_killed(house: House) -> None:
    before = [running(house, name) for name in MODULES]
    kill_supervisor(house)
    house.up()
    assert not [process for process in before if process is not None and process.alive]
    invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
    eventually("scoring works again", lambda: house.endpunkt(*invoke).returncode == 0)


def test_down_ends_instances_also_when_the_provisioner_is_gone(house: House) -> None:
    assert leftovers(house.home)
    kill_supervisor(house)
    provisioner = running(house, "provisioner")
    assert provisioner is not None
    provisioner.send(signal.SIGKILL)
    assert provisioner.wait(PATIENCE)
    house.down()
    assert not leftovers(house.home)
    eventually("nothing is left", lambda: str(house.home).encode() not in b"".join(commands()))


def test_up_in_a_shell_that_uses_this_house_starts_its_own_kafka_again(house: House) -> None:
    house.up()
    stack = 'python -m endpunkt_infra.stack --home "$ENDPUNKT_HOME"'
    done = house.shell(f"{stack} down && {stack} up", **house.settings)
    assert done.returncode == 0, done.stderr
    assert traffic(house) == {"blue": 90, "green": 10}


def test_clean_refuses_what_runs_and_what_is_no_house(house: House, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(StackError, match="not the home"):
        clean(tmp_path, lambda line: None)
    with pytest.raises(StackError, match="running"):
        clean(house.home, lambda line: None)
    assert (tmp_path / "precious").exists()


def test_no_key_and_no_token_is_in_any_log_or_command_line(house: House) -> None:
    token = (house.home / "secrets" / "admin-token").read_bytes()
    logs = b"".join(file.read_bytes() for file in house.home.glob("logs/*.log"))
    assert logs
    assert token not in logs
    assert b"Authorization" not in logs
