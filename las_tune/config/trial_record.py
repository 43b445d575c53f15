"""What is known of a study while it runs: one TrialRecord a trial. The driver makes them, all others read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

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
"""Numbers of an epoch, in the order in which they are shown."""
WATCHED = ("labelled", "sealed", "whole")
"""Parts that may be scored beside the validation, never chosen by."""
ROW = ("epoch", *METRICS, *(f"{part}/{name}" for part in WATCHED for name in METRICS), "seconds", "peak_memory_mb")
"""What a trial keeps of an epoch."""
SYSTEM = "system/"
"""Starts the names of what a worker measures of its machine (--system-metrics), as MLflow calls it."""


@dataclass
class TrialRecord:
    """One trial: its number in the Optuna study, its hyperparameters, one row of numbers an epoch."""

    number: int
    params: dict[str, Any]
    status: Status = "running"
    reason: str = ""
    """Why it ended, where that was not its last epoch."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """Rows by epoch, from 1; metrics that cannot be had (no masks) are left out."""
    seconds: float = 0.0
    """Time in its epochs."""
    repeated_seconds: float = 0.0
    """Time in epochs that had to be repeated after a fault."""
    finalist: str = ""
    """What was trained again with a new seed: baseline, current, or trial 7; empty in the search."""
    seed: int | None = None
    """The new seed of a finalist."""
    started: float = 0.0
    """When it started, in seconds since 1970; 0 while that is not known."""
    ended: float = 0.0
    """When it ended; 0 while it runs."""
    worker: str = ""
    """Machine and process of its last epoch."""
    panel: Path | None = None
    """File of the Panel of its best epoch, once it has ended; None where it left none."""
    no_panel: str = ""
    """Why it left none."""
    folder: str = ""
    """Where its checkpoints lie, in the storage."""
    checkpoint: str = ""
    """That of its best epoch, in the storage, once it has ended; empty where it left none."""

    @property
    def title(self) -> str:
        """How a person calls it."""
        if self.finalist:
            return f"{self.finalist}, seed {self.seed}"
        return "trial 0 (baseline)" if self.is_baseline else f"trial {self.number}"

    @property
    def is_baseline(self) -> bool:
        """Trial 0 has the seed's own hyperparameters."""
        return self.number == BASELINE_NUMBER

    @property
    def best(self) -> dict[str, float]:
        """The row of the best epoch (see ranking; the first, of equals); empty before the first epoch ends."""
        return max(self.epochs, key=ranking, default={})

    @property
    def best_objective(self) -> float | None:
        """The greatest objective so far."""
        return self.best.get("objective")

    @property
    def lost_seconds(self) -> float:
        """Time that gave nothing: of epochs that were repeated, and of a trial that failed."""
        return self.repeated_seconds + (self.seconds if self.status == "failed" else 0.0)

    def add_epoch(self, row: dict[str, float]) -> None:
        """Take the numbers of an epoch."""
        self.epochs.append(row)
        self.seconds += row["seconds"]


class Listener(Protocol):
    """Whoever follows a study: the ledger, the console, the training log."""

    def trial_started(self, trial: TrialRecord) -> None:
        """A trial is about to run."""

    def epoch_ended(self, trial: TrialRecord) -> None:
        """trial.epochs has a new row."""

    def trial_ended(self, trial: TrialRecord) -> None:
        """trial.status is no longer running."""
