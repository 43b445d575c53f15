"""A driver that tells a ledger of a study, trial by trial, and may be killed at any moment: run as a process.

python -m tests.tracking.recording_ledger TRACKING_URI FOLDER TRIALS EPOCHS SECONDS_A_TRIAL
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mlflow import MlflowClient

from las_tune.tracking.ledger import Ledger
from tests.parts import make_trial


def objective(trial: int, epoch: int) -> float:
    """Of an epoch; exact in binary."""
    return (trial + 1) / 64 + epoch / 1024


def start(uri: str, folder: Path, trials: int) -> Ledger:
    """A ledger whose study has started, or goes on."""
    ledger = Ledger(uri, "las_tune", folder / "artifacts", {"study": "told"})
    ledger.start_study(folder, "told", {"trials": trials}, ("cpu_seconds", 1.0))
    return ledger


def tell(ledger: Ledger, folder: Path, trials: int, epochs: int, seconds: float) -> None:
    """Tell of all trials from the first on, as a driver does that starts again; two trials run side by side."""
    (folder / "late.txt").write_text("late")
    for first in range(0, trials, 2):
        together = [make_trial(number, []) for number in range(first, min(first + 2, trials))]
        for trial in together:
            ledger.trial_started(trial)
        for epoch in range(1, epochs + 1):
            for trial in together:
                (row,) = make_trial(trial.number, [objective(trial.number, epoch)]).epochs
                trial.add_epoch(row | {"epoch": epoch})
                ledger.epoch_ended(trial)
            time.sleep(seconds)
        for trial in together:
            trial.status = "completed"
            ledger.trial_ended(trial)
    ledger.log_artifacts("0", [folder / "late.txt"])
    ledger.end_study("FINISHED")


def check(uri: str, trials: int, epochs: int) -> None:
    """Every run is there once, and every number."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("las_tune")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=5000)
    (parent,) = [run for run in runs if run.data.tags["kind"] == "study"]
    children = [run for run in runs if run.data.tags["kind"] == "trial"]
    assert sorted(int(run.data.tags["trial"]) for run in children) == list(range(trials))
    assert {run.info.status for run in runs} == {"FINISHED"}
    for run in children:
        number = int(run.data.tags["trial"])
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.tags["status"] == "completed"
        assert run.data.params == {k: str(v) for k, v in make_trial(number, []).params.items()}
        expected = [(epoch, objective(number, epoch)) for epoch in range(1, epochs + 1)]
        for name in ("objective", "image_auroc"):
            history = client.get_metric_history(run.info.run_id, name)
            assert [(m.step, m.value) for m in history] == expected, (number, name, history)
        assert run.data.metrics["best/objective"] == expected[-1][1]
        assert len(client.get_metric_history(run.info.run_id, "best/objective")) == 1
    (first,) = [run for run in children if run.data.tags["trial"] == "0"]
    assert [file.path for file in client.list_artifacts(first.info.run_id)] == ["late.txt"]


if __name__ == "__main__":
    tracking_uri, place, num_trials, num_epochs, pause = sys.argv[1:]
    told = start(tracking_uri, Path(place), int(num_trials))
    tell(told, Path(place), int(num_trials), int(num_epochs), float(pause))
    sys.exit(0 if told.flush(120) and not told.num_refused else 1)
