"""Scores rows of the diabetes data: {"data": [[ten numbers], …]} -> {"model": …, "predictions": [one number a row]}."""

import json
import os
from pathlib import Path

import joblib
import numpy as np

model = None


def init():
    """Load the model: AZUREML_MODEL_DIR contains the model folder under its own name."""
    global model
    [path] = Path(os.environ["AZUREML_MODEL_DIR"]).glob("*/model.joblib")
    model = joblib.load(path)


def run(raw_data):
    """Score one request."""
    rows = np.array(json.loads(raw_data)["data"])
    return {"model": type(model).__name__, "predictions": model.predict(rows).tolist()}
