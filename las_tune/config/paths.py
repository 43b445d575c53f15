"""Where things lie unless a flag says otherwise, and the names of the files of a study. Imports nothing of ours."""

from __future__ import annotations

from pathlib import Path

DATA_ROOT = Path("data/anomaly_dataset")
TEXTURES = Path("data/dtd")
RESULTS = Path("results/las")
DEMO_CATEGORY = "bracket_black"
DEMO_DATA_ROOT = Path("data/demo/anomaly_dataset")
DEMO_TEXTURES = Path("data/demo/textures")

STUDY = "study.json"
"""What was asked for: there from the start of a study on."""
SUMMARY = "summary.json"
"""What was found: there when a study has ended."""
TRIALS = "trials.jsonl"
"""What was done (tuning/history.py)."""
LEDGER = "ledger.jsonl"
"""What MLflow is told (tracking/journal.py)."""
OPTUNA = "optuna.journal"
"""What Optuna knows (tuning/optuna_journal.py)."""
SPLITS = "splits.json"
CONSTRAINTS = "constraints.txt"
COMMAND = "command.txt"
LOG = "las_tune.log"
"""What other libraries say (noise_log.py)."""


def default_store(results: Path) -> str:
    """MLflow's database beside the results. (MLFLOW_TRACKING_URI is not asked: MLflow sets it, in every process.)"""
    return f"sqlite:///{results / 'mlflow.db'}"


def model_file(category: str) -> str:
    """Of the champion.

    >>> model_file("metal_plate")
    'best_model_metal_plate.pth'
    """
    return f"best_model_{category}.pth"
