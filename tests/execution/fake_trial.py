"""A trial with an analytic learning curve, for tests of the orchestration without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.config.trial_record import Listener, TrialRecord
from las_tune.execution.observer import TuneInput
from las_tune.execution.trainable import EpochReporter, SharedStudy
from las_tune.space.search_space import Space, load_space

PEAK = 0.2
EPOCHS = 9
TRIALS = 20
DEFAULT = load_space("default")


@dataclass
class Recorder(Listener):
    """Listener that records its events."""

    events: list[tuple[str, int]] = field(default_factory=list)
    category: str = ""
    started: list[str] = field(default_factory=list)
    """Categories in the order in which trials start; several recorders can share the list."""

    def trial_started(self, trial: TrialRecord) -> None:
        self.started.append(self.category)
        self.events.append(("started", trial.number))

    def epoch_ended(self, trial: TrialRecord) -> None:
        self.events.append(("epoch", trial.number))

    def trial_ended(self, trial: TrialRecord) -> None:
        self.events.append(("ended", trial.number))


def make_spec(folder: Path, **changes: Any) -> StudySpec:
    settings: dict[str, Any] = {
        "category": "part", "study": "fake", "train": TrainSpec(epochs=EPOCHS, seed=1), "trials": TRIALS,
        "data_root": folder, "textures": folder, "results": folder, "max_concurrent": 1, "max_failures": 0,
    }  # fmt: skip
    return StudySpec(**(settings | changes))


def ceiling(alpha: float, peak: float = PEAK) -> float:
    """Return the limit of a trial's objective, which is highest at α = peak."""
    return 1 - (alpha - peak) ** 2


def fake_study(train: TrainSpec, num_threads: int, peak: float = PEAK) -> SharedStudy:
    """Return the shared study of fake trials, whose data is the best α."""
    return SharedStudy(train, None, peak, num_threads)


def fake_trial(
    config: dict[str, Any],
    shared: SharedStudy,
    checkpoint: tune.Checkpoint | None,
    pause: Callable[[], None] = lambda: None,
) -> None:
    """Approach ceiling(α, peak) exponentially; report NaN for α above 0.45 and fail for beta_std above 0.25.

    Args:
        config: hyperparameters.
        shared: the shared study, see fake_study.
        checkpoint: the checkpoint to resume from.
        pause: called before every epoch.
    """
    spec = shared.train.replace(**config)
    if spec.beta_std > 0.25:
        raise RuntimeError("the disk is full")
    reporter = EpochReporter(spec, checkpoint)
    state = reporter.state or {"epoch": 0, "best": -math.inf}
    best = state["best"]
    for epoch in range(state["epoch"] + 1, spec.epochs + 1):
        pause()
        objective = ceiling(spec.alpha, shared.data) * (1 - 0.5**epoch)
        if spec.alpha > 0.45:
            objective = math.nan
        is_best, best = objective > best, max(objective, best)
        row = {
            "epoch": epoch, "loss": 1 / epoch, "loss_normal": 0.5 / epoch, "loss_las": 0.5 / epoch,
            "image_auroc": objective, "image_ap": objective, "objective": objective, "best_objective": best,
            "seconds": 0.01,
        }  # fmt: skip
        reporter.report(row, is_best, {"head": {"epoch": torch.tensor(epoch)}, "epoch": epoch, "best": best})


def make_tune_input(
    spec: StudySpec,
    recorder: Recorder,
    space: Space = DEFAULT,
    peak: float = PEAK,
    points: Sequence[dict[str, Any]] = (),
) -> TuneInput:
    spec.folder.mkdir(exist_ok=True)
    return TuneInput(spec, space, fake_study(spec.train, 1, peak), [recorder], tuple(points))
