from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from las_tune.las.backbone import Backbone
from las_tune.las.head import Head
from las_tune.las.scoring import Detector, anomaly_maps, image_scores, score_features
from tests.las.conftest import seeded, stored, uint8_noise


@pytest.mark.parametrize(("grid", "size"), [((8, 8), 64), ((5, 5), 33), ((9, 7), 70), ((1, 1), 40)])
def test_anomaly_maps_are_upsampled_and_smoothed(grid: tuple[int, int], size: int) -> None:
    scores = torch.rand(3, *grid, generator=seeded())
    upsampled = F.interpolate(scores.unsqueeze(1), (size, size), mode="bilinear", align_corners=False)
    expected = ndimage.gaussian_filter(upsampled[:, 0].double().numpy(), (0, 4, 4), mode="mirror", truncate=4)
    np.testing.assert_allclose(anomaly_maps(scores, size).numpy(), expected, atol=1e-6)


def test_image_score_is_the_maximum_of_the_anomaly_map() -> None:
    maps = torch.zeros(2, 3, 3)
    maps[0, 1, 2], maps[0, 0, 0], maps[1] = 0.7, 0.2, 0.1
    torch.testing.assert_close(image_scores(maps), torch.tensor([0.7, 0.1]))


@pytest.fixture
def head(resnet: Backbone) -> Head:
    """A head with used batch norm statistics, left in training mode."""
    head = Head(resnet.channels, 16, seeded())
    head([torch.randn(2, 8, 8, 128, generator=seeded()), torch.randn(2, 4, 4, 256, generator=seeded(1))])
    return head.train()


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_scores_of_stored_features_equal_the_detector(resnet: Backbone, head: Head, batch_size: int) -> None:
    images = uint8_noise(5, 3, 64, 64)
    before = head.norm.get_buffer("running_mean").clone()
    maps = score_features(head, stored(resnet, images), 64, batch_size)
    scores, detected = Detector(resnet, head).eval()(images.float() / 255)
    assert maps.shape == (5, 64, 64) and scores.shape == (5,)
    torch.testing.assert_close(maps, detected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(scores, detected.amax((1, 2)))
    assert detected.min() >= 0 and detected.max() <= 1 and detected.std() > 0
    assert torch.equal(before, head.norm.get_buffer("running_mean")), (
        "scoring does not change the batch norm statistics"
    )


def test_half_precision_store_scores_nearly_the_same(resnet: Backbone, head: Head) -> None:
    images = uint8_noise(2, 3, 64, 64)
    exact = score_features(head, stored(resnet, images), 64)
    half = score_features(head, stored(resnet, images, torch.float16), 64)
    torch.testing.assert_close(half, exact, atol=2e-3, rtol=0)
