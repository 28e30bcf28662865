"""`--local`: a deployment on this machine without Kafka or any service, as its author meets it."""

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.integration.command import PATIENCE, Command
from tests.integration.dap import DebugAdapter

SCORE = """\
import json, os

def init():
    global factor
    factor = int(open(os.path.join(os.environ["AZUREML_MODEL_DIR"], "weights", "factor")).read())
    print("the factor is", factor, os.environ["STAGE"])

def run(data):
    value = json.loads(data)["x"]
    answer = value * factor
    return {"answer": answer}
"""
IN_INIT, IN_RUN = 5, 10
DEPLOYMENT = """\
$schema: https://azuremlschemas.azureedge.net/latest/managedOnlineDeployment.schema.json
name: blue
endpoint_name: echo
model: {path: weights}
code_configuration: {code: src, scoring_script: score.py}
environment: azureml://registries/azureml/environments/sklearn-1.5/labels/latest
environment_variables: {STAGE: 7}
"""
BLUE = ("-e", "echo", "-n", "blue")
CREATE = ("online-deployment", "create", "--local", "-f", "blue.yml", "--local-environment")
UPDATE = ("online-deployment", "update", "--local", *BLUE)
INVOKE = ("online-endpoint", "invoke", "--local", "-n", "echo", "--request-file", "request.json")


@pytest.fixture
async def endpunkt(tmp_path: Path) -> AsyncIterator[Command]:
    """The command in a folder with a deployment; whatever it started is ended."""
    folder = tmp_path / "work"
    folder.mkdir()
    command = Command(
        folder,
        {
            "ENDPUNKT_LOCAL": str(tmp_path / "local"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "ENDPUNKT_HOME": str(tmp_path / "nowhere"),
        },
    )
    command.write("src/score.py", SCORE)
    command.write("weights/factor", "2")
    command.write("blue.yml", DEPLOYMENT)
    command.write("request.json", '{"x": 4}')
    yield command
    for endpoint in (await command("online-endpoint", "list", "--local")).json:
        assert (await command("online-endpoint", "delete", "--local", "-n", endpoint["name"])).code == 0


async def test_the_life_of_a_local_deployment(endpunkt: Command) -> None:
    made = (await endpunkt(*CREATE)).json
    assert (made["name"], made["endpoint_name"], made["location"]) == ("blue", "echo", "local")
    assert (made["provisioning_state"], made["error"]) == ("Succeeded", None)
    assert (await endpunkt(*INVOKE)).json == {"answer": 8}
    assert (await endpunkt(*INVOKE, "-d", "blue")).json == {"answer": 8}

    again = await endpunkt(*CREATE)
    assert (again.code, "endpunkt: the local deployment echo/blue exists: update it" in again.errors) == (1, True)
    endpunkt.write("weights/factor", "3")
    updated = (await endpunkt(*UPDATE)).json
    assert updated["scoring_uri"] == made["scoring_uri"]
    assert updated["pid"] != made["pid"]
    assert (await endpunkt(*INVOKE)).json == {"answer": 12}
    shown = (await endpunkt("online-deployment", "show", "--local", *BLUE)).json
    assert shown == updated
    assert shown["environment_variables"] == {"STAGE": "7"}

    logs = ("online-deployment", "get-logs", "--local", *BLUE)
    assert "the factor is 3 7\n" in (await endpunkt(*logs)).output
    assert (await endpunkt(*logs, "--lines", "1")).output.count("\n") == 1
    assert "the services' own" in (await endpunkt(*logs, "--container", "storage-initializer")).output
    assert (await endpunkt("online-endpoint", "show", "--local", "-n", "echo")).json == {
        "name": "echo", "location": "local", "auth_mode": "none", "provisioning_state": "Succeeded",
        "scoring_uri": updated["scoring_uri"], "deployments": {"blue": "Succeeded"},
    }  # fmt: skip

    os.kill(updated["pid"], signal.SIGKILL)
    async with asyncio.timeout(PATIENCE):
        while (dead := (await endpunkt("online-deployment", "list", "--local", "-e", "echo")).json[0])["pid"]:
            pass
    assert (dead["provisioning_state"], dead["error"]["message"]) == ("Failed", "its process has ended")
    unanswered = await endpunkt(*INVOKE)
    assert (unanswered.code, "gave no answer" in unanswered.errors) == (1, True)
    assert (await endpunkt(*UPDATE, "--set", "environment_variables.STAGE=8")).code == 0
    assert "the factor is 3 8\n" in (await endpunkt(*logs)).output

    assert (await endpunkt("online-deployment", "delete", "--local", *BLUE)).code == 0
    assert (endpunkt.folder / "weights" / "factor").exists()
    gone = await endpunkt("online-deployment", "show", "--local", *BLUE)
    assert (gone.code, "there is no local deployment 'blue'" in gone.errors) == (1, True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(made["scoring_uri"].rpartition(":")[2].partition("/")[0])))


