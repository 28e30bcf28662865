"""Scripts that can be served and scripts that cannot: found, imported, checked, initialised, reported."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from inference_server import monitoring
from inference_server import request as ours
from inference_server.http import Request
from inference_server.inputs import InputError
from inference_server.request import AMLRequest
from inference_server.response import AMLResponse
from inference_server.script import TREE_LINES, Script, ScriptError, load, report
from inference_server.settings import Settings

# It brings numpy, which cannot be loaded twice: so before the fixture below looks at what is loaded.
importlib.import_module("inference_schema.schema_decorators")
importlib.import_module("inference_schema.parameter_types.standard_py_parameter_type")
SCHEMA = (
    "from inference_schema.schema_decorators import input_schema\n"
    "from inference_schema.parameter_types.standard_py_parameter_type import StandardPythonParameterType\n"
    "schema = input_schema('data', StandardPythonParameterType(1))\n"
)
GOOD = "def init(): pass\ndef run(data): return data\n"


@pytest.fixture(autouse=True)
def _own_interpreter_state(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("path", "argv", "meta_path"):
        monkeypatch.setattr(sys, name, list(getattr(sys, name)))
    monkeypatch.setattr(ours, "_rawHttpRequested", False)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def served(folder: Path, files: dict[str, str], **environ: str) -> Script:
    return load(Settings.from_environ({"AML_APP_ROOT": str(write(folder, files)), **environ}))


def refused(folder: Path, files: dict[str, str], **environ: str) -> ScriptError:
    def start() -> None:
        script = served(folder, files, **environ)
        script.input_parser()
        script.initialise()

    with pytest.raises(ScriptError) as refusal:
        start()
    return refusal.value


def test_the_entry_script(tmp_path: Path) -> None:
    script = served(tmp_path, {"src/score.py": GOOD}, AZUREML_ENTRY_SCRIPT="src/score.py")
    assert script.path == str(tmp_path / "src/score.py")
    assert script.run("x") == "x"
    assert sys.argv == [script.path]


def test_main_where_no_entry_script_is_named(tmp_path: Path) -> None:
    assert served(tmp_path, {"main.py": GOOD}).path == str(tmp_path / "main.py")


def test_modules_of_the_source_directory(tmp_path: Path) -> None:
    files = {"main.py": "from helper import init, run", "src/helper.py": GOOD}
    assert served(tmp_path, files, AZUREML_SOURCE_DIRECTORY="src").run("x") == "x"


def test_classes_of_the_script_can_be_looked_up(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses, pickle\n"
        "@dataclasses.dataclass\nclass C:\n  x: int\n"
        "def init(): pickle.loads(pickle.dumps(C(1)))\ndef run(data): pass\n"
    )
    served(tmp_path, {"score.py": text}, AZUREML_ENTRY_SCRIPT="score.py").initialise()


@pytest.mark.parametrize(
    ("text", "code", "says"),
    [
        ("import nowhere", "UserScriptImportError", "ModuleNotFoundError: No module named 'nowhere'"),
        ("def init(: pass", "UserScriptImportError", "SyntaxError: "),
        ("raise SystemExit(0)", "UserScriptImportError", "SystemExit: 0"),
        ("open('/nowhere/model')", "UserScriptImportError", "FileNotFoundError: "),
        ("def run(data): pass", "UserScriptFunctionNotFound", "score.py does not have a init() function defined."),
        ("def init(): pass", "UserScriptFunctionNotFound", "score.py does not have a run() function defined."),
        ("init = run = 1", "UserScriptFunctionNotFound", "init() function defined.\nUser script at "),
        ("def init(): 1 / 0\ndef run(data): pass", "UserScriptInitFailed", "ZeroDivisionError: division by zero"),
        ("import sys\ndef init(): sys.exit()\ndef run(data): pass", "UserScriptInitFailed", "SystemExit"),
        (
            "class E(Exception):\n  def __str__(self): 1 / 0\ndef init(): raise E\ndef run(data): pass",
            "UserScriptInitFailed",
            "E: <exception str() failed>",
        ),
        ("def init(): pass\ndef run(*data): pass", "BadArgument", "score.py: run() cannot accept positional-only"),
        (
            SCHEMA + "from azureml.contrib.services import rawhttp\n@rawhttp\n@schema\ndef run(data): pass\n"
            "def init(): pass",
            "BadArgument",
            "both @rawhttp and @input_schema",
        ),
    ],
)
def test_scripts_that_are_refused(tmp_path: Path, text: str, code: str, says: str) -> None:
    error = refused(tmp_path, {"score.py": text}, AZUREML_ENTRY_SCRIPT="score.py")
    assert error.code == code
    assert says in error.message


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({}, "No score script found. Expected score script main.py in "),
        ({"AZUREML_ENTRY_SCRIPT": "a/score.py"}, "No score script found at "),
    ],
)
def test_scripts_that_are_not_there(tmp_path: Path, environ: dict[str, str], says: str) -> None:
    error = refused(tmp_path, {}, **environ)
    assert error.code == "UserScriptImportError"
    assert error.message.startswith(says)
    assert str(tmp_path) in error.message


def test_schema_mode(tmp_path: Path) -> None:
    script = served(tmp_path, {"main.py": SCHEMA + "@schema\ndef run(data): return data\ndef init(): pass\n"})
    body = Request("POST", "/score", {"content-type": "application/json"}, b'{"data": 1}', False, False)
    assert script.input_parser()(body) == {"data": 1}
    assert script.interface().inputs["properties"] == {"data": {"type": "integer", "format": "int64"}}
    run = script.routes(Settings.from_environ({})).calls["/score"].run
    assert run(data=2) == 2
    with pytest.raises(InputError, match="The input does not fit the schema of run") as caught:
        run(data="two")
    assert caught.value.status == 400


def test_the_script_behind_a_driver_is_run(tmp_path: Path) -> None:
    driver = "import behind as driver_module\ndef init(): pass\ndef run(data): return 'the driver'\n"
    script = served(tmp_path, {"main.py": driver, "behind.py": "def run(data): return 'the script'\n"})
    assert script.run(data="") == "the script"


@pytest.mark.parametrize("package", ["azureml.contrib.services", "azureml_inference_server_http.api"])
@pytest.mark.parametrize("form", ["from {} import rawhttp", "import {}\nrawhttp = {}.rawhttp"])
def test_azures_modules_can_be_imported(tmp_path: Path, package: str, form: str) -> None:
    module = f"{package}.aml_request"
    text = (
        f"{form.format(module, module)}\nfrom {package}.aml_response import AMLResponse\n"
        f"from {module} import AMLRequest\n@rawhttp\ndef run(request): pass\ndef init(): pass\n"
    )
    script = served(tmp_path, {"main.py": text})
    assert script.raw_http
    assert vars(sys.modules["main"])["AMLRequest"] is AMLRequest
    assert vars(sys.modules["main"])["AMLResponse"] is AMLResponse


def test_a_real_package_wins(tmp_path: Path) -> None:
    real = (
        "_rawHttpRequested = False\n"
        "def rawhttp(run):\n  global _rawHttpRequested\n  _rawHttpRequested = True\n  return run\n"
    )
    files = {f"azureml/{name}__init__.py": "" for name in ("", "contrib/", "contrib/services/")}
    files["azureml/contrib/services/aml_request.py"] = real
    files["main.py"] = (
        "from azureml.contrib.services.aml_request import rawhttp\n"
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        "@rawhttp\ndef run(request): pass\ndef init(): pass\n"
    )
    script = served(tmp_path, files)
    assert script.raw_http
    assert not ours._rawHttpRequested
    assert vars(sys.modules["main"])["AMLResponse"] is AMLResponse


def test_the_data_collector_is_always_ours(tmp_path: Path) -> None:
    """The real one talks to a process that only Azure has."""
    files = {f"azureml/{name}__init__.py": "" for name in ("", "ai/")}
    files["azureml/ai/monitoring/__init__.py"] = "raise ImportError('the real one')\n"
    files["azureml/other.py"] = "OTHER = 1\n"
    files["main.py"] = (
        "from azureml.ai.monitoring import Collector\n"
        "from azureml.ai.monitoring.context import BasicCorrelationContext\n"
        "from azureml.other import OTHER\n" + GOOD
    )
    served(tmp_path, files)
    assert vars(sys.modules["main"])["Collector"] is monitoring.Collector


def test_what_nobody_has_stays_missing(tmp_path: Path) -> None:
    assert "No module named 'azureml.core'" in refused(tmp_path, {"main.py": "import azureml.core"}).message


def test_the_report_has_the_scripts_own_frames_and_the_tree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = write(tmp_path / "model", {"a/weights.bin": "", "b.txt": ""})
    (model / "a/loop").symlink_to(model)
    error = refused(tmp_path, {"main.py": "def init():\n  raise OSError('no model')\ndef run(data): pass"})
    report(error, Settings.from_environ({"AZUREML_MODEL_DIR": str(model)}))
    lines = capsys.readouterr().err.splitlines()
    assert lines[:3] == [
        "User's init function failed: OSError: no model",
        "Traceback (most recent call last):",
        f'  File "{tmp_path}/main.py", line 2, in init',
    ]
    assert lines[-6:] == [
        "Model Directory Contents:",
        "model/",
        "    a/",
        "        loop/",
        "        weights.bin",
        "    b.txt",
    ]


@pytest.mark.parametrize(("files", "truncated"), [(TREE_LINES - 1, False), (TREE_LINES, True)])
def test_a_long_tree_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str], files: int, truncated: bool) -> None:
    model = write(tmp_path / "model", {f"{number:03}": "" for number in range(files)})
    report(ScriptError("UserScriptInitFailed", "x"), Settings.from_environ({"AZUREML_MODEL_DIR": str(model)}))
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == ("Output Truncated. First 200 lines shown." if truncated else f"    {files - 1:03}")
    assert len(lines) == 2 + TREE_LINES + truncated
