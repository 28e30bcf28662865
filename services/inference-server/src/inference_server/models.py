"""What this process serves: the user's script, or an MLflow model; and who watches it being scored.

What a deployment does not ask for is not imported.
"""

from __future__ import annotations

from collections.abc import Callable

from inference_server import script
from inference_server.routes import Model
from inference_server.scoring import Scorer
from inference_server.settings import Settings


def watched(settings: Settings) -> Callable[[Scorer], Scorer] | None:
    """The data collector's wrapper for `Scoring.score`, if it collects payloads. To be called before `load`, so that
    scripts find their collectors ready. Raises SettingsError."""
    if not settings.collector:
        return None
    from inference_server import collector

    return collector.start(settings)


def load(settings: Settings) -> Model:
    """Raises ScriptError."""
    if settings.mlflow_model is None:
        return script.load(settings)
    from inference_server.mlflow_model import MlflowModel

    return MlflowModel(settings.mlflow_model)
