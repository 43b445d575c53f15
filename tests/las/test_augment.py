from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torch import Tensor

from las_tune.las import augment as module
from las_tune.las.augment import AUGMENTATIONS, apply_augmentations, augment
from tests.las.conftest import seeded
from tests.reference import augment as slow

SPIED = ("_affine", "_color_jitter", "_gaussian_blur", "_sharpen")
RANGES = {
    "rotation": {"angle": (-math.pi / 4, math.pi / 4)},
    "scaling": {"scale": (0.8, 1.25)},
    "translation": {"shift_y": (-0.25, 0.25), "shift_x": (-0.25, 0.25)},
    "color_jitter": {
        "brightness": (0.6, 1.4),
        "contrast": (0.6, 1.4),
        "saturation": (0.6, 1.4),
        "hue": (-0.5, 0.5),
    },
    "gaussian_blur": {"sigma": (0.3, 2.0)},
    "sharpness": {"factor": (0.0, 3.0)},
}
NEUTRAL = {
    "angle": 0, "scale": 1, "shift_y": 0, "shift_x": 0, "flip_y": 0, "flip_x": 0, "sigma": 0, "factor": 1,
    "brightness": 1, "contrast": 1, "saturation": 1, "hue": 0,
}  # fmt: skip


def textures(batch: int = 2, size: int = 20) -> Tensor:
    """Return smooth blobs with some grain in [0.05, 0.95], so that rounding errors change no comparison."""
    coarse = torch.rand(batch, 3, 5, 5, generator=seeded())
    smooth = torch.nn.functional.interpolate(coarse, size, mode="bilinear")
    return 0.05 + 0.8 * smooth + 0.1 * torch.rand(batch, 3, size, size, generator=seeded(1))


def only(*names: str, batch: int = 2) -> Tensor:
    """Return a (B, 9) bool tensor that selects only these augmentations."""
    return torch.tensor([name in names for name in AUGMENTATIONS]).expand(batch, -1)


