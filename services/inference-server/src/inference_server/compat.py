"""Azure's modules for scripts: `AMLRequest`, `rawhttp` and `AMLResponse` under both import paths, and the data
collector `azureml.ai.monitoring`.

A finder at the *end* of `sys.meta_path` is only asked for modules that nobody else has, so a real
`azureml-contrib-services` or `azureml-inference-server-http` in the user's environment always wins, and nothing is
imported before a script asks for it. For the data collector it is the other way round: a finder at the *start* gives
ours even where the real package is installed, for that one can only talk to a process that Azure runs beside a model.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType

from inference_server import request, response

_REQUEST: dict[str, object] = {"AMLRequest": request.AMLRequest, "rawhttp": request.rawhttp}
_RESPONSE: dict[str, object] = {"AMLResponse": response.AMLResponse}
_REQUEST_MODULES = ("azureml.contrib.services.aml_request", "azureml_inference_server_http.api.aml_request")
_MODULES: dict[str, dict[str, object]] = {
    "azureml": {},
    "azureml.contrib": {},
    "azureml.contrib.services": {"rawhttp": request.rawhttp},
    "azureml.contrib.services.aml_request": _REQUEST,
    "azureml.contrib.services.aml_response": _RESPONSE,
    "azureml_inference_server_http": {},
    "azureml_inference_server_http.api": {},
    "azureml_inference_server_http.api.aml_request": _REQUEST,
    "azureml_inference_server_http.api.aml_response": _RESPONSE,
}


_COLLECTOR: dict[str, tuple[str, ...]] = {  # names in `monitoring`, which few scripts need
    "azureml.ai.monitoring": ("Collector",),
    "azureml.ai.monitoring.collector": ("Collector",),
    "azureml.ai.monitoring.context": ("BasicCorrelationContext", "CorrelationContext", "get_context"),
}
_PARENTS = ("azureml", "azureml.ai")


class _Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives modules by name; `contents` tells what is in one, when it is imported."""

    def __init__(self, names: Iterable[str], contents: Callable[[str], Mapping[str, object]]):
        self._names = frozenset(names)
        self._contents = contents

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._names:
            return None
        is_package = any(name.startswith(fullname + ".") for name in self._names) or fullname in _PARENTS
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(self._contents(module.__name__))


def _monitoring(module: str) -> dict[str, object]:
    from inference_server import monitoring

    return {name: getattr(monitoring, name) for name in _COLLECTOR[module]}


_ours = _Aliases([*_MODULES, *_PARENTS], lambda module: _MODULES.get(module, {}))
_collector = _Aliases(_COLLECTOR, _monitoring)


def install() -> None:
    """Makes Azure's modules importable; call before the script is loaded. A second call changes nothing."""
    if _ours not in sys.meta_path:
        sys.meta_path.append(_ours)
        sys.meta_path.insert(0, _collector)


def raw_http_requested() -> bool:
    """Whether the script used `@rawhttp`, ours or a real package's."""
    modules = (request, *(sys.modules.get(name) for name in _REQUEST_MODULES))
    return any(getattr(module, "_rawHttpRequested", False) for module in modules)
