"""Shapes and ranges are correct, and values finite, for any size, batch and foreground."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from las_tune.config.train_spec import TrainSpec
from las_tune.las.augment import augment
from las_tune.las.backbone import Backbone
from las_tune.las.features import extract_features
from las_tune.las.head import Head
from las_tune.las.losses import focal_loss, normal_loss
from las_tune.las.masks import draw_masks, grid_labels, otsu_foreground
from las_tune.las.scoring import anomaly_maps, image_scores
from las_tune.las.synthesis import synthesize
from tests.las.conftest import seeded, uint8_noise

sizes = st.integers(33, 70)
batches = st.integers(1, 5)
seeds = st.integers(0, 2**31 - 1)
foregrounds = st.sampled_from(["full", "empty", "pixel", "half"])
relaxed = settings(deadline=None, max_examples=25)


@relaxed
@given(sizes, batches, seeds, st.floats(0, 0.5), st.integers(0, 7), foregrounds)
def test_synthesized_images_are_valid(
    size: int, batch: int, seed: int, alpha: float, exponent: int, coverage: str
) -> None:
    foreground = torch.full((batch, 1, size, size), coverage == "full")
    if coverage == "pixel":
        foreground[:, :, size // 2, size // 3] = True
    if coverage == "half":
        foreground[..., : size // 2] = True
    spec = TrainSpec(alpha=alpha, perlin_max_exponent=exponent, beta_std=0.4, beta_min=0, beta_max=1)
    images, textures = (
        uint8_noise(batch, 3, size, size, seed=seed),
        uint8_noise(2, 3, size, size, seed=seed),
    )
    result = synthesize(images, foreground, textures, spec, seeded(seed))
    assert result.images.shape == (batch, 3, size, size) and result.images.dtype == torch.float32
    assert result.masks.shape == (batch, 1, size, size) and result.masks.dtype == torch.bool
    assert result.beta.shape == (batch,) and ((result.beta >= 0) & (result.beta <= 1)).all()
    assert result.images.isfinite().all() and result.images.min() >= 0 and result.images.max() <= 1 + 1e-6
    assert not (result.masks & ~foreground).any()
    untouched = ~result.masks.expand_as(result.images)
    assert torch.equal(result.images[untouched], (images.float() / 255)[untouched])


@relaxed
@given(sizes, sizes, batches, seeds)
def test_augment_accepts_any_rectangle(height: int, width: int, batch: int, seed: int) -> None:
    textures = uint8_noise(batch, 3, height, width, seed=seed).float() / 255
    after = augment(textures, seeded(seed))
    assert after.shape == textures.shape and after.isfinite().all()
    assert after.min() >= 0 and after.max() <= 1


@relaxed
@given(sizes, batches, seeds)
def test_foreground_and_labels_are_valid(size: int, batch: int, seed: int) -> None:
    foreground = otsu_foreground(uint8_noise(batch, 3, size, size, seed=seed))
    assert foreground.shape == (batch, 1, size, size) and foreground.dtype == torch.bool
    masks = draw_masks(foreground, 0.25, 4, seeded(seed))
    grid = -(-size // 8)
    labels = grid_labels(masks, (grid, grid))
    assert labels.shape == (batch, grid, grid)
    assert set(labels.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(labels.flatten(1).any(1), masks.flatten(1).any(1)), "no mask is lost on the grid"


@relaxed
@given(size=sizes, batch=batches, seed=seeds)
def test_scores_and_gradients_are_finite(size: int, batch: int, seed: int, backbone: Backbone) -> None:
    head = Head(backbone.channels, 8, seeded(seed))
    maps = extract_features(backbone, uint8_noise(batch, 3, size, size, seed=seed).float() / 255)
    logits = head(maps)
    assert logits.shape == maps[0].shape[:3]
    labels = (torch.rand(logits.shape, generator=seeded(seed)) > 0.5).float()
    loss = normal_loss(logits) + focal_loss(logits, labels, 2.0, 0.5)
    loss.backward()
    assert loss.isfinite() and all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())
    result = anomaly_maps(torch.sigmoid(logits.detach()), size)
    assert result.shape == (batch, size, size) and result.isfinite().all()
    assert result.min() >= 0 and result.max() <= 1 + 1e-6
    assert image_scores(result).shape == (batch,)