@pytest.fixture
def parameters(monkeypatch: pytest.MonkeyPatch) -> dict[str, Tensor]:
    """Record the arguments of the inner functions by name while a test runs."""
    arguments: dict[str, Tensor] = {}

    def spy(inner: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(images: Tensor, **kwargs: Tensor) -> Tensor:
            arguments.update(kwargs)
            return inner(images, **kwargs)

        return call

    for name in SPIED:
        monkeypatch.setattr(module, name, spy(getattr(module, name)))
    return arguments


def assert_each(images: Tensor, expected: Callable[[int], np.ndarray], atol: float = 2e-5) -> None:
    for index, image in enumerate(images):
        np.testing.assert_allclose(image.double().numpy(), expected(index), atol=atol)


def test_no_augmentation_leaves_textures_unchanged() -> None:
    before = textures(4)
    torch.testing.assert_close(apply_augmentations(before, only(batch=4), seeded()), before, atol=3e-6, rtol=0)


def test_flips_are_exact() -> None:
    before = textures()
    mirrored = apply_augmentations(before, only("horizontal_flip"), seeded())
    upside_down = apply_augmentations(before, only("vertical_flip"), seeded())
    both = apply_augmentations(before, only("horizontal_flip", "vertical_flip"), seeded())
    torch.testing.assert_close(mirrored, before.flip(3), atol=3e-6, rtol=0)
    torch.testing.assert_close(upside_down, before.flip(2), atol=3e-6, rtol=0)
    torch.testing.assert_close(both, before.flip(2, 3), atol=3e-6, rtol=0)


def test_translation_by_whole_pixels_copies_pixels() -> None:
    """The source shifts by 3 of 20 pixels down and 2 to the right; the rest is mirrored."""
    before = textures()
    zero = torch.zeros(2)
    shifts = {"shift_y": torch.full((2,), 3 / 20), "shift_x": torch.full((2,), 2 / 20)}
    no_flip = {"flip_y": zero.bool(), "flip_x": zero.bool()}
    moved = module._affine(before, angle=zero, scale=torch.ones(2), **shifts, **no_flip)
    torch.testing.assert_close(moved[:, :, :17, :18], before[:, :, 3:, 2:], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[:, :, 17:, :18], before[:, :, 17:, 2:].flip(2), atol=1e-5, rtol=0)


@pytest.mark.parametrize("drawn", ["rotation", "scaling", "translation", "all"])
def test_geometry_equals_per_pixel_loops(drawn: str, parameters: dict[str, Tensor]) -> None:
    geometry = ("rotation", "scaling", "translation", "horizontal_flip", "vertical_flip")
    before = textures()
    after = apply_augmentations(before, only(*(geometry if drawn == "all" else (drawn,))), seeded(3))

    def expected(index: int) -> np.ndarray:
        p = {name: value[index].item() for name, value in parameters.items()}
        shift, flip = (p["shift_y"], p["shift_x"]), (bool(p["flip_y"]), bool(p["flip_x"]))
        return slow.affine(before[index].double().numpy(), p["angle"], p["scale"], shift, flip)

    assert_each(after, expected, atol=1e-4)
    assert (after - before).abs().max() > 0.05


def test_color_jitter_equals_loops(parameters: dict[str, Tensor]) -> None:
    before = textures(4, size=7)
    after = apply_augmentations(before, only("color_jitter", batch=4), seeded())

    def expected(index: int) -> np.ndarray:
        values = [parameters[name][index].item() for name in ("brightness", "contrast", "saturation", "hue")]
        return slow.color_jitter(before[index].double().numpy(), *values)

    assert_each(after, expected)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_color_factors_match_hand_calculation(name: str) -> None:
    """On an image of two pixels, a factor of 0.5 goes halfway to black, to the mean, or to gray."""
    image = torch.tensor([[0.2, 0.6], [0.4, 0.6], [0.8, 0.6]]).view(1, 3, 1, 2)
    factors = {n: torch.tensor([0.5 if n == name else 1.0]) for n in ("brightness", "contrast", "saturation")}
    gray = 0.299 * 0.2 + 0.587 * 0.4 + 0.114 * 0.8
    mean = (gray + 0.6) / 2
    expected = {"brightness": image / 2, "contrast": (image + mean) / 2}.get(name, image.clone())
    if name == "saturation":
        expected[..., 0] = (expected[..., 0] + gray) / 2
    after = module._color_jitter(image, **factors, hue=torch.zeros(1))
    torch.testing.assert_close(after, expected)


def test_hue_keeps_gray_gray_and_turns_colors() -> None:
    ones = torch.ones(3)
    hue = torch.tensor([0.2, -0.5, 1 / 3])
    gray = torch.rand(3, 1, 6, 6, generator=seeded()).expand(3, 3, 6, 6)
    torch.testing.assert_close(module._color_jitter(gray, ones, ones, ones, hue), gray)
    color = torch.tensor([0.5, 0.4, 0.45]).view(1, 3, 1, 1).expand(3, 3, 2, 2)
    turned = module._color_jitter(color, ones, ones, ones, hue)
    torch.testing.assert_close(turned[0].mean((0,)), color[0].mean(0))  # the mean is unchanged
    assert (turned - color).abs().amax((1, 2, 3)).min() > 0.02
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    chroma = color[2] - (color[2] * luma).sum(0)
    torch.testing.assert_close(turned[2], color[2] - chroma + chroma.roll(1, 0))  # a third of a turn: r -> g -> b


def test_auto_contrast_fills_the_range() -> None:
    before = textures()
    after = apply_augmentations(before, only("auto_contrast"), seeded())
    assert_each(after, lambda index: slow.auto_contrast(before[index].double().numpy()), atol=1e-4)


@pytest.mark.parametrize("extra", [(), ("rotation", "scaling")])
@pytest.mark.parametrize("value", [0.4, 1.0])
def test_auto_contrast_leaves_flat_channels(value: float, extra: tuple[str, ...]) -> None:
    """Resampling leaves differences of one unit in the last place; the channel still counts as flat."""
    before = textures()
    before[:, 0] = value
    after = apply_augmentations(before, only("auto_contrast", *extra), seeded())
    torch.testing.assert_close(after[:, 0], before[:, 0], atol=1e-3, rtol=0)


def test_blur_equals_scipy(parameters: dict[str, Tensor]) -> None:
    before = textures(5)
    after = apply_augmentations(before, only("gaussian_blur", batch=5), seeded())
    assert len(set(parameters["sigma"].tolist())) == 5

    def expected(index: int) -> np.ndarray:
        sigma = parameters["sigma"][index].item()
        image = before[index].double().numpy()
        blurred: np.ndarray = ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest", radius=(0, 6, 6))
        return blurred

    assert_each(after, expected)


def test_sharpness_equals_loops(parameters: dict[str, Tensor]) -> None:
    before = textures(5, size=9)
    after = apply_augmentations(before, only("sharpness", batch=5), seeded())
    factors = parameters["factor"].tolist()
    assert min(factors) < 1 < max(factors)
    assert_each(after, lambda index: slow.sharpen(before[index].double().numpy(), factors[index]))


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_drawn_parameters_are_in_range(name: str, parameters: dict[str, Tensor]) -> None:
    number = 400
    drawn = only(name, batch=number).clone()
    drawn[::2] = False
    apply_augmentations(textures(1, size=8).expand(number, -1, -1, -1), drawn, seeded())
    for parameter, values in parameters.items():
        neutral = torch.full((number,), float(NEUTRAL[parameter]))
        assert torch.equal(values[::2].float(), neutral[::2])
        if bounds := RANGES.get(name, {}).get(parameter):
            uniform = stats.uniform(bounds[0], bounds[1] - bounds[0])
            assert stats.kstest(values[1::2].double().numpy(), uniform.cdf).pvalue > 1e-3
        elif parameter != {"vertical_flip": "flip_y", "horizontal_flip": "flip_x"}.get(name):
            assert torch.equal(values.float(), neutral)
        else:
            assert values[1::2].all()


def test_three_of_nine_augmentations_are_drawn_uniformly(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Tensor] = []
    monkeypatch.setattr(module, "apply_augmentations", lambda images, drawn, generator: calls.append(drawn))
    augment(torch.zeros(6000, 3, 1, 1), seeded())
    drawn = calls[0]
    assert drawn.shape == (6000, 9) and (drawn.sum(1) == 3).all()
    assert stats.chisquare(drawn.sum(0).numpy()).pvalue > 1e-3
    _, counts = (drawn.long() * 2 ** torch.arange(9)).sum(1).unique(return_counts=True)
    assert len(counts) == 84  # 9 choose 3
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_augmentation_of_a_sample_is_independent_of_the_batch() -> None:
    """Sample 2 is the same if the other samples have different textures and augmentations."""
    before, drawn = textures(5), only("rotation", "color_jitter", "gaussian_blur", batch=5).clone()
    after = apply_augmentations(before, drawn, seeded())
    is_other = torch.arange(5) != 2
    changed = torch.where(is_other.view(-1, 1, 1, 1), before.flip(1) * 0.3, before)
    drawn[is_other] = ~drawn[is_other]
    again = apply_augmentations(changed, drawn, seeded())
    torch.testing.assert_close(again[2], after[2], atol=1e-6, rtol=0)
    assert (again[is_other] - after[is_other]).abs().amax((1, 2, 3)).min() > 0.01


def test_samples_of_a_batch_differ() -> None:
    same = textures(1).expand(12, -1, -1, -1)
    after = augment(same, seeded()).flatten(1)
    assert (torch.cdist(after, after, p=math.inf) + torch.eye(12)).min() > 1e-3


def test_extreme_textures_stay_in_range() -> None:
    extreme = (torch.rand(40, 3, 16, 16, generator=seeded()) > 0.5).float()
    after = augment(extreme, seeded())
    assert after.shape == extreme.shape and after.isfinite().all()
    assert after.min() >= 0 and after.max() <= 1


def test_same_seed_gives_the_same_textures() -> None:
    before = textures(6)
    first, again, other = (augment(before, seeded(s)) for s in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
