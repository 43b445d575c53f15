from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from las_tune.las.masks import otsu_foreground
from tests.las.conftest import seeded, uint8_noise
from tests.reference.masks import foreground as slow_foreground


def part(inside: int, outside: int, size: int = 64, noise: int = 12, hole: bool = False) -> tuple[Tensor, Tensor]:
    """Return an image (1, 3, S, S) of a square part on a background, and the mask of the part (1, 1, S, S)."""
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., size // 4 : -size // 4, size // 5 : -size // 5] = True
    if hole:
        mask[..., size // 2 - 6 : size // 2 + 6, size // 2 - 6 : size // 2 + 6] = False
    grain = torch.randint(0, noise, (1, 3, size, size), generator=seeded())
    return (torch.where(mask, inside, outside) + grain).to(torch.uint8), mask


@pytest.mark.parametrize("hole", [False, True])
@pytest.mark.parametrize(("inside", "outside"), [(40, 220), (220, 40), (100, 160)])
def test_part_may_be_brighter_or_darker(inside: int, outside: int, hole: bool) -> None:
    image, mask = part(inside, outside, hole=hole)
    assert torch.equal(otsu_foreground(image), mask)


@pytest.mark.parametrize("size", [33, 64, 100])
@pytest.mark.parametrize("noise", [12, 120])
def test_foreground_equals_that_of_an_exhaustive_search(size: int, noise: int) -> None:
    images = torch.cat([part(*levels, size=size, noise=noise)[0] for levels in ((30, 110), (125, 20), (60, 90))])
    fast = otsu_foreground(images)
    for image, found in zip(images, fast, strict=True):
        np.testing.assert_array_equal(found[0].numpy(), slow_foreground(image.numpy()))


def test_colors_are_compared_by_luma() -> None:
    """Green on blue; the means of the channels are equal."""
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, 2] = 200
    image[:, :, 8:24, 8:24] = torch.tensor([0, 200, 0], dtype=torch.uint8).view(3, 1, 1)
    mask = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    mask[..., 8:24, 8:24] = True
    assert torch.equal(otsu_foreground(image), mask)


def test_part_that_touches_one_side_is_still_the_part() -> None:
    image = torch.full((1, 3, 64, 64), 30, dtype=torch.uint8)
    image[..., 0:40, 20:40] = 200
    assert torch.equal(otsu_foreground(image), image[:, :1] == 200)


def test_image_without_two_classes_is_all_foreground() -> None:
    gaussian = (128 + 20 * torch.randn(1, 3, 64, 64, generator=seeded())).clamp(0, 255).to(torch.uint8)
    assert otsu_foreground(gaussian).all()
    assert otsu_foreground(uint8_noise(1, 3, 64, 64)).all()


@pytest.mark.parametrize("value", [0, 128, 255])
def test_constant_image_is_all_foreground(value: int) -> None:
    assert otsu_foreground(torch.full((2, 3, 40, 40), value, dtype=torch.uint8)).all()


def test_foreground_is_independent_of_the_batch() -> None:
    flat = torch.full((1, 3, 64, 64), 9, dtype=torch.uint8)
    images = torch.cat([part(40, 220)[0], uint8_noise(1, 3, 64, 64), part(220, 40)[0], flat])
    together = otsu_foreground(images)
    assert together.dtype == torch.bool and together.shape == (4, 1, 64, 64)
    for index in range(4):
        assert torch.equal(together[index : index + 1], otsu_foreground(images[index : index + 1]))
