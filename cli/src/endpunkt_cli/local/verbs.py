"""What the verbs of online endpoints and deployments do with --local."""

import http.client
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import typer

from endpunkt_cli.errors import CliError
from endpunkt_cli.local.process import HOST, debuggable, free_port, settled, start, stop
from endpunkt_cli.local.record import Folder, Local, Record
from endpunkt_cli.options import tell

Document = dict[str, Any]

DEPLOYMENT_COLUMNS = ("name", "endpoint_name", "provisioning_state", "scoring_uri", "debug_port")
ENDPOINT_COLUMNS = ("name", "auth_mode", "provisioning_state", "scoring_uri")

_PATIENCE_SECONDS = 600
_DEBUGGER_SECONDS = 60
_DEBUG_PORT = 5678
_LOG_TAIL = 40
_SHOWN = ("description", "tags", "properties", "model", "code_configuration", "environment", "environment_variables")


@dataclass(frozen=True)
class Asked:
    """What a person asks of `create` or `update`."""

    file: Path | None
    name: str | None
    endpoint: str | None
    settings: Sequence[str] | None
    local_environment: bool = False
    skip_script_validation: bool = False
    vscode_debug: bool | None = None  # None: as before, and a new one without
    port: int | None = None
    no_wait: bool = False


def create(asked: Asked) -> Document:
    """Start a deployment; one of its name must not run already."""
    return _deployed(asked, Local(), "create")


def update(asked: Asked) -> Document:
    """Start a deployment again, from its file as it is now. With name and endpoint, what is not given stays as it was;
    a file alone says everything but the port and the debugger."""
    local = Local()
    if asked.name is None or asked.endpoint is None:
        if asked.file is None:
            raise typer.BadParameter("give --file, or --name and --endpoint-name")
        return _deployed(asked, local, "update")
    _, before = local.found(asked.endpoint, asked.name)
    asked = replace(
        asked,
        file=asked.file or Path(before.file),
        settings=[*(before.settings if asked.file is None else ()), *(asked.settings or ())],
        local_environment=asked.local_environment or before.local_environment,
    )
    return _deployed(asked, local, "update")


def _deployed(asked: Asked, local: Local, must: Literal["create", "update"]) -> Document:
    from contracts.messages import OnlineDeploymentSpec
    from endpunkt_cli.deploying import check_script_of
    from endpunkt_cli.local.prepare import interpreter, sources_of, variables_of
    from endpunkt_cli.resources import resource_of, source_of

    assert asked.file is not None
    options = {"name": asked.name, "endpoint_name": asked.endpoint}
    try:
        source = source_of(asked.file, options)
    except OSError as error:
        raise CliError(f"cannot read {asked.file}: {error.strerror}") from None
    resource = resource_of("online-deployment", source, asked.file, asked.settings, asked.local_environment)
    endpoint, name = resource.address["endpoint_name"], resource.address["name"]
    folder = local.folder(endpoint, name)
    before = _replaceable(local, endpoint, name, must)
    debug = asked.vscode_debug
    if debug is None:
        debug = must == "update" and before is not None and before.debug_port is not None
    if not asked.skip_script_validation:
        check_script_of(resource)
    sources = sources_of(resource, asked.local_environment)
    with_ = interpreter(sources.environment, debug)
    with local.changing():
        before = _replaceable(local, endpoint, name, must)  # what came before may have taken minutes
        if before is not None:
            stop(before)
        record = Record(
            endpoint=endpoint,
            deployment=name,
            file=str(asked.file.absolute()),
            settings=tuple(asked.settings or ()),
            local_environment=asked.local_environment,
            port=asked.port if asked.port is not None else free_port(before.port) if before is not None else 0,
            debug_port=free_port((before and before.debug_port) or _DEBUG_PORT) if debug else None,
            spec=resource.body,
            build_log=str(with_.build_log) if with_.build_log is not None else None,
        )
        if record.debug_port is not None:
            _write_launch(asked.file, endpoint, name, record.debug_port)
        spec = OnlineDeploymentSpec.model_validate(resource.body)
        record = start(with_.python, variables_of(spec, record, sources, with_, folder), folder, record)
    _wait(folder, record, asked.no_wait)
    return document_of(folder, record)


def _replaceable(local: Local, endpoint: str, name: str, must: Literal["create", "update"]) -> Record | None:
    """The deployment that is to make room, if there is one. Raises CliError when the verb does not fit."""
    folder = local.folder(endpoint, name)
    before = folder.read()
    if must == "create" and before is not None and folder.state(before).name != "Failed":
        hint = f"update it (endpunkt online-deployment update --local -e {endpoint} -n {name}), or delete it"
        raise CliError(f"the local deployment {endpoint}/{name} exists: {hint}")
    if must == "update" and before is None:
        raise CliError(f"there is no local deployment {endpoint}/{name}: create it first")
    return before


def _wait(folder: Folder, record: Record, no_wait: bool) -> None:
    """Until it is ready. Raises CliError with the end of its log when it failed, or is not ready in time."""
    what = f"{record.endpoint}/{record.deployment}"
    try:
        if record.debug_port is not None:
            state = debuggable(folder, record, _DEBUGGER_SECONDS)
            if state.name == "Creating":
                tell(
                    f'{what} waits for a debugger on port {record.debug_port}: start "Attach to {what}" in VS Code '
                    "(Run and Debug). Its script is imported then."
                )
        if no_wait:
            return
        state = settled(folder, record, None if record.debug_port is not None else _PATIENCE_SECONDS)
    except KeyboardInterrupt:
        tell(f"It goes on: endpunkt online-deployment show --local -e {record.endpoint} -n {record.deployment}")
        raise typer.Exit(130) from None
    if state.error is not None:
        lines = [f"{what} failed: {state.error['code']}: {state.error['message']}"]
        if tail := folder.last_words(_LOG_TAIL):
            lines += ["The end of its log:", *(f"  {line}" for line in tail)]
        raise CliError("\n".join(lines))
    if state.name == "Creating":
        raise CliError(f"{what} is not ready after {_PATIENCE_SECONDS} s; it goes on. Its log: {folder.console}")


