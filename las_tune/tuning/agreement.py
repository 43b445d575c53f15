"""What watching other pictures told: of a synthetic validation, and of choosing by the test."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from las_tune.tracking.record import TrialRecord

LEAST_TRIALS = 3
"""A rank correlation of fewer says nothing."""


def rank_correlation(trials: Sequence[TrialRecord]) -> dict[str, float | int | None]:
    """Spearman's ρ between trials' objectives on synthetic and on labelled pictures, at the epoch that was chosen.

    The interval is that of the bootstrap over trials (percentiles of 2000 draws); None where nothing can be told.
    """
    best = [trial.best for trial in trials if trial.status != "failed" and "labelled/objective" in trial.best]
    synthetic = np.array([row["objective"] for row in best])
    labelled = np.array([row["labelled/objective"] for row in best])
    if len(best) < LEAST_TRIALS or len(set(synthetic)) < 2 or len(set(labelled)) < 2:
        return {"spearman": None, "low": None, "high": None, "trials": len(best)}
    drawn = np.random.default_rng(0).integers(len(best), size=(2000, len(best)))
    ranks = [stats.rankdata(values[drawn], axis=1) for values in (synthetic, labelled)]
    one, two = (r - r.mean(1, keepdims=True) for r in ranks)
    spread = np.sqrt((one**2).sum(1) * (two**2).sum(1))
    rhos = (one * two).sum(1)[spread > 0] / spread[spread > 0]
    low, high = np.quantile(rhos, [0.025, 0.975])
    rho = float(stats.spearmanr(synthetic, labelled).statistic)
    return {"spearman": rho, "low": float(low), "high": float(high), "trials": len(best)}


def leakage_gap(trials: Sequence[TrialRecord]) -> dict[str, Any]:
    """How much choosing epoch and trial by the test flatters, on the same trials.

    paper   the objective on all test pictures, of the epoch and trial that are best on all of them
    honest  chosen by one half and told on the other, both ways round, and averaged: the same pictures as paper's
    gap     paper less honest
    The search itself was led, and weak trials were stopped, by the validation half alone.
    """
    rows = [(trial, row) for trial in trials if trial.status != "failed" for row in trial.epochs]
    names = {"validation": "objective", "sealed": "sealed/objective", "whole": "whole/objective"}
    values = {part: np.array([row[name] for _, row in rows]) for part, name in names.items()}
    chosen = {part: int(numbers.argmax()) for part, numbers in values.items()}
    told = [float(values[b][chosen[a]]) for a, b in (("validation", "sealed"), ("sealed", "validation"))]
    paper = float(values["whole"].max())
    where = {part: {"trial": rows[i][0].number, "epoch": int(rows[i][1]["epoch"])} for part, i in chosen.items()}
    return {"paper": paper, "honest": sum(told) / 2, "gap": paper - sum(told) / 2, "chosen": where}