async def test_local_endpoints(endpunkt: Command) -> None:
    endpunkt.write("endpoint.yml", "name: echo\nauth_mode: key\ndescription: it echoes\n")
    create = ("online-endpoint", "create", "--local", "-f", "endpoint.yml")
    assert (await endpunkt(*create)).json["description"] == "it echoes"
    assert "exists" in (await endpunkt(*create)).errors
    none = await endpunkt(*INVOKE)
    assert (none.code, "has these deployments: none" in none.errors) == (1, True)
    green = (await endpunkt(*CREATE, "-n", "green")).json
    assert (await endpunkt(*CREATE, "--port", green["scoring_uri"].split(":")[2].split("/")[0])).code == 1
    assert (await endpunkt(*CREATE)).code == 0
    which = await endpunkt(*INVOKE)
    assert (which.code, "has these deployments: blue, green." in which.errors) == (1, True)
    assert (await endpunkt(*INVOKE, "--deployment-name", "green")).json == {"answer": 8}
    assert (await endpunkt("online-endpoint", "delete", "--local", "-n", "echo")).code == 0
    assert (await endpunkt("online-endpoint", "list", "--local")).json == []
    for name in ("../echo", "echo"):
        assert (await endpunkt("online-endpoint", "delete", "--local", "-n", name)).code == 1


async def test_a_script_that_fails_is_told_with_its_traceback_and_can_be_made_again(endpunkt: Command) -> None:
    endpunkt.write("weights/factor", "two")
    failed = await endpunkt(*CREATE)
    assert (failed.code, failed.output) == (1, "")
    assert "echo/blue failed: UserScriptInitFailed: " in failed.errors
    assert "ValueError: invalid literal for int()" in failed.errors.partition("The end of its log:")[2]
    shown = (await endpunkt("online-deployment", "show", "--local", *BLUE)).json
    assert (shown["provisioning_state"], shown["error"]["code"]) == ("Failed", "UserScriptInitFailed")
    endpunkt.write("weights/factor", "2")
    assert (await endpunkt(*CREATE)).code == 0
    endpunkt.write("request.json", "{}")
    raised = await endpunkt(*INVOKE)
    assert (raised.code, raised.errors.startswith("endpunkt: echo/blue answered 500: ")) == (1, True)


