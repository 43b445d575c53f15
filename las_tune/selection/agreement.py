"""Agreement of synthetic and labeled validation, and the optimistic bias of selecting on the test set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from las_tune.config import TrialRecord, ranking

MIN_TRIALS = 3
"""Minimum number of trials for a rank correlation."""
PARTS = ("validation", "sealed", "whole")
Array = NDArray[Any]


def rank_correlation(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """Compute Spearman's ρ between the objectives of trials on synthetic and on labeled images, at the best epoch.

    Only completed trials count, because both objectives rise with the number of epochs, so that trials of different
    lengths agree for that reason alone. ρ including pruned trials is returned separately. The 95% interval is computed
    by a bootstrap over trials (2000 draws). Values that cannot be computed are None.
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
    if len(rows) < MIN_TRIALS or any(len(set(numbers)) < 2 for numbers in values):
        return None
    return float(stats.spearmanr(*values).statistic)


def _interval(synthetic: Array, labelled: Array) -> tuple[float | None, float | None]:
    """Return the 95% bootstrap interval over trials, without draws in which one of the objectives is constant."""
    if len(synthetic) < MIN_TRIALS:
        return None, None
    drawn = np.random.default_rng(0).integers(len(synthetic), size=(2000, len(synthetic)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (synthetic, labelled)]
    first, second = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((first**2).sum(1) * (second**2).sum(1))
    rhos = (first * second).sum(1)[spread > 0] / spread[spread > 0]
    if not len(rhos):
        return None, None
    low, high = np.quantile(rhos, [0.025, 0.975])
    return float(low), float(high)


def leakage_gap(trials: Sequence[TrialRecord], num_validation: int, num_sealed: int) -> dict[str, Any]:
    """Compute the optimistic bias of selecting epoch and trial on the test set, from the same trials.

    paper   objective on all test images, of the epoch and trial that are best on all of them
    honest  objective on one part, selected on the other part; averaged over both directions, weighted by the number of
            images, so that it covers the same images as `paper`
    gap     paper minus honest

    The search and the pruning used the validation part, which favors the direction that reports on validation, so the
    true gap may be larger. For worst_defect, a minimum over defect types, smaller parts have lower values even without
    any selection, so its gap is too large.
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
    """Return the metrics on one part, without the prefix of the part."""
    if part == "validation":
        return row
    return {name.removeprefix(f"{part}/"): value for name, value in row.items() if name.startswith(f"{part}/")}
