from __future__ import annotations

import numpy as np
import pytest
import torch

from las_tune.las.backbone import Backbone
from las_tune.las.features import (
    FeatureStore,
    _neighborhood_average,
    bytes_per_image,
    extract_features,
    store_features,
)
from tests.las.conftest import seeded, stored, uint8_noise


def test_neighborhood_average_equals_loops() -> None:
    features = torch.rand(2, 4, 5, 3, generator=seeded())
    averaged = _neighborhood_average(features)
    for b in range(2):
        for row in range(4):
            for column in range(5):
                inside = [
                    features[b, y, x].numpy()
                    for y in range(max(row - 1, 0), min(row + 2, 4))
                    for x in range(max(column - 1, 0), min(column + 2, 5))
                ]
                expected = np.mean(inside, axis=0)  # fewer than nine patches at the borders
                np.testing.assert_allclose(averaged[b, row, column].numpy(), expected, rtol=1e-5)


def test_corner_is_the_mean_of_four_patches() -> None:
    features = torch.zeros(1, 3, 3, 1)
    features[0, 0, 0] = 4.0
    averaged = _neighborhood_average(features)[0, :, :, 0]
    torch.testing.assert_close(averaged, torch.tensor([[1, 4 / 6, 0], [4 / 6, 4 / 9, 0], [0, 0, 0]]))


@pytest.mark.parametrize("size", [64, 50])
def test_features_are_the_averaged_maps(resnet: Backbone, size: int) -> None:
    images = torch.rand(2, 3, size, size, generator=seeded())
    maps = extract_features(resnet, images)
    fine, coarse = -(-size // 8), -(-size // 16)
    assert [m.shape for m in maps] == [(2, fine, fine, 128), (2, coarse, coarse, 256)]
    for found, raw in zip(maps, resnet(images), strict=True):
        assert found.dtype == torch.float32 and not found.requires_grad
        torch.testing.assert_close(found, _neighborhood_average(raw))


def test_stored_and_recomputed_features_are_equal(resnet: Backbone) -> None:
    images = uint8_noise(5, 3, 64, 64)
    calls: list[tuple[int, int]] = []
    stored = store_features(resnet, images, batch_size=2, progress=lambda _, *count: calls.append(count))
    assert calls == [(2, 5), (4, 5), (5, 5)]
    for index in range(5):
        recomputed = extract_features(resnet, images[index : index + 1].float() / 255)
        for found, expected in zip(stored, recomputed, strict=True):
            assert found.dtype == torch.float32
            torch.testing.assert_close(found[index], expected[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "relative"), [(torch.float16, 1e-3), (torch.bfloat16, 8e-3)])
def test_half_precision_features_are_close(resnet: Backbone, dtype: torch.dtype, relative: float) -> None:
    images = uint8_noise(2, 3, 64, 64)
    exact, stored = store_features(resnet, images), store_features(resnet, images, dtype)
    for found, expected in zip(stored, exact, strict=True):
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), expected, atol=1e-6, rtol=relative)


def test_take_returns_float32_in_the_given_order(resnet: Backbone) -> None:
    maps = [torch.arange(5, dtype=torch.float16).view(5, 1, 1, 1), 10 * torch.arange(5.0).view(5, 1, 1, 1)]
    store = FeatureStore(uint8_noise(5, 3, 8, 8), maps, resnet)
    picked = store.take(torch.tensor([3, 0]))
    assert [m.flatten().tolist() for m in picked] == [[3, 0], [30, 0]]
    assert {m.dtype for m in picked} == {torch.float32}
    assert [len(m) for m in store.take(slice(3, 9))] == [2, 2]


def test_store_without_maps_computes_them(resnet: Backbone) -> None:
    images = uint8_noise(5, 3, 64, 64)
    with_maps, without = stored(resnet, images), FeatureStore(images, None, resnet)
    assert len(with_maps) == len(without) == 5
    for index in (torch.tensor([4, 1, 1]), slice(3, 9)):
        for found, computed in zip(with_maps.take(index), without.take(index), strict=True):
            torch.testing.assert_close(found, computed, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_bytes_per_image_is_the_stored_size(resnet: Backbone, dtype: torch.dtype) -> None:
    maps = store_features(resnet, uint8_noise(3, 3, 50, 50), dtype)
    assert 3 * bytes_per_image(resnet, 50, dtype) == sum(m.nbytes for m in maps)
