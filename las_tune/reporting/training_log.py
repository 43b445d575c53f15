"""The training log: a text file with one line per epoch."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from las_tune.config import METRICS, Listener, TrialRecord, format_params


class TrainingLog(Listener):
    """A Listener that appends to training_log_<category>_LAS_<timestamp>.txt."""

    def __init__(self, folder: Path, category: str, started: datetime) -> None:
        self.path = folder / f"training_log_{category}_LAS_{started:%Y%m%d_%H%M%S}.txt"

    def write(self, line: str) -> None:
        """Append a line with the time of day."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now():%H:%M:%S}  {line}\n")

    def trial_started(self, trial: TrialRecord) -> None:
        """Log the hyperparameters."""
        self.write(
            f"trial {trial.number} starts{' (baseline)' if trial.is_baseline else ''}: {format_params(trial.params)}"
        )

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Log the metrics and the duration."""
        row = trial.epochs[-1]
        numbers = "  ".join(f"{name} {row[name]:.4f}" for name in METRICS if name in row)
        self.write(f"trial {trial.number}  epoch {int(row['epoch'])}  {numbers}  {row['seconds']:.1f} s")

    def trial_ended(self, trial: TrialRecord) -> None:
        """Log status, total duration and best epoch."""
        best = f"best objective {trial.best['objective']:.4f} in epoch {int(trial.best['epoch'])}" if trial.best else ""
        self.write(f"trial {trial.number} {trial.status} after {trial.seconds:.1f} s  {best}  {trial.reason}".rstrip())
