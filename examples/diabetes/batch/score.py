"""Scores files of patients: each row of each CSV file becomes a row of predictions.csv."""

import os
from pathlib import Path

import joblib
import pandas as pd

model = None


def init():
    """Load the model once per worker process."""
    global model
    [path] = Path(os.environ["AZUREML_MODEL_DIR"]).glob("*/model.joblib")
    model = joblib.load(path)


def run(mini_batch):
    """Score the files of one mini-batch: file, row and prediction for each patient."""
    results = []
    for file in mini_batch:
        predictions = model.predict(pd.read_csv(file).to_numpy())
        results += [f"{Path(file).name},{row},{prediction:.4f}" for row, prediction in enumerate(predictions)]
    return results