def _write_launch(file: Path, endpoint: str, name: str, port: int) -> None:
    """Put the debugger's configuration into the launch.json of the workspace that the file is in."""
    from endpunkt_cli.local.launch_json import NoLaunchFile, attach, merged

    path = workspace_of(file.absolute().parent) / ".vscode" / "launch.json"
    before = path.read_text(encoding="utf-8") if path.exists() else None
    try:
        after = merged(before, attach(endpoint, name, port))
    except NoLaunchFile as error:
        raise CliError(f"{path}: {error}. Repair it, or move it away: a new one is made.") from None
    if after != before:
        path.parent.mkdir(exist_ok=True)
        path.write_text(after, encoding="utf-8")
        tell(f'{os.path.relpath(path)}: "Attach to {endpoint}/{name}"')


def workspace_of(folder: Path) -> Path:
    """The nearest folder around `folder` that has a .vscode of its own, within the repository; else `folder`."""
    for above in (folder, *folder.parents):
        # A home's .vscode holds extensions.
        if above == Path.home():
            break
        if (above / ".vscode").is_dir():
            return above
        if (above / ".git").exists():
            break
    return folder


def document_of(folder: Folder, record: Record) -> Document:
    """A deployment as `show` prints it."""
    state = folder.state(record)
    return {
        "name": record.deployment,
        "endpoint_name": record.endpoint,
        "location": "local",
        "provisioning_state": state.name,
        "error": state.error,
        "scoring_uri": f"http://{HOST}:{record.port}/score",
        "debug_port": record.debug_port,
        "pid": record.process.pid if record.process is not None and state.name != "Failed" else None,
        "file": record.file,
        "log": str(folder.console),
        **{name: record.spec[name] for name in _SHOWN if name in record.spec},
    }


def show_deployment(endpoint: str, name: str) -> Document:
    """One deployment."""
    return document_of(*Local().found(endpoint, name))


def list_deployments(endpoint: str) -> list[Document]:
    """Those of an endpoint."""
    local = Local()
    local.endpoint(endpoint)
    return [document_of(folder, record) for folder, record in local.deployments(endpoint)]


def delete_deployment(endpoint: str, name: str) -> None:
    """End and forget one."""
    local = Local()
    with local.changing():
        folder, record = local.found(endpoint, name)
        stop(record)
        folder.remove()


def logs(endpoint: str, name: str, lines: int, of_the_environment: bool) -> str:
    """The last lines of what it printed, or of the log of its environment's build."""
    folder, record = Local().found(endpoint, name)
    if not of_the_environment:
        return "\n".join(folder.tail(lines))
    if record.build_log is None:
        return "its environment was not built: it runs in the services' own"
    return "\n".join(Path(record.build_log).read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def create_endpoint(name: str, spec: Document) -> Document:
    """Note an endpoint. Its deployments need none: this is for files that describe one."""
    Local().make_endpoint(name, spec)
    return show_endpoint(name)


def show_endpoint(name: str) -> Document:
    """An endpoint with the states of its deployments. Its scoring URI is that of the only one that runs."""
    local = Local()
    spec = local.endpoint(name)
    deployments = [document_of(folder, record) for folder, record in local.deployments(name)]
    running = [each["scoring_uri"] for each in deployments if each["provisioning_state"] == "Succeeded"]
    return {
        "name": name,
        "location": "local",
        "auth_mode": "none",
        "provisioning_state": "Succeeded",
        "scoring_uri": running[0] if len(running) == 1 else None,
        "deployments": {each["name"]: each["provisioning_state"] for each in deployments},
        **{field: value for field, value in spec.items() if field in ("description", "tags", "properties")},
    }


def list_endpoints() -> list[Document]:
    """Every local endpoint."""
    return [show_endpoint(name) for name in Local().endpoints()]


def delete_endpoint(name: str) -> None:
    """End and forget all of it."""
    local = Local()
    with local.changing():
        local.endpoint(name)
        for _, record in local.deployments(name):
            stop(record)
        local.remove_endpoint(name)


def invoke(endpoint: str, deployment: str | None, body: bytes, seconds: float) -> bytes:
    """Score `body`; the answer as it is. A deployment under a debugger may take its time. Raises CliError."""
    local = Local()
    local.endpoint(endpoint)
    known = list(local.deployments(endpoint))
    if deployment is None and len(known) != 1:
        names = ", ".join(record.deployment for _, record in known) or "none"
        raise CliError(
            f"the local endpoint '{endpoint}' has these deployments: {names}. Choose with --deployment-name."
        )
    folder, record = known[0] if deployment is None else local.found(endpoint, deployment)
    connection = http.client.HTTPConnection(HOST, record.port, timeout=None if record.debug_port else seconds)
    try:
        connection.request("POST", "/score", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        state = folder.state(record)
        raise CliError(
            f"{endpoint}/{record.deployment} gave no answer ({error or type(error).__name__}); it is {state.name}. "
            f"Its log: endpunkt online-deployment get-logs --local -e {endpoint} -n {record.deployment}"
        ) from None
    finally:
        connection.close()
    if not 200 <= response.status < 300:
        raise CliError(f"{endpoint}/{record.deployment} answered {response.status}: {answer.decode(errors='replace')}")
    return answer
