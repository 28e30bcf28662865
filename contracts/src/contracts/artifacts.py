"""Where artifacts lie in the store: <root>/sha256/<digest>/<name>. The provisioner writes, everyone else only reads.

PURE: paths only, nothing is opened.
"""

from pathlib import Path

from contracts.messages import Artifact


def artifact_folder(root: Path, artifact: Artifact) -> Path:
    """The folder that contains the artifact under its own name (what AZUREML_MODEL_DIR points at)."""
    return root / "sha256" / artifact.digest


def artifact_path(root: Path, artifact: Artifact) -> Path:
    """The artifact itself, a file or a folder."""
    return artifact_folder(root, artifact) / artifact.name
