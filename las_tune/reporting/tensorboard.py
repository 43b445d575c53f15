"""TensorBoard: curves of every training, for whoever has it open already (--tensorboard)."""

from __future__ import annotations

import shutil
from pathlib import Path

from tensorboardX import SummaryWriter

from las_tune.config.trial_record import TrialRecord

FOLDER = "tensorboard"
FLUSHED_EVERY_S = 5


class TensorBoard:
    """A Listener that writes one folder of events a training, under tensorboard/ of the study."""

    def __init__(self, folder: Path) -> None:
        """folder: the study's."""
        self._folder = folder / FOLDER
        self._writers: dict[int, SummaryWriter] = {}

    def trial_started(self, trial: TrialRecord) -> None:
        """A fresh folder: a study that goes on tells all of its trials again."""
        name = trial.title.replace(", ", "_").replace(" ", "_")
        folder = self._folder / (f"{trial.number}_{name}" if trial.finalist else name)
        shutil.rmtree(folder, ignore_errors=True)
        self._writers[trial.number] = SummaryWriter(str(folder), flush_secs=FLUSHED_EVERY_S)

    def epoch_ended(self, trial: TrialRecord) -> None:
        """A point on each curve."""
        row = trial.epochs[-1]
        for name, value in row.items():
            if name != "epoch":
                self._writers[trial.number].add_scalar(name, value, int(row["epoch"]))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Its hyperparameters beside the best objective, for TensorBoard's table."""
        writer = self._writers.pop(trial.number)
        if trial.best_objective is not None:
            params = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in trial.params.items()}
            writer.add_hparams(params, {"best/objective": trial.best_objective}, name="hparams")
        writer.close()
