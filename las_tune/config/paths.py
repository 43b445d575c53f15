"""Default folders, the names of the files of a study, and URIs of MLflow stores. Imports no module of the package."""

from __future__ import annotations

from pathlib import Path

DATA_ROOT = Path("data/anomaly_dataset")
TEXTURES = Path("data/dtd")
RESULTS = Path("results/las")
DEMO_CATEGORY = "bracket_black"
DEMO_DATA_ROOT = Path("data/demo/anomaly_dataset")
DEMO_TEXTURES = Path("data/demo/textures")

STUDY = "study.json"
"""Settings of the study. Written when it starts."""
SUMMARY = "summary.json"
"""Results of the study. Written when it has finished."""
TRIALS = "trials.jsonl"
"""Trials of the study (execution/history.py)."""
LEDGER = "ledger.jsonl"
"""Journal of the writes to MLflow (tracking/journal.py)."""
OPTUNA = "optuna.journal"
"""Optuna's storage (search/optuna_storage.py)."""
SPLITS = "splits.json"
CONSTRAINTS = "constraints.txt"
COMMAND = "command.txt"
LOG = "las_tune.log"
"""Output of other libraries (config/log_file.py)."""


def default_store(results: Path) -> str:
    """Return the URI of the MLflow store in the results folder.

    MLFLOW_TRACKING_URI is ignored, because MLflow itself sets it in every process.
    """
    return f"sqlite:///{results / 'mlflow.db'}"


def store_uri(tracking_uri: str, results: Path) -> str:
    """Return the URI of the MLflow store: the given one, or the store in the results folder if it is empty."""
    return absolute_uri(tracking_uri) or default_store(results.absolute())


def absolute_uri(uri: str) -> str:
    """Return a URI with an absolute path, because workers run in other folders. Other URIs are returned as they are."""
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    if not uri or "://" in uri:
        return uri
    return str(Path(uri).absolute())


def model_file(category: str) -> str:
    """Return the name of the champion's file.

    >>> model_file("metal_plate")
    'best_model_metal_plate.pth'
    """
    return f"best_model_{category}.pth"
