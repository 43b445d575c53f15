"""Rank correlation and leakage gap from monitored images: by hand on few trials, and on pure noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from las_tune.config.trial_record import TrialRecord
from las_tune.selection.agreement import leakage_gap, rank_correlation


def trial(number: int, rows: Sequence[dict[str, float]], **fields: Any) -> TrialRecord:
    """Return a completed trial with these epochs."""
    record = TrialRecord(number, {}, **({"status": "completed"} | fields))
    for epoch, row in enumerate(rows, start=1):
        record.add_epoch({"epoch": epoch, "seconds": 1.0, **row})
    return record


# --- synthetic and labeled validation ---


def one_epoch_trials(synthetic: Sequence[float], labeled: Sequence[float]) -> list[TrialRecord]:
    """Return trials of one epoch with these objectives."""
    rows = [{"objective": s, "labelled/objective": o} for s, o in zip(synthetic, labeled, strict=True)]
    return [trial(number, [row]) for number, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("labeled", "rho"),
    [
        ([0.1, 0.2, 0.5, 0.9], 1.0),
        ([0.9, 0.5, 0.2, 0.1], -1.0),
        ([0.2, 0.1, 0.9, 0.5], 1 - 6 * 4 / (4 * 15)),
        ([0.1, 0.1, 0.9, 0.9], spearmanr([1, 2, 3, 4], [1.5, 1.5, 3.5, 3.5]).statistic),
    ],
    ids=["perfect", "reversed", "two swaps", "ties"],
)
def test_rank_correlation_matches_hand_calculation(labeled: list[float], rho: float) -> None:
    """ρ = 1 - 6 Σd² / (n (n² - 1)) without ties."""
    found = rank_correlation(one_epoch_trials([0.55, 0.6, 0.7, 0.99], labeled))
    assert found["spearman"] == pytest.approx(rho) and found["trials"] == 4
    assert found["low"] is not None and found["high"] is not None
    assert -1 - 1e-9 <= found["low"] <= rho + 1e-9 and rho - 1e-9 <= found["high"] <= 1 + 1e-9
    assert found["spearman_with_pruned"] == found["spearman"]
    if abs(rho) == 1:
        assert found["low"] == found["high"] == pytest.approx(rho), "every resample agrees"


@pytest.mark.parametrize(
    ("synthetic", "labeled"),
    [([], []), ([0.5, 0.6], [0.1, 0.2]), ([0.5] * 4, [0.1, 0.2, 0.3, 0.4]), ([0.1, 0.2, 0.3, 0.4], [1.0] * 4)],
    ids=["none", "too few", "constant", "constant labeled"],
)
def test_undefined_correlation_is_none(synthetic: list[float], labeled: list[float]) -> None:
    found = rank_correlation(one_epoch_trials(synthetic, labeled))
    assert found == dict.fromkeys(("spearman", "low", "high", "spearman_with_pruned")) | {"trials": len(synthetic)}


def test_trials_count_with_their_best_epoch_unless_failed() -> None:
    """The objectives agree at the best epoch of each trial, but not at the last epoch or the best labeled one."""
    trials = [
        trial(n, [{"objective": o, "labelled/objective": o / 2}, {"objective": 0.0, "labelled/objective": 1 - o}])
        for n, o in enumerate([0.1, 0.2, 0.3, 0.4])
    ]
    trials.append(trial(4, [{"objective": 0.9, "labelled/objective": 0.0}], status="failed"))
    trials.append(trial(5, [], status="pruned"))
    found = rank_correlation(trials)
    assert (found["spearman"], found["trials"]) == (pytest.approx(1), 4)
    trials[0].status = "pruned"
    trials[0].epochs[0]["labelled/objective"] = 0.9
    found = rank_correlation(trials)
    assert (found["spearman"], found["trials"]) == (pytest.approx(1), 3), (
        "pruned trials are only in the second correlation"
    )
    assert found["spearman_with_pruned"] == pytest.approx(-0.2)


def test_interval_covers_the_truth_and_narrows_with_trials() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for number in (20, 400):
        truth = generator.normal(size=number)
        found = rank_correlation(one_epoch_trials(list(truth), list(truth + generator.normal(size=number))))
        assert found["low"] is not None and found["high"] is not None
        assert found["low"] < 0.69 < found["high"], "6/π arcsin(ρ/2) of normal numbers with ρ = √½"
        widths.append(found["high"] - found["low"])
    assert widths[1] < widths[0] / 3
    assert rank_correlation(one_epoch_trials([0.1, 0.2, 0.3], [0.3, 0.1, 0.5])) == rank_correlation(
        one_epoch_trials([0.1, 0.2, 0.3], [0.3, 0.1, 0.5])
    )


# --- selection on the test set ---


def halves(validation: float, sealed: float, whole: float) -> dict[str, float]:
    """Return the objectives of one epoch."""
    return {"objective": validation, "sealed/objective": sealed, "whole/objective": whole}


def test_leakage_gap_matches_hand_calculation() -> None:
    """Validation selects an epoch that scores 0.5 on the sealed half, which selects one that scores 0.6 in return."""
    trials = [
        trial(0, [halves(0.7, 0.6, 0.66), halves(0.9, 0.5, 0.7)]),
        trial(1, [halves(0.6, 0.95, 0.8), halves(0.8, 0.9, 0.85)], status="pruned"),
        trial(2, [halves(1.0, 1.0, 1.0)], status="failed"),
        trial(3, [], status="pruned"),
    ]
    found = leakage_gap(trials, 10, 30)
    assert found["paper"] == 0.85
    assert found["honest"] == pytest.approx((30 * 0.5 + 10 * 0.6) / 40), "weighted by the number of scored images"
    assert found["gap"] == pytest.approx(0.85 - 0.525)
    assert found["chosen"] == {
        "validation": {"trial": 0, "epoch": 2}, "sealed": {"trial": 1, "epoch": 1}, "whole": {"trial": 1, "epoch": 2}
    }  # fmt: skip


def test_leakage_gap_breaks_ties_like_a_study() -> None:
    rows = [halves(1.0, 0.5, 0.75) | {"image_auroc": 0.5}, halves(1.0, 0.75, 0.75) | {"image_auroc": 0.75}]
    assert leakage_gap([trial(0, rows)], 5, 5)["chosen"]["validation"] == {"trial": 0, "epoch": 2}


def test_no_gap_without_selection_or_with_equal_parts() -> None:
    agreeing = [trial(n, [halves(value, value, value)]) for n, value in enumerate([0.5, 0.75, 0.25])]
    assert leakage_gap(agreeing, 5, 5)["gap"] == 0
    assert leakage_gap([trial(0, [halves(0.75, 0.25, 0.5)])], 5, 5)["gap"] == 0, "one epoch: nothing to choose"


def noise(seed: int, num_trials: int, num_epochs: int = 10) -> list[TrialRecord]:
    """Return equal trials: each half scores 0.8 plus noise, and the whole is their mean."""
    scores = np.random.default_rng(seed).normal(0.8, 0.05, (num_trials, num_epochs, 2))
    return [
        trial(number, [halves(float(v), float(s), float((v + s) / 2)) for v, s in rows])
        for number, rows in enumerate(scores)
    ]


def test_gap_on_noise_grows_with_the_number_of_choices() -> None:
    """The honest mean is 0.8. The mean maximum of n averages of two is 0.8 + 0.05 / √2 times that of n normals."""
    gaps = {number: [leakage_gap(noise(seed, number), 5, 5) for seed in range(300)] for number in (1, 30)}
    greatest = {1: 1.539, 30: 2.85}
    for number, found in gaps.items():
        assert np.mean([gap["honest"] for gap in found]) == pytest.approx(0.8, abs=0.01)
        assert np.mean([gap["gap"] for gap in found]) == pytest.approx(0.05 / 2**0.5 * greatest[number], abs=0.01)
    of_thirty = np.array([gap["gap"] for gap in gaps[30]])
    assert of_thirty.min() > -1e-12 and (of_thirty > 0.02).mean() > 0.95, "0 where one epoch is best on both halves"
