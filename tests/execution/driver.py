"""A driver that tests run in a separate process and kill: a search of slow fake trials, then two finalists.

python -m tests.execution.driver FOLDER EPOCH_S

Prints one line per listener event, and at the end all records as one JSON line.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.execution.cluster import ray_cluster, resources_of
from las_tune.execution.observer import TuneInput
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import run_finalists, run_trials
from las_tune.selection.finalists import make_retrainings
from las_tune.space.search_space import load_space
from tests.execution.fake_trial import fake_study, fake_trial

TRIALS, EPOCHS = 8, 9


class Printer(Listener):
    """Listener that prints."""

    def trial_started(self, trial: TrialRecord) -> None:
        print("started", trial.number, flush=True)

    def epoch_ended(self, trial: TrialRecord) -> None:
        print("epoch", trial.number, len(trial.epochs), flush=True)

    def trial_ended(self, trial: TrialRecord) -> None:
        print("ended", trial.number, trial.status, flush=True)


def main(folder: Path, epoch_s: float) -> None:
    """Run or resume the study."""
    spec = StudySpec(
        category="part", study="fake", train=TrainSpec(epochs=EPOCHS, seed=1), trials=TRIALS, data_root=folder,
        textures=folder, results=folder, max_concurrent=1,
    )  # fmt: skip
    spec.folder.mkdir(exist_ok=True)

    def slow_trial(config: dict[str, Any], shared: SharedStudy, checkpoint: tune.Checkpoint | None) -> None:
        fake_trial(config, shared, checkpoint, pause=lambda: time.sleep(epoch_s))

    with ray_cluster(None):
        study = TuneInput(spec, load_space("default"), fake_study(spec.train, 1), [Printer()])
        (searched,) = run_trials([study], resources_of(spec), slow_trial)
        jobs = make_retrainings({"baseline": {"alpha": 1 / 3}, "trial 3": {"alpha": 0.25}}, 1, 2)
        (again,) = run_finalists([study], [jobs], resources_of(spec), slow_trial)
    print(json.dumps([asdict(record) for record in (*searched.records, *again.records)], default=str))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
