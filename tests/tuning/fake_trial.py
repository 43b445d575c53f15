"""A trial with an analytic learning curve: the orchestration is tested without training."""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from ray import tune

from las_tune.spec import TrainSpec
from las_tune.tuning.trainable import Reports, SharedStudy

PEAK = 0.2


def ceiling(alpha: float, peak: float = PEAK) -> float:
    """What a trial can reach: best at α = peak."""
    return 1 - (alpha - peak) ** 2


def fake_study(train: TrainSpec, num_threads: int, peak: float = PEAK) -> SharedStudy:
    """What fake trials share: their data is the α that is best."""
    return SharedStudy(train, None, peak, num_threads)


def fake_trial(config: dict[str, Any], shared: SharedStudy, start: tune.Checkpoint | None, pause_s: float = 0) -> None:
    """Learns fast towards ceiling(α, peak); fails for α above 0.45 (NaN) and for beta_std above 0.25 (an error)."""
    spec = shared.train.replace(**config)
    if spec.beta_std > 0.25:
        raise RuntimeError("the disk is full")
    reports = Reports(spec, start)
    state = reports.state or {"epoch": 0, "best": -math.inf}
    best = state["best"]
    for epoch in range(state["epoch"] + 1, spec.epochs + 1):
        time.sleep(pause_s)
        objective = ceiling(spec.alpha, shared.data) * (1 - 0.5**epoch)
        if spec.alpha > 0.45:
            objective = math.nan
        is_best, best = objective > best, max(objective, best)
        row = {
            "epoch": epoch, "loss": 1 / epoch, "loss_normal": 0.5 / epoch, "loss_las": 0.5 / epoch,
            "image_auroc": objective, "image_ap": objective, "objective": objective, "best_objective": best,
            "seconds": 0.01,
        }  # fmt: skip
        reports.add(row, is_best, {"head": {"epoch": torch.tensor(epoch)}, "epoch": epoch, "best": best})
