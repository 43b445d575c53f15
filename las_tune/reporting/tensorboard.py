"""Writes TensorBoard event files of every training run (--tensorboard)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter

from las_tune.config import Listener, TrialRecord

FOLDER = "tensorboard"
FLUSH_INTERVAL_S = 5


class TensorBoard(Listener):
    """A Listener that writes one folder of events per training run, in `tensorboard/` of the study."""

    def __init__(self, folder: Path) -> None:
        """Write below the given folder of the study."""
        self._folder = folder / FOLDER
        self._writers: dict[int, SummaryWriter] = {}

    def trial_started(self, trial: TrialRecord) -> None:
        """Start an empty folder: a resumed study repeats the events of its earlier trials."""
        name = trial.title.replace(", ", "_").replace(" ", "_")
        folder = self._folder / (f"{trial.number}_{name}" if trial.finalist else name)
        shutil.rmtree(folder, ignore_errors=True)
        self._writers[trial.number] = SummaryWriter(str(folder), flush_secs=FLUSH_INTERVAL_S)

    def epoch_ended(self, trial: TrialRecord) -> None:
        """Add the metrics of the epoch."""
        row = trial.epochs[-1]
        for name, value in row.items():
            if name != "epoch":
                self._writers[trial.number].add_scalar(name, value, int(row["epoch"]))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Add hyperparameters and best objective for TensorBoard's HParams table."""
        writer = self._writers.pop(trial.number)
        if trial.best_objective is not None:
            params = {
                name: value if isinstance(value, bool | int | float | str) else str(value)
                for name, value in trial.params.items()
            }
            writer.add_hparams(params, {"best/objective": trial.best_objective}, name="hparams")
        writer.close()
