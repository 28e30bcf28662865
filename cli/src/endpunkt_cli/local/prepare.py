"""What a local deployment runs with: its interpreter, its runtime, and the variables of its process.

Everything is used where it lies: an edit is seen at the next `update --local`.
"""

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from contracts.messages import PROTOCOL, WARMUP_REQUEST, OnlineDeploymentSpec
from endpunkt_cli.errors import CliError
from endpunkt_cli.files import BadFile, Trouble
from endpunkt_cli.forms import Resource
from endpunkt_cli.local.process import DRAIN_SECONDS
from endpunkt_cli.local.record import Folder, Record
from endpunkt_cli.options import tell
from endpunkt_cli.references import path_of

_KEPT = ("HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_FILE")
"""What is taken over of the person's own environment; what else a script needs stands in environment_variables."""

_BUILDING = ("ENDPUNKT_ENVIRONMENT_BUILDS", "ENDPUNKT_ENVIRONMENT_SECONDS")
"""The services' settings that count for a build here too."""

_MLFLOW_ENVIRONMENTS = ("conda.yaml", "requirements.txt")
_LONGEST_BREAK_MS = 24 * 3_600_000
_CONNECTION = "${{azureml://connections/"


class EnvironmentFile(NamedTuple):
    """A conda YAML or a requirements.txt: its name, its text, and what a person knows it by."""

    name: str
    text: str
    place: str


@dataclass(frozen=True)
class Sources:
    """Where on this machine the parts of a deployment lie."""

    code: Path | None
    model: Path | None
    environment: EnvironmentFile | None


def sources_of(resource: Resource, local_environment: bool) -> Sources:
    """The parts of a deployment. Raises BadFile for each that does not lie here."""
    spec, troubles = OnlineDeploymentSpec.model_validate(resource.body), []
    found: dict[str, Path] = {}
    for field, id in (
        ("model", spec.model and spec.model.id),
        ("environment", spec.environment and spec.environment.id),
    ):
        if id:
            key = "path" if field == "model" else "conda_file"
            hint = f"{id} is registered with the services, which --local does without: give a path, as in "
            troubles.append(resource.source.trouble(field, hint + f"--set '{field}={{{key}: …}}'"))
    for field in resource.paths:
        uri = _at(resource.body, field)
        if uri is None or field in resource.texts:
            continue
        path = path_of(uri)
        if path is None:
            troubles.append(resource.source.trouble(field, f"{uri} does not lie on this machine: give a path"))
        elif not Path(path).exists():
            troubles.append(resource.source.trouble(field, f"there is no {path}"))
        else:
            found[field] = Path(path)
    for name, value in spec.environment_variables.items():
        if _CONNECTION in value:
            hint = f"--local has no connections: give the value with --set environment_variables.{name}=…"
            troubles.append(resource.source.trouble(f"environment_variables.{name}", hint))
    code, model = found.get("code_configuration.code"), found.get("model.path")
    if not troubles and code is None and (model is None or spec.model is None or spec.model.type != "mlflow_model"):
        hint = "give a script (code_configuration), or an MLflow model (`model: {path: …, type: mlflow_model}`)"
        troubles.append(resource.source.trouble("", hint))
    if troubles:
        raise BadFile(troubles)
    return Sources(code, model, None if local_environment else _environment(resource, found, model, code))


def _environment(
    resource: Resource, found: Mapping[str, Path], model: Path | None, code: Path | None
) -> EnvironmentFile | None:
    if text := resource.texts.get("environment.conda_file"):
        return EnvironmentFile("conda.yml", text, f"{resource.source.place('environment.conda_file')}: conda_file")
    given = found.get("environment.conda_file")
    if given is None and code is None and model is not None:
        given = next((model / name for name in _MLFLOW_ENVIRONMENTS if (model / name).is_file()), None)
    if given is None:
        return None
    try:
        return EnvironmentFile(given.name, given.read_text(encoding="utf-8"), os.path.relpath(given))
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile([Trouble(os.path.relpath(given), "", f"is no text file that can be read: {error}")]) from None


@dataclass(frozen=True)
class Interpreter:
    """A Python with the deployment's packages, and the folder that holds the inference server."""

    python: Path
    runtime: Path
    build_log: Path | None = None


def interpreter(environment: EnvironmentFile | None, debug: bool) -> Interpreter:
    """Build what is not built yet. Raises CliError."""
    from contracts.environments.runtime import install

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "endpunkt"
    runtime = install(cache)
    if environment is None:
        if debug and importlib.util.find_spec("debugpy") is None:
            raise CliError(
                f"debugpy is not installed for {sys.executable}: install it there (pip install debugpy), "
                "or give the deployment an environment, to which it is added."
            )
        return Interpreter(Path(sys.executable), runtime)
    return _built(environment, debug, cache, runtime)


