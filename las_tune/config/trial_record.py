"""The record of one trial, and the listeners that follow a study. Only the driver changes a record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from las_tune.config.objectives import ranking

Status = Literal["running", "completed", "pruned", "failed"]
BASELINE_NUMBER = 0

METRICS = (
    "loss",
    "loss_normal",
    "loss_las",
    "image_auroc",
    "image_ap",
    "pixel_auroc",
    "pixel_aupro",
    "worst_defect",
    "recall",
    "f1",
    "false_reject_rate",
    "objective",
)
"""Metrics of an epoch, in display order."""
MONITORED = ("labelled", "sealed", "whole")
"""Image sets that may be scored in addition to the validation images. They are never used for model selection."""
EPOCH_FIELDS = (
    "epoch",
    *METRICS,
    *(f"{part}/{name}" for part in MONITORED for name in METRICS),
    "seconds",
    "peak_memory_mb",
)
"""Fields of an epoch that a trial record stores."""
SYSTEM_PREFIX = "system/"
"""Prefix of the system metrics of a worker (--system-metrics), as in MLflow."""


@dataclass
class TrialRecord:
    """One trial: its number in the Optuna study, its hyperparameters and its metrics by epoch."""

    number: int
    params: dict[str, Any]
    status: Status = "running"
    reason: str = ""
    """Why the trial ended before its last epoch; empty otherwise."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """One row of EPOCH_FIELDS per epoch. Metrics that are not available (no masks) are omitted."""
    seconds: float = 0.0
    """Training time of all epochs."""
    repeated_seconds: float = 0.0
    """Training time of epochs that were repeated after a fault."""
    finalist: str = ""
    """Name of the finalist that this trial retrains: baseline, current, or trial 7; empty during the search."""
    seed: int | None = None
    """Random seed of a finalist; None during the search."""
    started: float = 0.0
    """Start time in seconds since 1970; 0 before the start."""
    ended: float = 0.0
    """End time in seconds since 1970; 0 while the trial runs."""
    worker: str = ""
    """Host name and process id of the worker that ran the last epoch."""
    panel: Path | None = None
    """File with the image panel of the best epoch, set when the trial ends; None if there is none."""
    no_panel: str = ""
    """Why there is no image panel."""
    folder: str = ""
    """Folder of the trial's checkpoints, relative to the checkpoint storage."""
    checkpoint: str = ""
    """Checkpoint of the best epoch, relative to the checkpoint storage, set when the trial ends; empty if none."""

    @property
    def title(self) -> str:
        """Display name, such as `trial 7` or `baseline, seed 3`."""
        if self.finalist:
            return f"{self.finalist}, seed {self.seed}"
        return "trial 0 (baseline)" if self.is_baseline else f"trial {self.number}"

    @property
    def is_baseline(self) -> bool:
        """Whether this is trial 0, which has the hyperparameters of the reference configuration."""
        return self.number == BASELINE_NUMBER

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch by `ranking`, the earliest if several are equal; empty before the first epoch."""
        return max(self.epochs, key=ranking, default={})

    @property
    def best_objective(self) -> float | None:
        """Objective of the best epoch; None before the first epoch."""
        return self.best.get("objective")

    @property
    def lost_seconds(self) -> float:
        """Training time without a result: repeated epochs, and all epochs of a failed trial."""
        return self.repeated_seconds + (self.seconds if self.status == "failed" else 0.0)

    def add_epoch(self, row: dict[str, float]) -> None:
        """Append the metrics of an epoch."""
        self.epochs.append(row)
        self.seconds += row["seconds"]


class Listener:
    """Base class of everything that follows a study, such as the ledger, the console and the training log.

    Every method does nothing. Override the events of interest.
    """

    def trial_started(self, trial: TrialRecord) -> None:
        """Handle the start of a trial."""

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Handle a new row in `trial.epochs`."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """Handle the end of a trial; `trial.status` is final."""
