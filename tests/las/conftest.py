"""Small networks and data, created from fixed seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from las_tune.config.train_spec import TrainSpec
from las_tune.las.backbone import Backbone, Stages, load_backbone
from las_tune.las.features import FeatureStore, store_features
from las_tune.las.image_metrics import LabeledFeatures
from las_tune.las.metrics import pixel_targets
from las_tune.las.training import EpochResult, TrainData, train

SIZE = 64
SPEC = TrainSpec(image_size=SIZE, batch_size=4, epochs=3, hidden_width=16, perlin_max_exponent=3, objective="combined")
"""A training run of a few seconds on the images below."""


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uint8_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, shape, generator=seeded(seed)).to(torch.uint8)


def tiny_backbone() -> Backbone:
    """Return a Backbone of two strided convolutions, which is cheap to evaluate."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages: list[nn.Module] = [nn.Conv2d(3, 6, 8, stride=8), nn.Conv2d(6, 5, 2, stride=2)]
    return Backbone(Stages(stages, [0, 1]))


def tiny_data(backbone: Backbone, num_images: int = 6, masks: bool = True) -> TrainData:
    """Return data of gray parts on a dark background; validation has 3 good images and 3 with a bright square."""
    images = part_images(num_images, seed=1)
    validation = part_images(6, seed=2)
    defective = np.zeros((6, SIZE, SIZE), bool)
    defective[3:, 20:36, 24:44] = True
    validation = torch.where(torch.from_numpy(defective).unsqueeze(1), uint8_noise(6, 3, SIZE, SIZE), validation)
    foreground = torch.zeros(num_images, 1, SIZE, SIZE, dtype=torch.bool)
    foreground[:, :, 8:56, 8:56] = True
    labeled = LabeledFeatures(
        stored(backbone, validation),
        torch.tensor([0, 0, 0, 1, 1, 1]),
        pixel_targets(defective) if masks else None,
    )
    calibration = stored(backbone, part_images(2, seed=4))
    textures = uint8_noise(4, 3, SIZE, SIZE, seed=3)
    return TrainData(stored(backbone, images), foreground, textures, calibration, labeled)


def stored(backbone: Backbone, images: Tensor, dtype: torch.dtype = torch.float32) -> FeatureStore:
    return FeatureStore(images, store_features(backbone, images, dtype), backbone)


def with_maps(data: TrainData, change: Callable[[Tensor], Tensor]) -> TrainData:
    """Return the data with `change` applied to the stored feature maps of the fit images."""
    assert data.features.maps is not None
    features = dataclasses.replace(data.features, maps=[change(m) for m in data.features.maps])
    return dataclasses.replace(data, features=features)


def part_images(number: int, seed: int) -> Tensor:
    """Return (N, 3, 64, 64) uint8 images of a gray square of 48 pixels with a little noise."""
    base = torch.full((number, 3, SIZE, SIZE), 20)
    base[:, :, 8:56, 8:56] = 120
    return (base + torch.randint(0, 20, base.shape, generator=seeded(seed))).to(torch.uint8)


def numbers(results: list[EpochResult]) -> list[dict[str, Any]]:
    """Return the logged rows of the epochs without time and memory."""
    return [
        {name: value for name, value in result.row().items() if name not in ("seconds", "peak_memory_mb")}
        for result in results
    ]


def run(spec: TrainSpec, backbone: Backbone, data: TrainData) -> list[dict[str, Any]]:
    return numbers(list(train(spec, backbone, data)))


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The tiny backbone. It is frozen, so tests can share it."""
    return tiny_backbone()


@pytest.fixture(scope="session")
def data(backbone: Backbone) -> TrainData:
    return tiny_data(backbone)


@pytest.fixture(scope="session")
def resnet() -> Backbone:
    """A resnet18 with random weights. It is frozen, so tests can share it."""
    return load_backbone("resnet18", "random")
