"""The environment of an instance: everything that its process is given, and nothing of the provisioner's own.

Paths and a specification in, variables out; nothing is looked up on the disk.
"""

import os
from collections.abc import Mapping

from contracts.messages import PROTOCOL, WARMUP_REQUEST, OnlineDeploymentSpec
from provisioner.compute.prepared import Prepared
from provisioner.compute.records import InstanceFolder, drain_seconds
from provisioner.core.lifecycle import Place

_TIMEOUT = "SCORING_TIMEOUT_MS"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def variables_of(
    place: Place,
    spec: OnlineDeploymentSpec,
    vcpus: float,
    prepared: Prepared,
    given: Mapping[str, str],
    folder: InstanceFolder,
) -> dict[str, str]:
    """`given` are the deployment's own, with secrets already in them: they win over the defaults and lose against what
    the instance's place in Endpunkt depends on."""
    served = prepared.code or prepared.model
    variables = {
        "PATH": f"{prepared.python.parent}:/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **dict.fromkeys(_THREADS, str(max(1, int(vcpus)))),
        **given,
        "HOME": str(folder.work),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(prepared.runtime), given.get("PYTHONPATH")))),
        _TIMEOUT: str(_timeout(spec, given)),
        "ENDPUNKT_ENDPOINT": place.endpoint,
        "ENDPUNKT_DEPLOYMENT": place.deployment,
        "ENDPUNKT_CONCURRENCY": str(spec.request_settings.max_concurrent_requests_per_instance),
        "ENDPUNKT_STATUS_FILE": str(folder.status_file),
        "ENDPUNKT_DRAIN_SECONDS": str(drain_seconds(spec)),
    }
    if prepared.code is not None and spec.code_configuration is not None:
        variables["AML_APP_ROOT"] = str(prepared.code)
        variables["AZUREML_ENTRY_SCRIPT"] = spec.code_configuration.scoring_script
    if prepared.model is not None:
        variables["AZUREML_MODEL_DIR"] = str(prepared.model.parent)
        if prepared.code is None:
            variables["ENDPUNKT_MLFLOW_MODEL"] = str(prepared.model)
    if (protocol := spec.properties.get(PROTOCOL)) is not None:
        variables["ENDPUNKT_PROTOCOL"] = protocol
    if (sample := spec.properties.get(WARMUP_REQUEST)) is not None and served is not None:
        variables["ENDPUNKT_WARMUP_FILE"] = str(served / sample)
    if spec.data_collector is not None:
        variables["ENDPUNKT_COLLECTOR"] = spec.data_collector.model_dump_json()
        variables["ENDPUNKT_COLLECTOR_DIR"] = str(folder.collected)
    return variables


def overruled(spec: OnlineDeploymentSpec) -> list[str]:
    """Which of the variables that a deployment gives its instances have otherwise."""
    given = spec.environment_variables
    ours = {"HOME"}
    if spec.code_configuration is not None:
        ours |= {"AML_APP_ROOT", "AZUREML_ENTRY_SCRIPT"}
    if spec.model is not None:
        ours.add("AZUREML_MODEL_DIR")
    if _TIMEOUT in given and int(given[_TIMEOUT]) != _timeout(spec, given):
        ours.add(_TIMEOUT)
    return sorted(ours & given.keys())


def _timeout(spec: OnlineDeploymentSpec, given: Mapping[str, str]) -> int:
    """Milliseconds. Nobody waits longer than the router does, so longer ones mean that."""
    limit = spec.request_settings.request_timeout_ms
    return min(int(given.get(_TIMEOUT, limit)), limit)
