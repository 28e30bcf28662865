"""What an instance is made of, once all of it lies on this machine's disk."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """`python` is the interpreter of the deployment's environment; `runtime` the folder that holds the package
    `inference_server` (PYTHONPATH); `code` the script's folder; `model` the model's artifact itself, whose parent is
    AZUREML_MODEL_DIR."""

    python: Path
    runtime: Path
    code: Path | None = None
    model: Path | None = None
