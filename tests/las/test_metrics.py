from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from las_tune.las.metrics import auroc, average_precision, pixel_metrics, pixel_targets
from tests.reference.metrics import aupro as slow_aupro
from tests.reference.metrics import regions

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
scored_labels = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda pairs: len({label for _, label in pairs}) == 2
)


def auroc_and_aupro(maps: Floats, masks: Bools) -> tuple[float, float]:
    return pixel_metrics(torch.from_numpy(maps), pixel_targets(masks))


@settings(deadline=None)
@given(scored_labels)
def test_auroc_equals_sklearn_with_ties(pairs: list[tuple[int, bool]]) -> None:
    scores, labels = (np.array(values) for values in zip(*pairs, strict=True))
    found = auroc(torch.from_numpy(scores / 3), torch.from_numpy(labels))
    assert found == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)


def test_auroc_matches_hand_calculation() -> None:
    """Pairs (defective, good): 0.9 beats both, 0.4 beats one and ties with the other."""
    scores, labels = torch.tensor([0.9, 0.4, 0.4, 0.1]), torch.tensor([True, True, False, False])
    assert auroc(scores, labels) == pytest.approx((2 + 1.5) / 4)
    assert auroc(-scores, labels) == pytest.approx(0.5 / 4)


def test_average_precision_matches_hand_calculation() -> None:
    """The defective images have ranks 1 and 3: precision 1 and 2/3, each with half of the recall."""
    scores, labels = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([True, False, True, False])
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 3) / 2)


@st.composite
def maps_and_masks(draw: st.DrawFn) -> tuple[Floats, Bools]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 6)), draw(st.integers(2, 6)))
    masks = draw(hnp.arrays(np.bool_, shape))
    masks[0, 0, 0], masks[0, -1, -1] = True, False
    levels = draw(st.integers(1, 20))
    return draw(hnp.arrays(np.float64, shape, elements=st.integers(0, levels).map(float))), masks


@settings(deadline=None, max_examples=150)
@given(maps_and_masks())
def test_aupro_equals_its_definition_with_ties(case: tuple[Floats, Bools]) -> None:
    maps, masks = case
    assert auroc_and_aupro(maps, masks)[1] == pytest.approx(slow_aupro(maps, masks), abs=1e-9)


@settings(deadline=None, max_examples=50)
@given(maps_and_masks())
def test_pixel_auroc_equals_sklearn(case: tuple[Floats, Bools]) -> None:
    maps, masks = case
    assert auroc_and_aupro(maps, masks)[0] == pytest.approx(roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_aupro_equals_its_definition_without_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = np.zeros((3, 14, 14), bool)
    masks[0, 2:5, 2:6] = masks[0, 9:13, 8:9] = masks[1, 0:2, 0:9] = True
    maps = rng.normal(size=masks.shape) + 0.8 * masks
    assert auroc_and_aupro(maps, masks)[1] == pytest.approx(slow_aupro(maps, masks), abs=1e-9)


def test_best_maps_score_1_and_worst_maps_score_0() -> None:
    masks = np.zeros((2, 10, 10), bool)
    masks[0, 2:4, 2:4] = masks[1, 5:9, 5] = True
    assert auroc_and_aupro(masks.astype(float), masks) == pytest.approx((1.0, 1.0))
    assert auroc_and_aupro(1.0 - masks, masks) == pytest.approx((0.0, 0.0))
    flat = auroc_and_aupro(np.zeros(masks.shape), masks)  # one tie: the diagonal, up to 0.3
    assert flat == pytest.approx((0.5, 0.15))


def test_small_regions_count_as_much_as_large_ones() -> None:
    """The large region is found first, the small one last: an AUPRO of one half, and 40 of 41 pixels."""
    masks = np.zeros((1, 20, 20), bool)
    masks[0, :4, :10] = True
    masks[0, 12, 12] = True
    maps = masks * 1.0
    maps[0, 12, 12] = -1.0
    assert auroc_and_aupro(maps, masks) == pytest.approx((40 / 41, 0.5))


def test_false_positives_beyond_the_limit_do_not_matter() -> None:
    """The defect follows 2 of 10 negatives, a false positive rate of 0.2, so a third of the range up to 0.3 is left."""
    maps = np.array([[[9.0, 8, 7, 1, 1, 1, 1, 1, 1, 1, 1]]])
    masks = maps == 7
    assert auroc_and_aupro(maps, masks)[1] == pytest.approx(1 / 3)
    maps[..., :5] = [[[9.0, 8, 7, 9, 9]]]  # a rate of 0.4 is beyond the limit
    assert auroc_and_aupro(maps, masks)[1] == 0


def test_regions_touch_at_corners_but_not_across_images() -> None:
    masks = np.zeros((2, 4, 4), bool)
    masks[0, [0, 1, 2], [0, 1, 2]] = True
    masks[0, 0, 3] = True
    masks[1, 0, 3] = masks[1, 0, 2] = True
    targets = pixel_targets(masks)
    assert sorted(len(region) for region in regions(masks)) == [1, 2, 3]
    weights = torch.zeros(masks.size, dtype=torch.float64)
    weights[targets.positive] = targets.region_weight
    expected = [1 / 9, 1 / 3, 1 / 9, 1 / 9, 1 / 6, 1 / 6]  # row by row
    torch.testing.assert_close(weights[weights > 0], torch.tensor(expected, dtype=torch.float64))
    assert targets.region_weight.sum().item() == pytest.approx(1)
    assert sorted([*targets.positive.tolist(), *targets.negative.tolist()]) == list(range(32))


def test_targets_on_another_device_are_the_same() -> None:
    targets = pixel_targets(np.eye(4, dtype=bool)[None])
    moved = targets.to(torch.device("cpu"))
    for name in ("positive", "negative", "region_weight"):
        assert torch.equal(getattr(moved, name), getattr(targets, name))
