from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from las_tune.las import masks
from las_tune.las.masks import combine_masks, draw_masks, grid_labels
from las_tune.las.perlin import PerlinFields, draw_perlin, perlin_noise
from tests.las.conftest import seeded
from tests.reference.masks import grid_labels as slow_grid_labels


def full(batch: int, size: int = 64) -> Tensor:
    return torch.ones(batch, 1, size, size, dtype=torch.bool)


@pytest.mark.parametrize(
    ("p", "expected"),
    [
        (0.0, [False, False, False, True]),  # p <= α: and
        (0.3, [False, False, False, True]),
        (0.31, [False, True, True, True]),  # α < p <= 2α: or
        (0.6, [False, True, True, True]),
        (0.61, [False, False, True, True]),  # m1
        (1.0, [False, False, True, True]),
    ],
)
def test_combine_masks_matches_hand_calculation(p: float, expected: list[bool]) -> None:
    m1 = torch.tensor([[False, False, True, True]])
    m2 = torch.tensor([[False, True, False, True]])
    assert combine_masks(m1, m2, torch.tensor([p]), 0.3)[0].tolist() == expected


def test_combine_masks_applies_the_rule_per_image() -> None:
    m1, m2 = torch.tensor([[[True, False]]] * 3), torch.tensor([[[False, True]]] * 3)
    combined = combine_masks(m1, m2, torch.tensor([0.1, 0.3, 0.5]), 0.2)
    assert combined[:, 0].tolist() == [[False, False], [True, True], [True, False]]


