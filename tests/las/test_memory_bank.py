from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from las_tune.las import memory_bank as module
from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore
from las_tune.las.image_metrics import metrics_of
from las_tune.las.memory_bank import build_bank, greedy_coreset, nearest_distances, score_bank
from las_tune.las.scoring import anomaly_maps
from las_tune.las.training import TrainData
from tests.las.conftest import SIZE, part_images, seeded, stored, tiny_data, uint8_noise
from tests.reference import memory_bank as slow


def slow_patches(features: FeatureStore) -> Tensor:
    """Return all patches of a store, computed by loops: (P, C) float64."""
    maps = [m.double().numpy() for m in features.take(slice(None))]
    images = [slow.patch_vectors([m[index] for m in maps]) for index in range(len(features))]
    return torch.from_numpy(np.concatenate([p.reshape(-1, p.shape[-1]) for p in images]))


def positions(bank: Tensor, patches: Tensor) -> list[int]:
    """Return the index of the patch in each row of the bank."""
    distances = torch.cdist(bank.double(), patches)
    assert distances.min(1).values.max() < 1e-5
    return distances.argmin(1).tolist()


def numbered(num_images: int) -> FeatureStore:
    """Return a store of 16 patches per image with one channel, whose value is 100 · image + patch."""
    values = 100.0 * torch.arange(num_images).view(-1, 1) + torch.arange(16)
    return FeatureStore(torch.zeros(num_images, 3, 4, 4), [values.view(-1, 4, 4, 1)], None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("number", "dimensions", "num_chosen", "first"), [(40, 3, 12, 0), (25, 7, 25, 24), (9, 2, 1, 4)]
)
def test_coreset_equals_reference(number: int, dimensions: int, num_chosen: int, first: int) -> None:
    points = 5 + torch.randn(number, dimensions, generator=seeded())
    chosen = greedy_coreset(points, num_chosen, first)
    assert chosen.tolist() == slow.greedy_coreset(points.double().numpy(), num_chosen, first)


def test_coreset_matches_hand_calculation() -> None:
    points = torch.tensor([[0.0], [1.0], [6.0], [10.0]])
    assert greedy_coreset(points, 4, first=1).tolist() == [1, 3, 2, 0]  # farthest: 9; then min(5, 4); then 1
    assert greedy_coreset(points, 9, first=0).tolist() == [0, 3, 2, 1]


