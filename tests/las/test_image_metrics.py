"""Metrics of scored images, compared with scikit-learn, with the reference implementation, and by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, f1_score, recall_score, roc_auc_score
from torch import Tensor

from las_tune.las.image_metrics import LabeledFeatures, at_threshold, metrics_of, threshold_of
from las_tune.las.metrics import pixel_targets
from tests.reference.metrics import aupro

SIZE = 6


def labeled(defects: list[int], masks: NDArray[np.bool_] | None = None) -> LabeledFeatures:
    """Return labels without features, which these tests do not need."""
    features: Any = None
    return LabeledFeatures(features, torch.tensor(defects), pixel_targets(masks) if masks is not None else None)


def peaks(*scores: float) -> Tensor:
    """Return anomaly maps (N, 2, 2) whose maxima are these scores."""
    maps = torch.zeros(len(scores), 2, 2)
    maps[:, 1, 0] = torch.tensor(scores)
    return maps


def slow_worst_defect(scores: NDArray[Any], defects: NDArray[Any]) -> float:
    """Compare every pair (defective, good), one defect type at a time."""
    shares = []
    for defect_type in set(defects.tolist()) - {0}:
        pairs = [(s, g) for s in scores[defects == defect_type] for g in scores[defects == 0]]
        shares.append(np.mean([1.0 if s > g else 0.5 if s == g else 0.0 for s, g in pairs]))
    return float(min(shares))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, list[int], NDArray[np.bool_], float]:
    """Draw anomaly maps with many ties, two or three defect types, masks of the defects, and a threshold."""
    defects = draw(st.permutations([0, 0, 1, 2, *draw(st.lists(st.integers(0, 3), max_size=6))]))
    levels = draw(st.integers(1, 5))
    maps = np.random.default_rng(draw(st.integers(0, 999))).integers(0, levels + 1, (len(defects), SIZE, SIZE))
    masks = np.zeros(maps.shape, bool)
    masks[:, 1 : 1 + draw(st.integers(1, 3)), 2:4] = masks[:, 5:, :1] = True
    masks &= (np.array(defects) > 0)[:, None, None]
    return torch.from_numpy(maps / 5.0), defects, masks, draw(st.sampled_from([-0.1, 0.2, 0.4, 0.8]))


@settings(deadline=None, max_examples=60)
@given(cases())
def test_metrics_equal_sklearn_and_reference(case: tuple[Tensor, list[int], NDArray[np.bool_], float]) -> None:
    maps, defects, masks, threshold = case
    found = metrics_of(maps, labeled(defects, masks), threshold)
    scores, types = maps.amax((1, 2)).numpy(), np.array(defects)
    labels, rejected = types > 0, scores > threshold
    expected = {
        "image_auroc": roc_auc_score(labels, scores),
        "image_ap": average_precision_score(labels, scores),
        "worst_defect": slow_worst_defect(scores, types),
        "pixel_auroc": roc_auc_score(masks.ravel(), maps.numpy().ravel()),
        "pixel_aupro": aupro(maps.double().numpy(), masks),
        "recall": recall_score(labels, rejected),
        "f1": f1_score(labels, rejected),
        "false_reject_rate": float(np.mean(rejected[~labels])),
    }
    assert found == pytest.approx(expected, abs=1e-9)


def test_worst_defect_matches_hand_calculation() -> None:
    """Rust scores above both good images; one scratch beats one good image and ties with the other, one beats none."""
    found = metrics_of(peaks(0.1, 0.5, 0.9, 0.8, 0.5, 0.0), labeled([0, 0, 1, 1, 2, 2]), 0.6)
    assert found["worst_defect"] == pytest.approx((1.5 + 0) / 4)
    assert found["image_auroc"] == pytest.approx((2 + 2 + 1.5 + 0) / 8)
    single_type = metrics_of(peaks(0.1, 0.5, 0.9, 0.8, 0.5, 0.0), labeled([0, 0, 7, 7, 7, 7]), 0.6)
    assert single_type["worst_defect"] == single_type["image_auroc"], "equal for a single type, whatever its number"


def test_order_and_numbers_of_defect_types_do_not_matter() -> None:
    maps, defects = peaks(0.1, 0.5, 0.9, 0.2, 0.4), [0, 0, 1, 2, 3]
    expected = metrics_of(maps, labeled(defects), 0.3)
    assert metrics_of(maps.flip(0), labeled([5, 1, 4, 0, 0]), 0.3) == expected
    assert expected["worst_defect"] == 0.5 and expected["recall"] == pytest.approx(2 / 3)


def test_pixel_metrics_are_omitted_without_masks() -> None:
    maps = torch.rand(4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    masks = np.zeros((4, SIZE, SIZE), bool)
    masks[2:, 2:4, 2:4] = True
    with_masks = labeled([0, 0, 1, 2], masks)
    whole, without = metrics_of(maps, with_masks, 0.5), metrics_of(maps, labeled([0, 0, 1, 2]), 0.5)
    assert set(whole) - set(without) == {"pixel_auroc", "pixel_aupro"}
    assert {name: whole[name] for name in without} == without
    assert dataclasses.replace(with_masks, targets=None).labels.tolist() == [False, False, True, True]


def test_metrics_at_the_threshold_match_hand_calculation() -> None:
    labels = np.array([True, True, True, False, False])
    found = at_threshold(np.array([0.9, 0.6, 0.5, 0.7, 0.1]), labels, 0.55)
    assert found == {"recall": pytest.approx(2 / 3), "f1": pytest.approx(4 / 6), "false_reject_rate": 0.5}
    found = metrics_of(peaks(0.9, 0.6, 0.5, 0.7, 0.1), labeled([1, 2, 1, 0, 0]), 0.55)
    assert (found["recall"], found["false_reject_rate"]) == (pytest.approx(2 / 3), 0.5)


def test_score_at_the_threshold_is_accepted() -> None:
    labels = np.array([True, False])
    assert at_threshold(np.array([0.5, 0.5]), labels, 0.5) == {"recall": 0, "f1": 0, "false_reject_rate": 0}
    assert at_threshold(np.array([0.5, 0.5]), labels, 0.4) == {
        "recall": 1, "f1": pytest.approx(2 / 3), "false_reject_rate": 1
    }  # fmt: skip


@pytest.mark.parametrize(
    ("number", "fpr", "rejects"),
    [(3, 0.01, 0), (99, 0.01, 0), (100, 0.01, 0), (201, 0.01, 2), (11, 0.1, 1), (11, 0.5, 5), (5, 0.9, 3)],
)
def test_threshold_rejects_at_most_fpr_of_good_images(number: int, fpr: float, rejects: int) -> None:
    """The scores are 0, 1, 2, ...; of few images none is rejected."""
    normal = np.random.default_rng(0).permutation(number).astype(np.float32)
    threshold = threshold_of(normal, fpr)
    assert threshold in normal
    assert (normal > threshold).sum() == rejects <= fpr * number


def test_threshold_of_few_images_is_the_maximum() -> None:
    assert threshold_of(np.array([0.3, 0.9, 0.1]), 0.01) == 0.9
    assert threshold_of(np.array([0.3]), 0.99) == 0.3