async def test_what_cannot_be_started_is_told_with_its_place(endpunkt: Command) -> None:
    registry = await endpunkt("online-deployment", "create", "--local", "-f", "blue.yml")
    assert (registry.code, registry.errors[:38]) == (1, "endpunkt: blue.yml:6: environment: it "), registry.errors
    registered = await endpunkt(*CREATE, "--set", "model=azureml:weights:1")
    assert (
        "--set model=azureml:weights:1: model: azureml:weights:1 is registered with the services" in registered.errors
    )
    missing = await endpunkt(*CREATE, "--set", "code_configuration.scoring_script=other.py", "--set", "model.path=none")
    assert "code_configuration.scoring_script: there is no such file in src" in missing.errors
    secret = await endpunkt(*CREATE, "--set", "environment_variables.KEY=${{azureml://connections/c/credentials/key}}")
    assert "environment_variables.KEY: --local has no connections" in secret.errors

    endpunkt.write("src/score.py", "def init():\n    pass\n\ndef run(data:\n")
    broken = await endpunkt(*CREATE)
    assert (broken.code, "src/score.py:4: is no Python: '(' was never closed" in broken.errors) == (1, True)
    as_it_is = await endpunkt(*CREATE, "--skip-script-validation")
    assert "UserScriptImportError" in as_it_is.errors
    endpunkt.write("src/score.py", "def init():\n    pass\n")
    assert "src/score.py: defines no `run`" in (await endpunkt(*CREATE)).errors
    away = await endpunkt("online-deployment", "create", "-f", "blue.yml", "--vscode-debug")
    assert (away.code, "give --local too" in away.errors) == (2, True)


async def test_a_debugger_stops_in_init_and_in_run(endpunkt: Command) -> None:
    endpunkt.write(".vscode/launch.json", '{\n    // mine\n    "configurations": [{"name": "Tests"}],\n}\n')
    creating = await endpunkt.start(*CREATE, "--vscode-debug")
    assert creating.stderr is not None
    async with asyncio.timeout(PATIENCE):
        while b"waits for a debugger on port" not in (line := await creating.stderr.readline()):
            assert line, "it ended"
    launch = (endpunkt.folder / ".vscode" / "launch.json").read_text()
    assert "// mine" in launch
    assert '{"name": "Tests"}' in launch
    shown = (await endpunkt("online-deployment", "show", "--local", *BLUE)).json
    assert shown["provisioning_state"] == "Creating"
    port = shown["debug_port"]
    assert f'"port": {port}' in launch
    assert '"name": "Attach to echo/blue"' in launch

    def debugged() -> tuple[str, str]:
        """What the debugger sees in init(), then in run()."""
        with DebugAdapter(port) as debugger:
            debugger.attach({endpunkt.folder / "src" / "score.py": [IN_INIT, IN_RUN]})
            stopped = debugger.wait_for("stopped")
            where = debugger.frame(stopped)["name"]
            debugger.resume(stopped)
            stopped = debugger.wait_for("stopped")
            value = debugger.variables(stopped)["value"]
            debugger.resume(stopped)
            debugger.disconnect()
            return where, value

    debugging = asyncio.create_task(asyncio.to_thread(debugged))
    async with asyncio.timeout(PATIENCE):
        output, errors = await creating.communicate()
        assert (creating.returncode, json.loads(output)["provisioning_state"]) == (0, "Succeeded"), errors
        assert (await endpunkt(*INVOKE)).json == {"answer": 8}
        assert await debugging == ("init", "4")


async def test_an_environment_is_built_once(endpunkt: Command) -> None:
    endpunkt.write("conda.yml", f"dependencies:\n  - python={sys.version_info[0]}.{sys.version_info[1]}\n")
    create = (
        "online-deployment",
        "create",
        "--local",
        "-f",
        "blue.yml",
        "--set",
        "environment={conda_file: conda.yml}",
    )
    first = await endpunkt(*create)
    assert (first.code, "installing" in first.errors) == (0, True), first.errors
    second = await endpunkt(*create, "-n", "green")
    assert (second.code, "is there already" in second.errors) == (0, True), second.errors
    logs = ("online-deployment", "get-logs", "--local", *BLUE, "--container", "storage-initializer")
    assert "the environment is ready" in (await endpunkt(*logs)).output
    assert (await endpunkt(*INVOKE, "-d", "green")).json == {"answer": 8}

    endpunkt.write("conda.yml", "dependencies:\n  - python=2.7\n")
    unknown = await endpunkt(*create, "-n", "red")
    assert (unknown.code, unknown.errors.startswith("endpunkt: conda.yml:2: ")) == (1, True), unknown.errors
