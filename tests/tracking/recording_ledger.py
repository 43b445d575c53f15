"""A driver that records a study in a ledger and may be killed at any moment, to be run as a process.

python -m tests.tracking.recording_ledger TRACKING_URI FOLDER TRIALS EPOCHS SECONDS_PER_EPOCH
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from mlflow import MlflowClient

from las_tune.tracking.ledger import Ledger
from tests.parts import make_trial


def objective(trial: int, epoch: int) -> float:
    """Objective of an epoch, exact in binary."""
    return (trial + 1) / 64 + epoch / 1024


def start(uri: str, folder: Path, trials: int) -> Ledger:
    """Start a study, or resume it."""
    ledger = Ledger(uri, "las_tune", folder / "artifacts", {"study": "recorded"})
    ledger.start_study(folder, "recorded", {"trials": trials}, ("cpu_seconds", 1.0))
    return ledger


def record(ledger: Ledger, folder: Path, trials: int, epochs: int, seconds: float) -> None:
    """Record all trials from the first on, two at a time, as a restarted driver does."""
    (folder / "late.txt").write_text("late")
    for first in range(0, trials, 2):
        pair = [make_trial(number, []) for number in range(first, min(first + 2, trials))]
        for trial in pair:
            ledger.trial_started(trial)
        for epoch in range(1, epochs + 1):
            for trial in pair:
                (row,) = make_trial(trial.number, [objective(trial.number, epoch)]).epochs
                trial.add_epoch(row | {"epoch": epoch})
                ledger.epoch_ended(trial)
            time.sleep(seconds)
        for trial in pair:
            trial.status = "completed"
            ledger.trial_ended(trial)
    ledger.log_artifacts("0", [folder / "late.txt"])
    ledger.end_study("FINISHED")


def check(uri: str, trials: int, epochs: int) -> None:
    """Assert that every run and every metric value exists exactly once."""
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
    tracking_uri, study_folder, num_trials, num_epochs, pause = sys.argv[1:]
    recording = start(tracking_uri, Path(study_folder), int(num_trials))
    record(recording, Path(study_folder), int(num_trials), int(num_epochs), float(pause))
    sys.exit(0 if recording.flush(120) and not recording.num_refused else 1)
