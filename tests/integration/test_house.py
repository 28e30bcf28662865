"""The whole house: started as `make up` does, used as README says, given bad input, killed piece by piece, stopped."""

import asyncio
import json
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.integration.house import PATIENCE, ROOT, House, commands, eventually, readme_block, walked

from contracts.shell.processes import ProcessIdentity
from contracts.shell.tls import ca_path, server_context
from endpunkt_infra.kafka.jars import cache_directory
from endpunkt_infra.kcat import kcat_command
from endpunkt_infra.services import MODULES
from endpunkt_infra.stack.control import StackError, StackState, clean
from endpunkt_infra.stack.leftovers import leftovers

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with walked(tmp_path_factory.mktemp("house")) as house:
        yield house


def test_readme_curl_reaches_the_model_with_the_authority_and_the_key(house: House) -> None:
    done = house.shell(readme_block("sh", "curl --cacert"))
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["predictions"]) == 2


def test_readme_kcat_changes_the_split_and_sees_the_reply(house: House) -> None:
    kcat = " ".join(kcat_command(cache_directory()))
    done = house.shell(f'kcat() {{ {kcat} "$@"; }}\n' + readme_block("sh", "kcat -P"))
    assert done.returncode == 0, done.stderr
    eventually("the split is 50/50", lambda: house.traffic() == {"blue": 50, "green": 50})
    replies = house.shell(
        f'{kcat} -C -b "$KAFKA_BOOTSTRAP_SERVERS" -t endpoints.replies -o beginning -e -q -f "%k %s\\n"'
    )
    assert [line for line in replies.stdout.splitlines() if line.startswith("split-50-50 ")]


def test_readme_python_changes_the_split(house: House) -> None:
    script = house.work / "publish.py"
    script.write_text(readme_block("python", "UpdateEndpoint"))
    done = house.shell("python publish.py")
    assert done.returncode == 0, done.stderr
    eventually("the split is all green", lambda: house.traffic() == {"blue": 0, "green": 100})


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
        (["online-endpoint", "create", "-n", "1-bad-"], ["--name", "3 to 32 letters, digits and hyphens"]),
        (["online-endpoint", "create", "-n", "ab"], ["--name", "at least 3 characters"]),
        (["online-endpoint", "create", "-n", "a" * 33], ["--name", "at most 32 characters"]),
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
    assert house.scores()
    assert house.endpunkt("online-deployment", "delete", "-e", "diabetes", "-n", "raises", "--yes").returncode == 0


KEY = "KEY=$(endpunkt online-endpoint get-credentials -n diabetes --query primaryKey -o tsv)"
POST = """-H @<(printf 'Authorization: Bearer %s' "$KEY") --data "not json" "$ENDPUNKT_SCORING_URL/diabetes/score\""""


def test_a_body_that_is_no_json_is_told_to_who_sent_it(house: House) -> None:
    done = house.shell(f'{KEY}; curl -s --cacert "$ENDPUNKT_CA" -o body -w "%{{http_code}}" {POST}; echo; cat body')
    status, body = done.stdout.split("\n", 1)
    assert status == "424", done.stdout
    assert "The request's body is not JSON" in json.loads(body)["message"]
    assert house.scores()


def test_curl_does_not_trust_the_router_without_the_authority(house: House) -> None:
    distrusting = house.shell(f"{KEY}; curl -s --show-error {POST}")
    assert distrusting.returncode == 60
    assert "certificate" in distrusting.stderr


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def test_invoke_at_a_router_that_is_not_trusted_says_who_is_not_and_what_to_do(
    house: House, tmp_path: Path
) -> None:
    """The studio is reached by a proxy with a certificate of its own, whose authority says nothing of the router."""
    studio = urlsplit(house.environment()["ENDPUNKT_STUDIO_URL"])
    router = urlsplit(str(house.show("online-endpoint", "show", "-n", "diabetes")["scoring_uri"])).netloc
    trust = ssl.create_default_context(cafile=ca_path(house.home))

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to_there = await asyncio.open_connection(studio.hostname, studio.port, ssl=trust)
        await asyncio.gather(pipe(reader, to_there), pipe(there, writer))

    certificate = server_context(tmp_path, "proxy", ["localhost"])
    async with await asyncio.start_server(relay, "127.0.0.1", 0, ssl=certificate) as proxy:
        proxied = f"https://localhost:{proxy.sockets[0].getsockname()[1]}"
        invoke = ["online-endpoint", "invoke", "-n", "diabetes", "--request-file", "examples/diabetes/request.json"]
        authority = str(ca_path(tmp_path))
        done = await asyncio.to_thread(house.endpunkt, *invoke, ENDPUNKT_STUDIO_URL=proxied, ENDPUNKT_CA=authority)
    assert done.returncode == 1
    assert f"the certificate of https://{router} is not trusted by {authority}: " in done.stderr
    assert "ENDPUNKT_CA" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_service_that_is_killed_is_started_again_and_goes_on(house: House) -> None:
    for name in ("provisioner", "router"):
        killed = house.process(name)
        assert killed is not None
        killed.send(signal.SIGKILL)
        assert killed.wait(PATIENCE)
        eventually(f"{name} is back", lambda name=name, killed=killed: house.process(name) not in (None, killed))  # type: ignore[misc]
    eventually("scoring works again", house.scores)
    update = ["online-endpoint", "update", "-n", "diabetes", "--traffic", "blue=90 green=10"]
    eventually("commands work again", lambda: house.endpunkt(*update).returncode == 0)


def test_down_leaves_nothing_running_and_up_finds_all_state_again(house: House) -> None:
    state = StackState.read(house.home)
    assert state is not None
    services = [house.process(name) for name in MODULES]
    records = [json.loads(file.read_text()) for file in house.home.glob("instances/*/instance.json")]
    instances = [ProcessIdentity(**record["process"]) for record in records]
    assert len(instances) >= 2
    house.down()
    assert not [
        process for process in (*services, *instances, state.supervisor) if process is not None and process.alive
    ]
    assert str(house.home).encode() not in b"".join(commands())
    house.up()
    assert house.traffic() == {"blue": 90, "green": 10}
    eventually("scoring works again", house.scores)


def kill_supervisor(house: House) -> None:
    state = StackState.read(house.home)
    assert state is not None
    state.supervisor.send(signal.SIGKILL)
    assert state.supervisor.wait(PATIENCE)


def test_up_takes_over_from_a_supervisor_that_was_killed(house: House) -> None:
    before = [house.process(name) for name in MODULES]
    kill_supervisor(house)
    house.up()
    assert not [process for process in before if process is not None and process.alive]
    eventually("scoring works again", house.scores)


def test_down_ends_instances_also_when_the_provisioner_is_gone(house: House) -> None:
    assert leftovers(house.home)
    kill_supervisor(house)
    provisioner = house.process("provisioner")
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
    assert house.traffic() == {"blue": 90, "green": 10}


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
