"""TensorBoard: curves of every training, for whoever has it open already (--tensorboard)."""

from __future__ import annotations

from pathlib import Path

from tensorboardX import SummaryWriter

from las_tune.tracking.record import TrialRecord

FOLDER = "tensorboard"


class TensorBoard:
    """A Listener that writes one folder of events a training, under tensorboard/ of the study."""

    def __init__(self, folder: Path) -> None:
        """folder: the study's."""
        self._folder = folder / FOLDER
        self._writers: dict[int, SummaryWriter] = {}

    def trial_started(self, trial: TrialRecord) -> None:
        """A folder for it; a trial that goes on after a fault writes on into its own."""
        self._writer(trial)

    def epoch_ended(self, trial: TrialRecord) -> None:
        """A point on each curve."""
        row = trial.epochs[-1]
        for name, value in row.items():
            if name != "epoch":
                self._writer(trial).add_scalar(name, value, int(row["epoch"]))

    def trial_ended(self, trial: TrialRecord) -> None:
        """Its hyperparameters beside the best objective, for TensorBoard's table."""
        writer = self._writers.pop(trial.number, None) or self._writer(trial)
        if trial.best_objective is not None:
            params = {n: v if isinstance(v, bool | int | float | str) else str(v) for n, v in trial.params.items()}
            writer.add_hparams(params, {"best/objective": trial.best_objective}, name=".")
        writer.close()
        self._writers.pop(trial.number, None)

    def _writer(self, trial: TrialRecord) -> SummaryWriter:
        if trial.number not in self._writers:
            self._writers[trial.number] = SummaryWriter(
                str(self._folder / trial.title.replace(", ", "_").replace(" ", "_"))
            )
        return self._writers[trial.number]