def test_duplicate_points_are_chosen_once_each() -> None:
    points = torch.full((5, 3), 0.1)
    assert sorted(greedy_coreset(points, 5, first=2).tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_distances_equal_cdist(offset: float) -> None:
    patches = offset + torch.randn(200, 48, generator=seeded())
    bank = torch.cat([offset + torch.randn(50, 48, generator=seeded(1)), patches[:3]])
    expected = torch.cdist(patches.double(), bank.double()).amin(1).float()
    distances = nearest_distances(patches, bank)
    torch.testing.assert_close(distances, expected, atol=1e-4, rtol=0)
    assert distances[:3].eq(0).all()


def test_bank_is_a_coreset_of_all_patches(data: TrainData) -> None:
    """11 channels are not projected, and all 384 patches are candidates."""
    bank, patches = build_bank(data.features, 16), slow_patches(data.features)
    chosen = positions(bank, patches)
    assert bank.shape == (16, 11) and bank.dtype == torch.float32
    assert chosen == slow.greedy_coreset(patches.numpy(), 16, chosen[0])


def test_bank_of_projected_patches_keeps_all_channels(resnet: Backbone) -> None:
    features = stored(resnet, uint8_noise(2, 3, SIZE, SIZE))
    bank = build_bank(features, 20)
    chosen = positions(bank, slow_patches(features))
    assert bank.shape == (20, 384) and len(set(chosen)) == 20


def test_projection_approximately_preserves_distances() -> None:
    points = torch.randn(30, 500, generator=seeded())
    projected = module._project(points, seeded(1))
    ratio = torch.pdist(projected) / torch.pdist(points)
    assert projected.shape == (30, 128)
    assert ratio.mean().item() == pytest.approx(1, abs=0.03) and ratio.min() > 0.7 and ratio.max() < 1.3


def test_same_seed_gives_the_same_bank(resnet: Backbone) -> None:
    features = stored(resnet, uint8_noise(2, 3, SIZE, SIZE))
    bank = build_bank(features, 10, seed=3)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(build_bank(features, 10, seed=3), bank)
    assert not torch.equal(build_bank(features, 10, seed=4), bank)


def test_bank_of_few_patches_has_all_of_them() -> None:
    bank = build_bank(numbered(3), 2048)
    assert sorted(bank.flatten().tolist()) == [100 * image + patch for image in range(3) for patch in range(16)]


@pytest.mark.parametrize(("limit", "num_patches", "total"), [(20, 20, 20), (20, 7, 7), (5, 31, 31)])
def test_candidates_are_spread_over_images(
    limit: int, num_patches: int, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_CANDIDATES", limit)
    values = build_bank(numbered(6), num_patches).flatten().int()
    assert len(values) == len(set(values.tolist())) == total
    if num_patches >= limit:  # all candidates are in the bank
        counts = torch.bincount(values // 100, minlength=6)
        assert counts.max() - counts.min() <= 1
        assert len(set((values % 100).tolist())) > 4, "not the same patches of every image"


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_anomaly_maps_equal_reference(batch_size: int, data: TrainData) -> None:
    features = data.validation.features
    bank = build_bank(data.features, 12)
    maps = [m.double().numpy() for m in features.take(slice(None))]
    scores = [slow.patch_scores(bank.double().numpy(), [m[index] for m in maps]) for index in range(len(features))]
    expected = anomaly_maps(torch.from_numpy(np.stack(scores)).float(), SIZE)
    torch.testing.assert_close(score_bank(bank, features, SIZE, batch_size), expected, atol=1e-5, rtol=1e-4)


def test_patches_of_the_bank_are_at_distance_zero(resnet: Backbone) -> None:
    features = stored(resnet, part_images(3, seed=1))
    bank = build_bank(features)
    assert len(bank) == 3 * 8 * 8
    assert score_bank(bank, features, SIZE).max() < 1e-5 * bank.norm(dim=1).max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bank_detects_a_bright_square(dtype: torch.dtype, backbone: Backbone) -> None:
    data = tiny_data(backbone)
    fit, validation = (stored(backbone, store.images, dtype) for store in (data.features, data.validation.features))
    bank = build_bank(fit, 64)
    maps = score_bank(bank, validation, SIZE)
    metrics = metrics_of(maps, data.validation, threshold=0.5)
    assert bank.dtype == maps.dtype == torch.float32
    assert metrics["image_auroc"] == metrics["image_ap"] == 1.0
    assert metrics["pixel_auroc"] > 0.9


def test_half_precision_store_scores_nearly_the_same(data: TrainData) -> None:
    bank, exact = build_bank(data.features, 64), data.validation.features
    half = stored(exact.backbone, exact.images, torch.float16)
    found, expected = score_bank(bank, half, SIZE), score_bank(bank, exact, SIZE)
    torch.testing.assert_close(found, expected, atol=2e-3 * expected.max().item(), rtol=0)


def test_recomputed_features_score_the_same(data: TrainData) -> None:
    features = dataclasses.replace(data.features, maps=None)
    bank = build_bank(data.features, 20)
    torch.testing.assert_close(build_bank(features, 20), bank, atol=1e-5, rtol=1e-4)
    again = score_bank(bank, dataclasses.replace(data.validation.features, maps=None), SIZE)
    torch.testing.assert_close(again, score_bank(bank, data.validation.features, SIZE), atol=1e-5, rtol=1e-4)
