"""The status file: how an instance tells whoever started it that it is ready, or why it never will be.

One JSON object, replaced atomically, so that a reader sees a whole one or none:
`{"state": "starting" | "ready" | "failed", "code": str | null, "message": str | null, "pid": int}`.
`code` is one of Azure's deployment error codes and is set only when `state` is "failed".
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

State = Literal["starting", "ready", "failed"]


class StatusFile:
    """The file that `ENDPUNKT_STATUS_FILE` names; without that variable nothing is written."""

    def __init__(self, environ: Mapping[str, str]):
        path = environ.get("ENDPUNKT_STATUS_FILE")
        self._path = Path(path) if path else None

    def write(self, state: State, code: str | None = None, message: str | None = None) -> None:
        """Raises OSError when the folder cannot be written."""
        if self._path is None:
            return
        document = {"state": state, "code": code, "message": message, "pid": os.getpid()}
        temporary = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(document), encoding="utf-8")
        temporary.replace(self._path)
