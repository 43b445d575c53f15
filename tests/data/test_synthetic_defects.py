"""Synthetic validation defects: where they lie, what they leave alone, and that none is invisible."""

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
    Defective,
    Images,
    Masks,
    _certain_stain,
    _keep_visible,
    make_anomalies,
)

SIZE = 96


def parts(number: int, size: int = SIZE) -> tuple[Images, Masks]:
    """Images of a bright, unevenly lit disc with grain and dark holes on a dark table, and where the discs are."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[:size, :size] / size
    disc = np.hypot(y - 0.5, x - 0.5) < 0.4
    holes = np.hypot(y % 0.25 - 0.12, x % 0.25 - 0.12) < 0.03
    scene = np.where(disc, 110 + 70 * x - 80 * holes, 40)
    grain = ndimage.gaussian_filter(generator.normal(0, 12, (number, 3, size, size)), (0, 0, 0.6, 0.6))
    images = np.clip(scene + grain, 0, 255).astype(np.uint8)
    return images, np.broadcast_to(disc, (number, 1, size, size)).copy()


def changes(made: Defective, good: Images) -> np.ndarray:
    return np.abs(made.images.astype(int) - good).max(1)


def require_sound(made: Defective, good: Images, foreground: Masks) -> None:
    """Each mask is not empty, on the foreground, and exactly where its image changed, and visibly."""
    assert made.images.dtype == np.uint8 and made.images.shape == good.shape
    assert made.masks.dtype == np.bool_ and made.masks.shape == (len(good), *good.shape[2:])
    assert len(made.families) == len(good) and set(made.families) <= set(FAMILIES)
    change = changes(made, good)
    assert made.masks.any((1, 2)).all()
    assert (change[made.masks] > VISIBLE_CHANGE).all()
    assert (change[~made.masks] == 0).all()
    has_part = foreground.any((1, 2, 3))
    assert not (made.masks & ~foreground[:, 0])[has_part].any()


def test_defects_on_parts() -> None:
    good, foreground = parts(16)
    before = good.copy(), foreground.copy()
    made = make_anomalies(good, foreground, seed=0)
    require_sound(made, good, foreground)
    assert made.families == FAMILIES * 4
    assert all(np.array_equal(now, then) for now, then in zip((good, foreground), before, strict=True))
    area = made.masks.mean((1, 2))
    assert (area >= MIN_SHARE).all() and (area <= MAX_SHARE).all()


def test_the_seed_decides_every_byte() -> None:
    good, foreground = parts(4)
    once, again, other = (make_anomalies(good, foreground, seed) for seed in (5, 5, 6))
    assert np.array_equal(once.images, again.images) and np.array_equal(once.masks, again.masks)
    assert all((a != b).any() for a, b in zip(once.images, other.images, strict=True))


def test_other_images_change_nothing() -> None:
    good, foreground = parts(8)
    made = make_anomalies(good, foreground, seed=1)
    good[[0, 1, 2, 3, 4]] = 255 - good[[1, 0, 3, 2, 4]]
    among_others = make_anomalies(good[:7], foreground[:7], seed=1)
    assert np.array_equal(made.images[5:7], among_others.images[5:])
    assert np.array_equal(made.masks[5:7], among_others.masks[5:])


def test_defects_of_one_image_differ() -> None:
    good, foreground = parts(1)
    made = make_anomalies(np.repeat(good, 12, 0), np.repeat(foreground, 12, 0), seed=0)
    assert len({mask.tobytes() for mask in made.masks}) == 12


@pytest.mark.parametrize("value", [0, 128, 255])
def test_flat_images(value: int) -> None:
    good = np.full((8, 3, SIZE, SIZE), value, np.uint8)
    foreground = np.ones((8, 1, SIZE, SIZE), np.bool_)
    made = make_anomalies(good, foreground, seed=0)
    require_sound(made, good, foreground)
    # Blur changes nothing here, so a stain stands in for it, under its own name.
    assert Counter(made.families)["blur"] == 0 and made.families[2] == made.families[3] == "stain"


def test_an_empty_foreground_stands_for_the_whole_image() -> None:
    good, foreground = parts(8)
    foreground[:] = False
    require_sound(make_anomalies(good, foreground, seed=0), good, foreground)


def test_a_foreground_of_one_pixel() -> None:
    good, foreground = parts(4)
    foreground[:] = False
    foreground[:, 0, 7, 90] = True
    made = make_anomalies(good, foreground, seed=0)
    require_sound(made, good, foreground)
    assert made.families == ("stain",) * 4


def test_the_last_resort_lies_at_the_center_of_the_part() -> None:
    good, foreground = parts(1)
    image, part = good[0], foreground[0, 0]
    result, mask = _keep_visible(image, _certain_stain(image.astype(np.float64), part), part)
    assert mask[SIZE // 2, SIZE // 2] and mask.sum() > 20
    assert ndimage.center_of_mass(mask) == pytest.approx((SIZE / 2, SIZE / 2), abs=1.5)
    assert (result[:, mask] < image[:, mask]).all()  # the part is bright there


def test_cut_paste_and_blur_bring_no_background_onto_the_part() -> None:
    """A bright table would shine in every patch and smear: nothing as bright as it may appear on a dark part."""
    foreground = np.zeros((16, 1, SIZE, SIZE), np.bool_)
    foreground[..., 30:60, 20:70] = True
    grain = np.random.default_rng(0).integers(20, 90, (16, 3, SIZE, SIZE), np.uint8)
    good = np.where(foreground, grain, np.uint8(250))
    made = make_anomalies(good, foreground, seed=0)
    require_sound(made, good, foreground)
    for image, mask, family in zip(made.images, made.masks, made.families, strict=True):
        if family in ("cut_paste", "blur"):
            assert image[:, mask].max() < 150


@settings(max_examples=12, deadline=None)
@given(
    size=st.sampled_from([1, 2, 5, 31, 32, 33, 65]),
    kind=st.sampled_from(["part", "noise", "flat", "speckled"]),
    seed=st.integers(0, 2**32),
)
def test_every_size_and_kind_of_image(size: int, kind: str, seed: int) -> None:
    good, foreground = parts(4, size)
    generator = np.random.default_rng(seed)
    if kind == "noise":
        good = generator.integers(0, 256, good.shape, np.uint8)
    elif kind == "flat":
        good[:] = generator.integers(0, 256)
    elif kind == "speckled":
        foreground = generator.random(foreground.shape) < 0.02
    made = make_anomalies(good, foreground, seed)
    require_sound(made, good, foreground)
    again = make_anomalies(good, foreground, seed)
    assert np.array_equal(made.images, again.images) and made.families == again.families


def test_no_images() -> None:
    made = make_anomalies(np.zeros((0, 3, 8, 8), np.uint8), np.zeros((0, 1, 8, 8), np.bool_), seed=0)
    assert made.masks.shape == (0, 8, 8) and made.families == ()
