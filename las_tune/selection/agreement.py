"""What watching other images told: of a synthetic validation, and of choosing by the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from las_tune.config.objectives import ranking
from las_tune.config.trial_record import TrialRecord

LEAST_TRIALS = 3
"""A rank correlation of fewer says nothing."""
PARTS = ("validation", "sealed", "whole")
Array = NDArray[Any]


def rank_correlation(trials: Sequence[TrialRecord]) -> dict[str, float | int | None]:
    """Spearman's ρ between trials' objectives on synthetic and on labeled images, at the epoch that was chosen.

    Of trials that ran to their end: epochs raise both scores, so trials of different lengths agree by that alone; ρ
    with the pruned ones stands beside it. The interval is that of the bootstrap over trials (percentiles of 2000
    draws). None where nothing can be told.
    """
    known = [trial for trial in trials if trial.status != "failed" and "labelled/objective" in trial.best]
    completed = [trial.best for trial in known if trial.status == "completed"]
    synthetic = np.array([row["objective"] for row in completed])
    labelled = np.array([row["labelled/objective"] for row in completed])
    low, high = _interval(synthetic, labelled)
    return {
        "spearman": _spearman(completed),
        "low": low,
        "high": high,
        "trials": len(completed),
        "spearman_with_pruned": _spearman([trial.best for trial in known]),
    }


def _spearman(rows: Sequence[dict[str, float]]) -> float | None:
    values = [[row[name] for row in rows] for name in ("objective", "labelled/objective")]
    if len(rows) < LEAST_TRIALS or any(len(set(numbers)) < 2 for numbers in values):
        return None
    return float(stats.spearmanr(*values).statistic)


def _interval(synthetic: Array, labelled: Array) -> tuple[float | None, float | None]:
    """95%, by the bootstrap over trials; draws in which one of the two is constant are left out."""
    if len(synthetic) < LEAST_TRIALS:
        return None, None
    drawn = np.random.default_rng(0).integers(len(synthetic), size=(2000, len(synthetic)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (synthetic, labelled)]
    one, two = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    rhos = (one * two).sum(1)[spread > 0] / spread[spread > 0]
    if not len(rhos):
        return None, None
    low, high = np.quantile(rhos, [0.025, 0.975])
    return float(low), float(high)


def leakage_gap(trials: Sequence[TrialRecord], num_validation: int, num_sealed: int) -> dict[str, Any]:
    """How much choosing epoch and trial by the test flatters, on the same trials.

    paper   the objective on all test images, of the epoch and trial that are best on all of them
    honest  chosen by one part and told on the other, both ways round, averaged by their numbers of images: the same
            images as paper's
    gap     paper less honest
    The search itself was led, and weak trials were stopped, by the validation part alone, which flatters what is chosen
    by the sealed part and told on validation: the gap is, if anything, larger. For worst_defect, a minimum over kinds,
    parts lie below the whole with no choosing at all: its gap is too large.
    """
    rows = [(trial, row) for trial in trials if trial.status != "failed" for row in trial.epochs]
    chosen = {part: max(rows, key=lambda pair: ranking(_part(pair[1], part))) for part in PARTS}
    on_sealed = chosen["validation"][1]["sealed/objective"]
    on_validation = chosen["sealed"][1]["objective"]
    honest = (num_sealed * on_sealed + num_validation * on_validation) / (num_sealed + num_validation)
    paper = chosen["whole"][1]["whole/objective"]
    where = {part: {"trial": trial.number, "epoch": int(row["epoch"])} for part, (trial, row) in chosen.items()}
    return {"paper": paper, "honest": honest, "gap": paper - honest, "chosen": where}


def _part(row: dict[str, float], part: str) -> dict[str, float]:
    """The metrics on one part, by their plain names."""
    if part == "validation":
        return row
    return {name.removeprefix(f"{part}/"): value for name, value in row.items() if name.startswith(f"{part}/")}
