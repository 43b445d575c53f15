"""How far one driver goes: trials that sleep instead of computing, with everything else that a study has.

    python -m tests.benchmarks.scale                       # efficiency, about 20 minutes; driver time at 1,000 trials
    python -m tests.benchmarks.scale --trials 1000 --trials 5000 --concurrent 0

Ray has as many places as trials run at once, so that places, not cores, are what is short. Prints one JSON line:
    efficiency            by trials at once: time that they sleep over wall time, from the first start to the last end
    driver_ms_per_trial   by trials so far: processor time of the driver a trial, over the last hundred: TPE, ASHA, Ray
                          Tune, the study's history and the ledger with its MLflow (sqlite)
    trials_per_hour       by trials so far: what these times allow, if the driver does nothing else
"""

from __future__ import annotations

import json
import logging
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import ray
from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import TrialRecord
from las_tune.execution.cluster import Resources
from las_tune.execution.observer import TunedStudy
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import run_trials
from las_tune.space.search_space import load_space
from las_tune.tracking.ledger import Ledger

WINDOW = 100
"""Trials that the driver's time is measured over."""


def sleeping_trial(
    config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None, *, trial_s: float, num_epochs: int
) -> None:
    """Sleeps; what it reports follows from α, so that TPE has something to model."""
    for epoch in range(1, num_epochs + 1):
        time.sleep(trial_s / num_epochs)
        objective = (1 - (config["alpha"] - 0.2) ** 2) * (1 - 0.5**epoch)
        tune.report(
            {
                "epoch": epoch,
                "loss": 1 / epoch,
                "loss_normal": 0.5 / epoch,
                "loss_las": 0.5 / epoch,
                "image_auroc": objective,
                "image_ap": objective,
                "objective": objective,
                "best_objective": objective,
                "seconds": trial_s / num_epochs,
            }
        )


@dataclass
class Stamps:
    """A Listener that notes clock and processor time of the driver at every end."""

    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)

    def trial_started(self, trial: TrialRecord) -> None:
        self.started.append(time.monotonic())

    def epoch_ended(self, trial: TrialRecord) -> None:
        pass

    def trial_ended(self, trial: TrialRecord) -> None:
        self.ended.append(time.monotonic())
        self.processor.append(time.process_time())


def run(trials: int, concurrent: int, trial_s: float, num_epochs: int) -> Stamps:
    """One study of sleeping trials, with its ledger."""
    stamps = Stamps()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        spec = StudySpec(
            category="part", study="scale", data_root=folder, textures=folder, results=folder, trials=trials,
            train=TrainSpec(epochs=num_epochs), scheduler="none" if num_epochs == 1 else "asha",
        )  # fmt: skip
        spec.folder.mkdir()
        ledger = Ledger(f"sqlite:///{folder / 'mlflow.db'}", "scale", folder / "artifacts", {"category": "part"})
        ledger.start_study(spec.folder, spec.study, {"trials": trials}, ("cpu_seconds", 1.0))
        study = TunedStudy(spec, load_space("default"), SharedStudy(spec.train, None, None, 1), [stamps, ledger])
        run_trials(
            [study], Resources(1, 0, concurrent), partial(sleeping_trial, trial_s=trial_s, num_epochs=num_epochs)
        )
        ledger.end_study("FINISHED")
        ledger.flush(600)
        ledger.close()
    return stamps


def efficiency(concurrent: int, rounds: int, trial_s: float) -> float:
    """Ideal over wall time, worker processes started before the clock: a cluster's stay from trial to trial."""
    stamps = run(concurrent * (rounds + 1), concurrent, trial_s, num_epochs=1)
    first_round = sorted(stamps.ended)[concurrent - 1]  # all workers are there
    return rounds * trial_s / (sorted(stamps.ended)[-1] - first_round)


def spent_each(processor: list[float]) -> float:
    """Seconds of the driver a trial, over the last ones."""
    window = processor[-WINDOW - 1 :]
    return (window[-1] - window[0]) / (len(window) - 1)


def main(
    *,
    concurrent: list[int] | None = None,
    rounds: int = 5,
    trial_s: float = 20.0,
    trials: list[int] | None = None,
    places: int = 4,
) -> None:
    """Measure.

    Parameters
    ----------
    concurrent
        Trials at once (1, 2, 4, 8, 16); 0 leaves this part out.
    rounds
        Trials of each place, after a first one that brings the workers up.
    trial_s
        How long a trial sleeps.
    trials
        Sizes of studies at whose end the driver's time is taken (1000).
    places
        Trials at once in these. They do not sleep: more workers than cores would take the driver its time.
    """
    at_once = [number for number in (concurrent or [1, 2, 4, 8, 16]) if number]
    sizes = sorted(number for number in (trials or [1000]) if number)
    ray.init(
        num_cpus=max([*at_once, places]), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    result: dict[str, Any] = {"efficiency": {str(n): round(efficiency(n, rounds, trial_s), 3) for n in at_once}}
    if sizes:
        stamps = run(sizes[-1], places, 0.0, num_epochs=3)
        spent = {n: spent_each(stamps.processor[:n]) for n in sizes}
        result["driver_ms_per_trial"] = {str(n): round(seconds * 1000, 1) for n, seconds in spent.items()}
        result["trials_per_hour"] = {str(n): round(3600 / seconds) for n, seconds in spent.items()}
    ray.shutdown()
    print(json.dumps(result))


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
