"""Synthetic validation defects: location, unchanged pixels, visibility."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from las_tune.data.synthetic_defects import (
    FAMILIES,
    MAX_SHARE,
    MIN_SHARE,
    VISIBLE_CHANGE,
    Images,
    Masks,
    SyntheticDefects,
    _keep_visible,
    _visible_stain,
    make_synthetic_defects,
)

SIZE = 96


def parts(number: int, size: int = SIZE) -> tuple[Images, Masks]:
    """Return images of a bright, unevenly lit disc with grain and dark holes on a dark table, and their masks."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size] / size
    disc = np.hypot(y - 0.5, x - 0.5) < 0.4
    holes = np.hypot(y % 0.25 - 0.12, x % 0.25 - 0.12) < 0.03
    scene = np.where(disc, 110 + 70 * x - 80 * holes, 40)
    grain = ndimage.gaussian_filter(generator.normal(0, 12, (number, 3, size, size)), (0, 0, 0.6, 0.6))
    images = np.clip(scene + grain, 0, 255).astype(np.uint8)
    return images, np.broadcast_to(disc, (number, 1, size, size)).copy()


def changes(result: SyntheticDefects, good: Images) -> np.ndarray:
    return np.abs(result.images.astype(int) - good).max(1)


def assert_valid(result: SyntheticDefects, good: Images, foreground: Masks) -> None:
    """Assert that each mask is not empty, on the foreground, and equal to the visibly changed pixels."""
    assert result.images.dtype == np.uint8 and result.images.shape == good.shape
    assert result.masks.dtype == np.bool_ and result.masks.shape == (len(good), *good.shape[2:])
    assert len(result.families) == len(good) and set(result.families) <= set(FAMILIES)
    change = changes(result, good)
    assert result.masks.any((1, 2)).all()
    assert (change[result.masks] > VISIBLE_CHANGE).all()
    assert (change[~result.masks] == 0).all()
    has_part = foreground.any((1, 2, 3))
    assert not (result.masks & ~foreground[:, 0])[has_part].any()


def test_defects_lie_on_the_part() -> None:
    good, foreground = parts(16)
    before = good.copy(), foreground.copy()
    result = make_synthetic_defects(good, foreground, seed=0)
    assert_valid(result, good, foreground)
    assert result.families == FAMILIES * 4
    assert all(np.array_equal(now, then) for now, then in zip((good, foreground), before, strict=True))
    area = result.masks.mean((1, 2))
    assert (area >= MIN_SHARE).all() and (area <= MAX_SHARE).all()


def test_result_depends_on_the_seed() -> None:
    good, foreground = parts(4)
    first, again, other = (make_synthetic_defects(good, foreground, seed) for seed in (5, 5, 6))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.masks, again.masks)
    assert all((a != b).any() for a, b in zip(first.images, other.images, strict=True))


def test_result_does_not_depend_on_other_images() -> None:
    good, foreground = parts(8)
    result = make_synthetic_defects(good, foreground, seed=1)
    good[[0, 1, 2, 3, 4]] = 255 - good[[1, 0, 3, 2, 4]]
    subset = make_synthetic_defects(good[:7], foreground[:7], seed=1)
    assert np.array_equal(result.images[5:7], subset.images[5:])
    assert np.array_equal(result.masks[5:7], subset.masks[5:])


def test_defects_of_one_image_differ() -> None:
    good, foreground = parts(1)
    result = make_synthetic_defects(np.repeat(good, 12, 0), np.repeat(foreground, 12, 0), seed=0)
    assert len({mask.tobytes() for mask in result.masks}) == 12


@pytest.mark.parametrize("value", [0, 128, 255])
def test_uniform_images_have_visible_defects(value: int) -> None:
    good = np.full((8, 3, SIZE, SIZE), value, np.uint8)
    foreground = np.ones((8, 1, SIZE, SIZE), np.bool_)
    result = make_synthetic_defects(good, foreground, seed=0)
    assert_valid(result, good, foreground)
    # A blur is invisible here, so it is replaced by a stain, which is also the reported family.
    assert Counter(result.families)["blur"] == 0 and result.families[2] == result.families[3] == "stain"


def test_empty_foreground_allows_the_whole_image() -> None:
    good, foreground = parts(8)
    foreground[:] = False
    assert_valid(make_synthetic_defects(good, foreground, seed=0), good, foreground)


def test_foreground_of_one_pixel_has_a_stain() -> None:
    good, foreground = parts(4)
    foreground[:] = False
    foreground[:, 0, 7, 90] = True
    result = make_synthetic_defects(good, foreground, seed=0)
    assert_valid(result, good, foreground)
    assert result.families == ("stain",) * 4


def test_fallback_stain_is_at_the_center_of_the_part() -> None:
    good, foreground = parts(1)
    image, part = good[0], foreground[0, 0]
    result, mask = _keep_visible(image, _visible_stain(image.astype(np.float64), part), part)
    assert mask[SIZE // 2, SIZE // 2] and mask.sum() > 20
    assert ndimage.center_of_mass(mask) == pytest.approx((SIZE / 2, SIZE / 2), abs=1.5)
    assert (result[:, mask] < image[:, mask]).all()  # the part is bright there


def test_cut_paste_and_blur_use_no_background_pixels() -> None:
    """On a dark part in front of a bright background, no defect may be as bright as the background."""
    foreground = np.zeros((16, 1, SIZE, SIZE), np.bool_)
    foreground[..., 30:60, 20:70] = True
    grain = np.random.default_rng(0).integers(20, 90, (16, 3, SIZE, SIZE), np.uint8)
    good = np.where(foreground, grain, np.uint8(250))
    result = make_synthetic_defects(good, foreground, seed=0)
    assert_valid(result, good, foreground)
    for image, mask, family in zip(result.images, result.masks, result.families, strict=True):
        if family in ("cut_paste", "blur"):
            assert image[:, mask].max() < 150


@settings(max_examples=12, deadline=None)
@given(
    size=st.sampled_from([1, 2, 5, 31, 32, 33, 65]),
    content=st.sampled_from(["part", "noise", "uniform", "speckled"]),
    seed=st.integers(0, 2**32),
)
def test_any_image_has_a_valid_defect(size: int, content: str, seed: int) -> None:
    good, foreground = parts(4, size)
    generator = np.random.default_rng(seed)
    if content == "noise":
        good = generator.integers(0, 256, good.shape, np.uint8)
    elif content == "uniform":
        good[:] = generator.integers(0, 256)
    elif content == "speckled":
        foreground = generator.random(foreground.shape) < 0.02
    result = make_synthetic_defects(good, foreground, seed)
    assert_valid(result, good, foreground)
    again = make_synthetic_defects(good, foreground, seed)
    assert np.array_equal(result.images, again.images) and result.families == again.families


def test_empty_batch_has_an_empty_result() -> None:
    result = make_synthetic_defects(np.zeros((0, 3, 8, 8), np.uint8), np.zeros((0, 1, 8, 8), np.bool_), seed=0)
    assert result.masks.shape == (0, 8, 8) and result.families == ()
