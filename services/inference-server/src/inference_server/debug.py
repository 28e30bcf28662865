"""Attaching a debugger: debugpy listens on `AZUREML_DEBUG_PORT` of this machine before the script is imported.

With `ENDPUNKT_DEBUG_WAIT=true` the script is imported only when a client has attached, so that a breakpoint in its
top level or in `init()` is not missed. Whoever reaches the port can run any code here: it is bound to 127.0.0.1.
"""

from __future__ import annotations

import importlib
import logging

from inference_server.settings import Settings, SettingsError

log = logging.getLogger(__name__)


def listen(settings: Settings) -> None:
    """Does nothing without a debug port. Raises SettingsError where nobody could attach."""
    if settings.debug_port is None:
        return
    try:
        debugpy = importlib.import_module("debugpy")
    except ModuleNotFoundError:
        raise SettingsError(
            f"AZUREML_DEBUG_PORT={settings.debug_port}: debugpy is not installed in this environment. "
            "Add debugpy to the deployment's environment, or unset the variable."
        ) from None
    try:
        debugpy.listen(("127.0.0.1", settings.debug_port))
    except (RuntimeError, OSError) as error:
        raise SettingsError(f"AZUREML_DEBUG_PORT={settings.debug_port}: debugpy cannot listen: {error}") from error
    log.warning("Debugging: a client can attach to 127.0.0.1:%d. Not for production.", settings.debug_port)
    if settings.debug_wait:
        log.warning("Waiting for the debugger before the script is imported.")
        debugpy.wait_for_client()
        log.info("A debugger has attached.")