@pytest.mark.parametrize("alpha", [0.0, 0.1, 1 / 3, 0.5])
def test_alpha_sets_the_frequencies_of_the_rules(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With m1 the upper half and m2 the left half, the area of a mask shows which rule was applied."""

    def draw(batch: int, max_exponent: int, generator: torch.Generator) -> PerlinFields:
        return PerlinFields(torch.zeros(batch, 1, 1, 2), torch.zeros(batch, 2), torch.arange(batch) % 2)

    def noise(fields: PerlinFields, size: int, step: int = 1) -> Tensor:
        half = torch.zeros(size, size)
        half[: size // 2] = 1
        both = torch.stack([half, half.T])[fields.angle]
        return both[:, step // 2 :: step, step // 2 :: step]

    monkeypatch.setattr(masks, "draw_perlin", draw)
    monkeypatch.setattr(masks, "perlin_noise", noise)
    drawn = draw_masks(full(4000, size=16), alpha, 0, seeded(5))
    areas = drawn.flatten(1).sum(1)
    counts = [int((areas == pixels).sum()) for pixels in (64, 192, 128)]  # and, or, m1
    assert sum(counts) == 4000
    assert bool(drawn[areas == 128][:, 0, 0].all()), "a single mask is always m1"
    expected = np.array([alpha, alpha, 1 - 2 * alpha]) * 4000
    present = expected > 1e-9
    assert all(count == 0 for count, expected_any in zip(counts, present, strict=True) if not expected_any)
    if present.sum() > 1:
        assert stats.chisquare(np.array(counts)[present], expected[present]).pvalue > 1e-3


def spied_masks(monkeypatch: pytest.MonkeyPatch, batch: int, alpha: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return m1, m2 and p of the masks that are used: those of the last call, at every pixel."""
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def spy(m1: Tensor, m2: Tensor, p: Tensor, alpha: float) -> Tensor:
        calls.append((m1, m2, p))
        return combine_masks(m1, m2, p, alpha)

    monkeypatch.setattr(masks, "combine_masks", spy)
    draw_masks(full(batch), alpha, 3, seeded(2))
    return calls[-1]


def test_the_two_masks_are_independent(monkeypatch: pytest.MonkeyPatch) -> None:
    m1, m2, _ = (t.double() for t in spied_masks(monkeypatch, 500, alpha=0.0))
    assert (m1 != m2).flatten(1).any(1).double().mean() > 0.95
    expected = (m1.mean(0) * m2.mean(0)).mean()
    assert (m1 * m2).mean() == pytest.approx(expected.item(), rel=0.25)
    assert (m1 * m1).mean() > 3 * expected


def test_union_covers_more_than_intersection(monkeypatch: pytest.MonkeyPatch) -> None:
    m1, m2, p = spied_masks(monkeypatch, 600, alpha=0.5)
    area = combine_masks(m1, m2, p, 0.5).flatten(1).double().mean(1)
    assert area[p > 0.5].mean() > 2 * area[p <= 0.5].mean()


def test_masks_stay_inside_the_foreground_and_reach_its_parts() -> None:
    foreground = torch.zeros(64, 1, 48, 48, dtype=torch.bool)
    foreground[:32, :, 10:40, 5:20] = True
    foreground[32:, :, 20:30] = True
    drawn = draw_masks(foreground, 1 / 3, 4, seeded())
    assert not (drawn & ~foreground).any()
    for half in (drawn[:32].any(0), drawn[32:].any(0)):
        assert half.sum() > 300
    assert drawn.dtype == torch.bool and drawn.shape == foreground.shape


def test_empty_foreground_gives_an_empty_mask_for_its_image_only() -> None:
    foreground = full(6)
    foreground[::2] = False
    drawn = draw_masks(foreground, 1 / 3, 5, seeded())
    assert not drawn[::2].any()
    assert drawn[1::2].flatten(1).any(1).all()


@pytest.mark.parametrize("alpha", [0.0, 1 / 3, 0.5])
def test_empty_masks_are_rare_on_a_full_foreground(alpha: float) -> None:
    empty = ~draw_masks(full(120, size=128), alpha, 5, seeded(3)).flatten(1).any(1)
    assert empty.sum() <= 1


def test_noise_is_drawn_again_while_a_mask_is_empty() -> None:
    """One attempt leaves many intersections empty; eight attempts leave few."""
    small = torch.zeros(300, 1, 64, 64, dtype=torch.bool)
    small[:, :, 24:40, 24:40] = True
    empty = ~draw_masks(small, 0.0, 4, seeded()).flatten(1).any(1)
    single = perlin_noise(draw_perlin(300, 4, seeded()), 64) > masks.NOISE_THRESHOLD
    empty_after_one = ~(single.unsqueeze(1) & small).flatten(1).any(1)
    assert empty_after_one.double().mean() > 0.3
    assert empty.double().mean() < 0.1


def test_alpha_changes_the_spread_of_areas_more_than_their_mean() -> None:
    """As |m1 ∧ m2| + |m1 ∨ m2| = |m1| + |m2|, α makes areas more unequal, not larger.

    The mean changes slightly, because empty masks are drawn again.
    """
    areas = [draw_masks(full(500), alpha, 3, seeded(4)).flatten(1).double().mean(1) for alpha in (0.0, 0.25, 0.5)]
    means, spreads = [float(a.mean()) for a in areas], [float(a.std()) for a in areas]
    assert means[0] == pytest.approx(means[1], rel=0.15) and means[0] == pytest.approx(means[2], rel=0.15)
    assert spreads[0] * 1.05 < spreads[1] and spreads[1] * 1.05 < spreads[2]


def test_same_seed_gives_the_same_masks() -> None:
    first, again, other = (draw_masks(full(5), 1 / 3, 4, seeded(s)) for s in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert len({tuple(mask.flatten().tolist()) for mask in first}) == 5


@pytest.mark.parametrize(
    ("size", "grid"), [((64, 64), (8, 8)), ((33, 33), (5, 5)), ((70, 45), (9, 6)), ((50, 50), (7, 7))]
)
def test_grid_labels_equal_loops(size: tuple[int, int], grid: tuple[int, int]) -> None:
    drawn = torch.rand(4, 1, *size, generator=seeded()) > 0.985
    labels = grid_labels(drawn, grid)
    assert 0 < labels.mean() < 1
    for mask, label in zip(drawn, labels, strict=True):
        np.testing.assert_array_equal(label.numpy(), slow_grid_labels(mask[0].numpy(), *grid))


def test_one_pixel_labels_only_its_patch() -> None:
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[0, 0, 15, 16] = True
    labels = grid_labels(mask, (4, 4))
    assert labels.nonzero().tolist() == [[0, 1, 2]]
    assert labels.dtype == torch.float and labels[0, 1, 2] == 1
