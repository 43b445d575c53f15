"""Objectives and tie breaks."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from las_tune.config.objectives import TIE_BREAKS, Objective, deciding_tie_break, objective_value, ranking
from las_tune.config.train_spec import ObjectiveChoice

METRICS = {
    "image_auroc": 0.8, "image_ap": 0.1, "pixel_auroc": 0.2, "pixel_aupro": 0.5, "worst_defect": 0.6, "recall": 0.3,
    "f1": 0.9, "false_reject_rate": 0.01,
}  # fmt: skip
BY_HAND = {"image_auroc": 0.8, "pixel_aupro": 0.5, "combined": 0.65, "recall_at_fpr": 0.3, "worst_defect": 0.6}


def test_objectives_are_complete() -> None:
    assert set(BY_HAND) == set(get_args(Objective))
    assert set(get_args(ObjectiveChoice)) == {"auto", *get_args(Objective)}


@pytest.mark.parametrize("objective", get_args(Objective))
def test_objective_values_match_hand_calculation(objective: Objective) -> None:
    assert objective_value(objective, METRICS) == pytest.approx(BY_HAND[objective])


def test_pixel_objectives_need_masks() -> None:
    without = {name: value for name, value in METRICS.items() if not name.startswith("pixel")}
    for objective in get_args(Objective):
        if objective in ("pixel_aupro", "combined"):
            with pytest.raises(KeyError):
                objective_value(objective, without)
        else:
            assert objective_value(objective, without) == BY_HAND[objective]


def test_ranking_compares_the_objective_then_the_tie_breaks() -> None:
    """A single higher metric ranks a row higher, whatever the metrics after it are."""
    usual = {"objective": 0.5, "image_auroc": 0.5, "pixel_aupro": 0.5, "recall": 0.5, "worst_defect": 0.5}
    names = ("objective", *TIE_BREAKS)
    assert names == tuple(usual)
    for position, name in enumerate(names):
        better = usual | {name: 0.6} | dict.fromkeys(names[position + 1 :], 0.0)
        assert ranking(better) > ranking(usual)
    assert ranking(usual | {"image_ap": 1.0, "loss": 0.0}) == ranking(usual), "other metrics are ignored"


def test_ranking_omits_missing_metrics() -> None:
    assert ranking({"objective": 0.5, "recall": 0.25, "image_auroc": 0.75}) == (0.5, 0.75, 0.25)
    assert ranking({"objective": 0.5}) == (0.5,)
    rows = [{"objective": o, "image_auroc": a, "recall": r} for o, a, r in itertools.product((0.1, 0.2), repeat=3)]
    assert sorted(rows, key=ranking) == rows


@pytest.mark.parametrize(
    ("changes", "metric"),
    [
        ({"objective": 0.7}, ""),
        ({"objective": 0.7, "image_auroc": 0.9}, ""),
        ({"image_auroc": 0.9, "recall": 0.9}, "image_auroc"),
        ({"recall": 0.9, "worst_defect": 0.0}, "recall"),
        ({"worst_defect": 0.9}, "worst_defect"),
        ({"loss": 0.1}, "the order of trials"),
        ({}, "the order of trials"),
    ],
)
def test_deciding_tie_break_is_the_first_different_metric(changes: dict[str, float], metric: str) -> None:
    other = {"objective": 0.5, "image_auroc": 0.5, "recall": 0.5, "worst_defect": 0.5}
    assert deciding_tie_break(other | changes, other) == metric
