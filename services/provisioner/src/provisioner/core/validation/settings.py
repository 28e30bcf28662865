"""What is wrong with a deployment's own settings, whatever state they meet: variables, properties, probes, collectors.

PURE, see the package.
"""

import re
from collections.abc import Iterator, Mapping

from contracts.messages import (
    IDEMPOTENT,
    PROTOCOL,
    WARMUP_REQUEST,
    DataCollector,
    DeploymentSpec,
    OnlineDeploymentSpec,
    Problem,
)
from provisioner.core.sources import stays_inside
from provisioner.identity import references

RESERVED_PREFIX = "ENDPUNKT_"
RESERVED_ONLINE = frozenset({"IDENTITY_ENDPOINT", "IDENTITY_HEADER"})
"""Variables that nobody may set. Those that Azure sets too (AML_APP_ROOT and the like) may stand in a file: the
platform's value wins, as there, and an instance's `Created` event says so."""
DEBUG_PORT = "AZUREML_DEBUG_PORT"
TIMEOUT = "SCORING_TIMEOUT_MS"
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Request headers that hold what nobody may collect."""
WARMUP_FIELD = f"spec.properties.{WARMUP_REQUEST}"
_MILLISECONDS = re.compile(r"[1-9][0-9]{0,17}")
_VARIABLE = re.compile(r"[^=\x00]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check(spec: DeploymentSpec) -> Iterator[Problem]:
    """Every problem of a deployment's settings."""
    if not isinstance(spec, OnlineDeploymentSpec):
        variables = spec.settings.environment_variables
        yield from _variables("spec.settings.environment_variables", variables, frozenset())
        yield from references.problems("spec.settings.environment_variables", variables, online=False)
        return
    yield from _variables("spec.environment_variables", spec.environment_variables, RESERVED_ONLINE)
    yield from references.problems("spec.environment_variables", spec.environment_variables)
    if DEBUG_PORT in spec.environment_variables:
        message = (
            "opens one port for whoever reaches this machine, and all instances share its ports: debug with "
            "`endpunkt online-deployment create --local --vscode-debug`"
        )
        yield _bad(f"spec.environment_variables.{DEBUG_PORT}", message)
    timeout = spec.environment_variables.get(TIMEOUT, "1")
    if not _MILLISECONDS.fullmatch(timeout):
        yield _bad(f"spec.environment_variables.{TIMEOUT}", f"'{timeout}' must be a whole number of milliseconds")
    if spec.properties.get(IDEMPOTENT, "true") not in ("true", "false"):
        message = 'must be "true" or "false": may a request whose instance died be scored a second time?'
        yield _bad(f"spec.properties.{IDEMPOTENT}", message)
    if spec.properties.get(PROTOCOL, "v2") != "v2":
        yield _bad(f"spec.properties.{PROTOCOL}", 'must be "v2" (Open Inference Protocol), or left out')
    warmup = spec.properties.get(WARMUP_REQUEST)
    if warmup is not None and not stays_inside(warmup):
        yield _bad(WARMUP_FIELD, f"'{warmup}' must be a relative path below the code (or MLflow model) folder")
    if spec.liveness_probe.success_threshold != 1:
        message = "must be 1: an instance that fails its liveness probe is replaced"
        yield _bad("spec.liveness_probe.success_threshold", message)
    if spec.data_collector is not None:
        yield from _collector(spec.data_collector)


def _variables(field: str, variables: Mapping[str, str], reserved: frozenset[str]) -> Iterator[Problem]:
    for name, value in variables.items():
        if not _VARIABLE.fullmatch(name) or "\x00" in value:
            yield _bad(f"{field}.{name}", "is no environment variable: no '=' in names, and no NUL")
        elif name in reserved or name.startswith(RESERVED_PREFIX):
            yield _bad(f"{field}.{name}", "is set by Endpunkt: choose another name")


def _collector(collector: DataCollector) -> Iterator[Problem]:
    if not collector.collections:
        message = "names no collection: add request, response, or one that the script hands to a Collector"
        yield _bad("spec.data_collector.collections", message)
    for at, name in enumerate(collector.request_logging.capture_headers):
        field = f"spec.data_collector.request_logging.capture_headers.{at}"
        if not _HEADER.fullmatch(name):
            yield _bad(field, f"'{name}' is no name of a header")
        elif name.lower() in SECRET_HEADERS:
            yield _bad(field, f"'{name}' holds keys, which are not collected")


def _bad(field: str, message: str) -> Problem:
    return Problem(code="BadArgument", field=field, message=message)
