from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from las_tune.config.train_spec import TrainSpec
from las_tune.las import synthesis
from las_tune.las.synthesis import draw_beta, overlay, synthesize
from tests.las.conftest import part_images, seeded, uint8_noise


@pytest.mark.parametrize(("mean", "std"), [(0.5, 0.05), (0.4, 0.1), (0.7, 0.02)])
def test_beta_has_its_mean_and_deviation(mean: float, std: float) -> None:
    beta = draw_beta(20_000, TrainSpec(beta_mean=mean, beta_std=std, beta_min=0, beta_max=1), seeded())
    assert beta.mean().item() == pytest.approx(mean, abs=4 * std / 20_000**0.5)
    assert beta.std().item() == pytest.approx(std, rel=0.02)
    assert ((beta - mean).abs() < std).double().mean() == pytest.approx(0.683, abs=0.015)


def test_beta_is_clipped_at_the_bounds() -> None:
    beta = draw_beta(2000, TrainSpec(beta_mean=0.5, beta_std=0.5, beta_min=0.3, beta_max=0.6), seeded())
    assert beta.min().item() == pytest.approx(0.3) and beta.max().item() == pytest.approx(0.6)
    assert (beta == beta.min()).double().mean() == pytest.approx(0.345, abs=0.04)  # Φ(-0.4)
    assert (beta == beta.max()).double().mean() == pytest.approx(0.421, abs=0.04)  # 1 - Φ(0.2)


def test_beta_without_deviation_is_its_mean() -> None:
    assert draw_beta(3, TrainSpec(beta_mean=0.25, beta_std=0), seeded()).tolist() == [0.25] * 3


def test_overlay_matches_hand_calculation() -> None:
    """GLASS eq. 4 on 2×2 pixels: inside the mask 0.75 of the texture and 0.25 of the image."""
    image = torch.tensor([[0.0, 0.2], [0.4, 0.8]]).expand(1, 3, 2, 2)
    texture = torch.tensor([[1.0, 1.0], [0.0, 0.4]]).expand(1, 3, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [1.0, 1.0]]).view(1, 1, 2, 2)
    expected = torch.tensor([[0.75, 0.2], [0.1, 0.5]]).expand(1, 3, 2, 2)
    torch.testing.assert_close(overlay(image, texture, mask, torch.tensor([0.25])), expected)


def test_overlay_applies_the_beta_of_each_image() -> None:
    image, texture = torch.rand(2, 3, 4, 4, generator=seeded()), torch.rand(2, 3, 4, 4, generator=seeded(1))
    overlaid = overlay(image, texture, torch.ones(2, 1, 4, 4), torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(overlaid, torch.stack([texture[0], image[1]]))


def test_pixels_outside_the_mask_are_unchanged() -> None:
    images = uint8_noise(8, 3, 40, 40)
    whole, textures = torch.ones(8, 1, 40, 40, dtype=torch.bool), uint8_noise(3, 3, 40, 40, seed=1)
    synthesized = synthesize(images, whole, textures, TrainSpec(), seeded())
    mask = synthesized.masks.expand_as(synthesized.images)
    assert 0 < mask.double().mean() < 0.9
    assert torch.equal(synthesized.images[~mask], (images.float() / 255)[~mask])
    assert (synthesized.images[mask] != (images.float() / 255)[mask]).double().mean() > 0.98


def test_fraction_beta_is_kept_inside_the_mask() -> None:
    """With the same seed, a dark and a bright image get the same defect, so the difference that is left is β."""
    spec, whole = TrainSpec(beta_std=0.2), torch.ones(6, 1, 32, 32, dtype=torch.bool)
    dark, bright = (torch.full((6, 3, 32, 32), v, dtype=torch.uint8) for v in (51, 204))
    on_dark, on_bright = (synthesize(p, whole, uint8_noise(2, 3, 32, 32), spec, seeded(4)) for p in (dark, bright))
    assert torch.equal(on_dark.masks, on_bright.masks) and torch.equal(on_dark.beta, on_bright.beta)
    kept = (on_bright.images - on_dark.images) / 0.6
    expected = torch.where(on_dark.masks, on_dark.beta.view(-1, 1, 1, 1), 1.0).expand_as(kept)
    torch.testing.assert_close(kept, expected, atol=1e-5, rtol=0)
    assert len(set(on_dark.beta.tolist())) == 6


def test_synthesize_stays_in_range_and_keeps_its_inputs() -> None:
    images, textures = uint8_noise(6, 3, 48, 48), uint8_noise(3, 3, 48, 48, seed=1)
    extremes = torch.where(images > 127, 255, 0).to(torch.uint8)
    before = extremes.clone()
    synthesized = synthesize(
        extremes, torch.ones(6, 1, 48, 48, dtype=torch.bool), textures, TrainSpec(beta_std=1), seeded()
    )
    assert synthesized.images.min() >= 0 and synthesized.images.max() <= 1 + 1e-6
    assert synthesized.masks.shape == (6, 1, 48, 48) and synthesized.beta.shape == (6,)
    assert torch.equal(extremes, before)


def test_foreground_none_allows_the_whole_image() -> None:
    images, nothing = part_images(16, seed=0), torch.zeros(16, 1, 64, 64, dtype=torch.bool)
    textures = uint8_noise(2, 3, 64, 64)
    everywhere = synthesize(images, nothing, textures, TrainSpec(foreground="none"), seeded())
    assert everywhere.masks.any(0).double().mean() > 0.5
    on_nothing = synthesize(images, nothing, textures, TrainSpec(foreground="otsu"), seeded())
    assert not on_nothing.masks.any()
    assert torch.equal(on_nothing.images, images.float() / 255)


def test_every_texture_of_the_pool_is_drawn_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without augmentations and with β = 0, the texture itself is inside the mask."""

    def unchanged(textures: Tensor, generator: Generator) -> Tensor:
        return textures

    monkeypatch.setattr(synthesis, "augment", unchanged)
    textures = torch.tensor([51, 102, 153], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 16, 16)
    black, whole = (
        torch.zeros(300, 3, 16, 16, dtype=torch.uint8),
        torch.ones(300, 1, 16, 16, dtype=torch.bool),
    )
    spec = TrainSpec(beta_mean=0, beta_std=0, beta_min=0, beta_max=0, perlin_max_exponent=2)
    maxima = synthesize(black, whole, textures, spec, seeded()).images.amax((1, 2, 3))
    values, counts = maxima[maxima > 0].unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.2, 0.4, 0.6]))
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_same_seed_gives_the_same_images() -> None:
    images, whole = part_images(3, seed=0), torch.ones(3, 1, 64, 64, dtype=torch.bool)
    first, again, other = (
        synthesize(images, whole, uint8_noise(4, 3, 64, 64), TrainSpec(), seeded(s)).images for s in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
