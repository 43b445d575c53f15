"""Overhead of Ray, Optuna, MLflow and start-up in a study of short trials on rendered images, with a small network.

    python -m tests.benchmarks.trials

Prints a table and one JSON line:
    wall_over_ideal            wall-clock time of the study (reading images, starting Ray, features, trials, sealed
                               test, writing the champion) over the total training time divided by the workers
    second_trial_first_step_s  time from the end of a worker's first trial to the first step of its second, maximum over
                               workers
    per_training_overhead_s    worker time outside training, per training
"""

from __future__ import annotations

import functools
import json
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import cyclopts
from rich.console import Console
from rich.table import Table

from las_tune.config.paths import DEMO_CATEGORY
from las_tune.config.progress import no_progress
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.data.demo_category import render_demo
from las_tune.execution import tuner
from las_tune.execution.trainable import SharedStudy, run_trial
from las_tune.study import run as study


def timed_trial(config: dict[str, Any], shared: SharedStudy, start: Any, stamps: Path) -> None:
    """Run a trial, and write the times of its first step and of its end to a file."""
    from las_tune.las import training as train

    synthesize, first_step = train.synthesize, []

    def timed_synthesize(*arguments: Any) -> Any:
        if not first_step:
            first_step.append(time.time())
        return synthesize(*arguments)

    train.synthesize = timed_synthesize
    try:
        run_trial(config, shared, start)
    finally:
        train.synthesize = synthesize
        line = json.dumps({"worker": os.getpid(), "first_step": first_step[0], "end": time.time()})
        with (stamps / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(line + "\n")


class TrialCollector(Listener):
    """Listener that collects the trials."""

    def __init__(self) -> None:
        self.trials: dict[int, TrialRecord] = {}

    def trial_started(self, trial: TrialRecord) -> None:
        self.trials[trial.number] = trial


def first_steps(stamps: Path) -> tuple[int, float]:
    """Return the number of workers, and the longest time from the first trial to the first step of the second."""
    by_worker = defaultdict(list)
    for file in stamps.glob("*.jsonl"):
        by_worker[file.stem] = [json.loads(line) for line in file.read_text().splitlines()]
    waits = [trials[1]["first_step"] - trials[0]["end"] for trials in by_worker.values() if len(trials) > 1]
    return len(by_worker), max(waits)


def main(
    *, trials: int = 50, epochs: int = 5, image_size: int = 256, scheduler: str = "none", cpus_per_trial: float = 1
) -> None:
    """Time a study of short trials."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stamps = root / "stamps"
        stamps.mkdir()
        render_demo(root / "parts", root / "textures")
        spec = StudySpec(
            category=DEMO_CATEGORY, study="benchmark", data_root=root / "parts", textures=root / "textures",
            results=root / "results", trials=trials, scheduler=scheduler, cpus_per_trial=cpus_per_trial,
            train=TrainSpec(image_size=image_size, epochs=epochs, backbone="efficientnet_lite0"),
        )  # fmt: skip
        listener = TrialCollector()
        timed = functools.partial(timed_trial, stamps=stamps)
        study.run_trials = functools.partial(tuner.run_trials, trial_function=timed)
        started = time.perf_counter()
        study.run_studies([spec], lambda _: [listener], no_progress)
        wall_s = time.perf_counter() - started
        workers, second_s = first_steps(stamps)
    training_s, count = sum(trial.seconds for trial in listener.trials.values()), len(listener.trials)
    title = f"{trials} trials and {count - trials} retrainings with new seeds, {epochs} epochs each, {workers} workers"
    table = Table(show_header=False, title=title)
    table.add_row("Study", f"{wall_s:.1f} s")
    table.add_row("Training", f"{training_s:.1f} s, {training_s / count:.1f} s each")
    Console(width=110).print(table)
    result = {
        "wall_over_ideal": round(wall_s * workers / training_s, 3),
        "second_trial_first_step_s": round(second_s, 3),
        "per_training_overhead_s": round((wall_s * workers - training_s) / count, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
