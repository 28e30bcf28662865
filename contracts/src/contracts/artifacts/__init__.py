"""Artifacts: models, code, data and environment files under the digest of what they hold.

`tree` is what an artifact is (PURE, and all that this package imports by itself), `scan` makes one of a local file or
folder, `store` keeps them at a URL and brings them to a machine's disk.
"""

from contracts.artifacts.tree import artifact_folder, artifact_path, artifact_uri, parse_artifact_uri

__all__ = ["artifact_folder", "artifact_path", "artifact_uri", "parse_artifact_uri"]
