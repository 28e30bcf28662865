"""Azure's two import paths for `AMLRequest`, `rawhttp` and `AMLResponse`, for scripts whose environment lacks them.

A finder at the *end* of `sys.meta_path` is only asked for modules that nobody else has, so a real
`azureml-contrib-services` or `azureml-inference-server-http` in the user's environment always wins, and nothing is
imported before a script asks for it.
"""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
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


class _Aliases(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in _MODULES:
            return None
        is_package = any(name.startswith(fullname + ".") for name in _MODULES)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=is_package)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        vars(module).update(_MODULES[module.__name__])


def install() -> None:
    """Makes Azure's modules importable; call before the script is loaded. A second call changes nothing."""
    if not any(isinstance(finder, _Aliases) for finder in sys.meta_path):
        sys.meta_path.append(_Aliases())


def raw_http_requested() -> bool:
    """Whether the script used `@rawhttp`, ours or a real package's."""
    modules = (request, *(sys.modules.get(name) for name in _REQUEST_MODULES))
    return any(getattr(module, "_rawHttpRequested", False) for module in modules)
