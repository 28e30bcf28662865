"""Trains the two models of this example on scikit-learn's diabetes data, and writes what is scored with them.

Run: python train.py [FOLDER]   (default: this folder). It makes models/, patients/ (CSV files) and request.json.
"""

import json
import sys
from pathlib import Path

import joblib
import pandas as pd
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

ROWS_PER_FILE = 40


def train(folder: Path) -> None:
    """Write everything below `folder`."""
    features, target = load_diabetes(return_X_y=True, as_frame=True)
    for name, model in {
        "linear": LinearRegression(),
        "boosting": HistGradientBoostingRegressor(random_state=0),
    }.items():
        model.fit(features.to_numpy(), target)
        path = folder / "models" / name / "model.joblib"
        path.parent.mkdir(parents=True, exist_ok=True)
        joblib.dump(model, path)
    patients = folder / "patients"
    patients.mkdir(exist_ok=True)
    for number, start in enumerate(range(0, len(features), ROWS_PER_FILE)):
        rows: pd.DataFrame = features[start : start + ROWS_PER_FILE]
        rows.to_csv(patients / f"patients-{number:02}.csv", index=False)
    (folder / "request.json").write_text(json.dumps({"data": features.head(2).to_numpy().tolist()}) + "\n")


if __name__ == "__main__":
    train(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