def _built(environment: EnvironmentFile, debug: bool, cache: Path, runtime: Path) -> Interpreter:
    from contracts.environments.builder import BuildFailed, EnvironmentBuilder
    from contracts.shell.settings import Settings, SettingsError, load_settings

    name, text, place = environment
    try:
        settings = load_settings(Settings, {each: os.environ[each] for each in _BUILDING if each in os.environ})
    except SettingsError as error:
        raise CliError(str(error)) from None
    builder = EnvironmentBuilder(
        cache / "environments",
        builds=settings.environment_builds,
        compiles=False,
        seconds=settings.environment_seconds,
    )
    if troubles := builder.check(name, text):
        raise BadFile([Trouble(f"{place}:{each.line}", "", each.message) for each in troubles])
    try:
        built = asyncio.run(builder.build(name, with_debugpy(name, text) if debug else text, tell))
    except BuildFailed as error:
        log = f"All of its log: {error.log}" if error.log is not None else ""
        lines = [f"ImageBuildFailure: {place}: {error}", *(f"  {line}" for line in error.tail), log]
        raise CliError("\n".join(filter(None, lines))) from None
    return Interpreter(built.python, runtime, built.log)


def variables_of(
    spec: OnlineDeploymentSpec, record: Record, sources: Sources, with_: Interpreter, folder: Folder
) -> dict[str, str]:
    """The environment of the process: what an instance of the provisioner would get, and the person's home."""
    given = spec.environment_variables
    timeout = spec.request_settings.request_timeout_ms if record.debug_port is None else _LONGEST_BREAK_MS
    variables = {
        **{name: os.environ[name] for name in _KEPT if name in os.environ},
        "PATH": f"{with_.python.parent}:{os.environ.get('PATH', os.defpath)}",
        **given,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(with_.runtime), given.get("PYTHONPATH")))),
        "SCORING_TIMEOUT_MS": str(timeout),
        "ENDPUNKT_ENDPOINT": record.endpoint,
        "ENDPUNKT_DEPLOYMENT": record.deployment,
        "ENDPUNKT_CONCURRENCY": str(spec.request_settings.max_concurrent_requests_per_instance),
        "ENDPUNKT_STATUS_FILE": str(folder.status_file),
        "ENDPUNKT_DRAIN_SECONDS": str(DRAIN_SECONDS),
        "ENDPUNKT_LINGER_SECONDS": "0",
    }
    if sources.code is not None and spec.code_configuration is not None:
        variables["AML_APP_ROOT"] = str(sources.code)
        variables["AZUREML_ENTRY_SCRIPT"] = spec.code_configuration.scoring_script
    if sources.model is not None:
        variables["AZUREML_MODEL_DIR"] = str(folder.model_folder(sources.model))
        if sources.code is None:
            variables["ENDPUNKT_MLFLOW_MODEL"] = str(sources.model)
    if (protocol := spec.properties.get(PROTOCOL)) is not None:
        variables["ENDPUNKT_PROTOCOL"] = protocol
    served = sources.code or sources.model
    if (sample := spec.properties.get(WARMUP_REQUEST)) is not None and served is not None:
        variables["ENDPUNKT_WARMUP_FILE"] = str(served / sample)
    if spec.data_collector is not None:
        variables["ENDPUNKT_COLLECTOR"] = spec.data_collector.model_dump_json()
        variables["ENDPUNKT_COLLECTOR_DIR"] = str(folder.collected)
    if record.debug_port is not None:
        variables["AZUREML_DEBUG_PORT"] = str(record.debug_port)
        variables["ENDPUNKT_DEBUG_WAIT"] = "true"
    return variables


def with_debugpy(name: str, text: str) -> str:
    """The environment file `name` with debugpy among its packages; a version that it asks for stays."""
    import yaml

    if re.search(r"\bdebugpy\b", re.sub(r"#.*", "", text)):
        return text
    if name.endswith(".txt"):
        return f"{text.rstrip()}\ndebugpy\n"
    document = yaml.safe_load(text)
    parts = document.setdefault("dependencies", [])
    pip = next((part["pip"] for part in parts if isinstance(part, dict) and "pip" in part), None)
    if pip is None:
        parts += ["pip", {"pip": ["debugpy"]}]
    else:
        pip.append("debugpy")
    return yaml.safe_dump(document, sort_keys=False)


def _at(body: dict[str, Any], path: str) -> str | None:
    value: Any = body
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, str) else None
