"""Objectives, and what is better of two that are equal in them."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from las_tune.config.objectives import TIE_BREAKS, Objective, broken_by, objective_value, ranking
from las_tune.config.train_spec import ObjectiveChoice

METRICS = {
    "image_auroc": 0.8, "image_ap": 0.1, "pixel_auroc": 0.2, "pixel_aupro": 0.5, "worst_defect": 0.6, "recall": 0.3,
    "f1": 0.9, "false_reject_rate": 0.01,
}  # fmt: skip
BY_HAND = {"image_auroc": 0.8, "pixel_aupro": 0.5, "combined": 0.65, "recall_at_fpr": 0.3, "worst_defect": 0.6}


def test_every_objective_is_here_and_is_a_choice() -> None:
    assert set(BY_HAND) == set(get_args(Objective))
    assert set(get_args(ObjectiveChoice)) == {"auto", *get_args(Objective)}


@pytest.mark.parametrize("objective", get_args(Objective))
def test_objectives_by_hand(objective: Objective) -> None:
    assert objective_value(objective, METRICS) == pytest.approx(BY_HAND[objective])


def test_without_masks_the_others_are_there() -> None:
    without = {name: value for name, value in METRICS.items() if not name.startswith("pixel")}
    for objective in get_args(Objective):
        if objective in ("pixel_aupro", "combined"):
            with pytest.raises(KeyError):
                objective_value(objective, without)
        else:
            assert objective_value(objective, without) == BY_HAND[objective]


def test_the_objective_comes_first_then_the_tie_breaks_in_their_order() -> None:
    """Each row is better than the one before by one number alone, whatever the numbers after it are."""
    usual = {"objective": 0.5, "image_auroc": 0.5, "pixel_aupro": 0.5, "recall": 0.5, "worst_defect": 0.5}
    names = ("objective", *TIE_BREAKS)
    assert names == tuple(usual)
    for place, name in enumerate(names):
        better = usual | {name: 0.6} | dict.fromkeys(names[place + 1 :], 0.0)
        assert ranking(better) > ranking(usual)
    assert ranking(usual | {"image_ap": 1.0, "loss": 0.0}) == ranking(usual), "nothing else counts"


def test_metrics_that_are_missing_are_left_out() -> None:
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
def test_what_told_two_apart_is_named(changes: dict[str, float], metric: str) -> None:
    other = {"objective": 0.5, "image_auroc": 0.5, "recall": 0.5, "worst_defect": 0.5}
    assert broken_by(other | changes, other) == metric
