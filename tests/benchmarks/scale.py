"""Capacity of one driver: a complete study whose trials sleep instead of training.

    python -m tests.benchmarks.scale                       # efficiency, about 20 minutes; driver time at 1,000 trials
    python -m tests.benchmarks.scale --trials 1000 --trials 5000 --concurrent 0

Ray has one slot for each concurrent trial, so slots are the bottleneck, not cores. Prints one JSON line:
    efficiency            by number of concurrent trials: sleep time over wall time, from first start to last end
    driver_ms_per_trial   by number of trials so far: CPU time of the driver per trial, over the last hundred trials;
                          includes TPE, ASHA, Ray Tune, the study's history and the ledger with MLflow (sqlite)
    trials_per_hour       by number of trials so far: upper limit that follows from driver_ms_per_trial
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
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.execution.cluster import Resources
from las_tune.execution.observer import TuneInput
from las_tune.execution.trainable import SharedStudy
from las_tune.execution.tuner import run_trials
from las_tune.space.search_space import load_space
from las_tune.tracking.ledger import Ledger

WINDOW = 100
"""Number of trials over which the driver's time is measured."""


def sleeping_trial(
    config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None, *, trial_s: float, num_epochs: int
) -> None:
    """Sleep, and report an objective that depends on α, so that TPE has something to model."""
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
class Stamps(Listener):
    """Listener that records the wall-clock time and the CPU time of the driver at the end of each trial."""

    started: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def trial_started(self, trial: TrialRecord) -> None:
        self.started.append(time.monotonic())

    def trial_ended(self, trial: TrialRecord) -> None:
        self.ended.append(time.monotonic())
        self.cpu_s.append(time.process_time())


def run(trials: int, concurrent: int, trial_s: float, num_epochs: int) -> Stamps:
    """Run one study of sleeping trials, with its ledger."""
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
        study = TuneInput(spec, load_space("default"), SharedStudy(spec.train, None, None, 1), [stamps, ledger])
        run_trials(
            [study], Resources(1, 0, concurrent), partial(sleeping_trial, trial_s=trial_s, num_epochs=num_epochs)
        )
        ledger.end_study("FINISHED")
        ledger.flush(600)
        ledger.close()
    return stamps


def efficiency(concurrent: int, rounds: int, trial_s: float) -> float:
    """Return ideal over wall time, measured with running worker processes, as they are reused from trial to trial."""
    stamps = run(concurrent * (rounds + 1), concurrent, trial_s, num_epochs=1)
    first_round = sorted(stamps.ended)[concurrent - 1]  # all workers have started
    return rounds * trial_s / (sorted(stamps.ended)[-1] - first_round)


def driver_s_per_trial(cpu_s: list[float]) -> float:
    """Return the CPU seconds of the driver per trial, over the last trials."""
    window = cpu_s[-WINDOW - 1 :]
    return (window[-1] - window[0]) / (len(window) - 1)


def main(
    *,
    concurrent: list[int] | None = None,
    rounds: int = 5,
    trial_s: float = 20.0,
    trials: list[int] | None = None,
    slots: int = 4,
) -> None:
    """Measure the efficiency, and the time of the driver.

    Parameters
    ----------
    concurrent
        Numbers of concurrent trials (1, 2, 4, 8, 16); 0 skips this part.
    rounds
        Trials per slot, after a first trial that starts the workers.
    trial_s
        Duration of a trial.
    trials
        Numbers of trials after which the driver's time is measured (1000); 0 skips this part.
    slots
        Concurrent trials in that part. They do not sleep, so more workers than cores would slow the driver down.
    """
    concurrencies = [number for number in (concurrent or [1, 2, 4, 8, 16]) if number]
    sizes = sorted(number for number in (trials or [1000]) if number)
    ray.init(
        num_cpus=max([*concurrencies, slots]), include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR
    )
    result: dict[str, Any] = {"efficiency": {str(n): round(efficiency(n, rounds, trial_s), 3) for n in concurrencies}}
    if sizes:
        stamps = run(sizes[-1], slots, 0.0, num_epochs=3)
        driver_s = {n: driver_s_per_trial(stamps.cpu_s[:n]) for n in sizes}
        result["driver_ms_per_trial"] = {str(n): round(seconds * 1000, 1) for n, seconds in driver_s.items()}
        result["trials_per_hour"] = {str(n): round(3600 / seconds) for n, seconds in driver_s.items()}
    ray.shutdown()
    print(json.dumps(result))


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
