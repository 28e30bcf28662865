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

RESERVED = frozenset({"AZUREML_MODEL_DIR", "AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT", "SCORING_TIMEOUT_MS"})
RESERVED_PREFIX = "ENDPUNKT_"
RESERVED_FOR_BATCH = RESERVED | {"AZUREML_BI_OUTPUT_PATH"}
RESERVED_ONLINE = RESERVED | {"IDENTITY_ENDPOINT", "IDENTITY_HEADER"}
SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
"""Request headers that hold what nobody may collect."""
WARMUP_FIELD = f"spec.properties.{WARMUP_REQUEST}"
_VARIABLE = re.compile(r"[^=\x00]+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check(spec: DeploymentSpec) -> Iterator[Problem]:
    """Every problem of a deployment's settings."""
    if not isinstance(spec, OnlineDeploymentSpec):
        variables = spec.settings.environment_variables
        yield from _variables("spec.settings.environment_variables", variables, RESERVED_FOR_BATCH)
        yield from references.problems("spec.settings.environment_variables", variables, online=False)
        return
    yield from _variables("spec.environment_variables", spec.environment_variables, RESERVED_ONLINE)
    yield from references.problems("spec.environment_variables", spec.environment_variables)
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
            hint = " (set request_settings.request_timeout_ms)" if name == "SCORING_TIMEOUT_MS" else ""
            yield _bad(f"{field}.{name}", f"is set by Endpunkt{hint}: choose another name")


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
