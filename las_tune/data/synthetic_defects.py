"""Add synthetic defects to good images for validation, with other methods than LAS.

LAS blends textures under Perlin masks. Validation defects of the same construction would become easier to detect with
the very hyperparameters that they are used to select. Therefore none of these families uses noise or textures, and none
is tuned. Lengths are fractions of the side of the image; lengths with the suffix _px are pixels of a 288 px image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from numpy.random import Generator
from PIL import Image, ImageDraw
from scipy import ndimage

Images = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

FAMILIES = ("cut_paste", "scratch", "blur", "stain")
VISIBLE_CHANGE = 4
"""A pixel belongs to a defect if some channel changes by more than this, of 255."""
CLEAR_CHANGE = 14
"""Minimum mean change of the pixels of a defect, of 255. Fainter defects are drawn again."""
SPECK_SHARE = 0.1
"""Regions smaller than this fraction of the largest one are removed, because AUPRO counts each as a region."""
MIN_SHARE, MAX_SHARE = 0.001, 0.08
"""Minimum and maximum area of a defect as a fraction of the image. Other defects are drawn again."""
MIN_PART_SHARE, MAX_PART_SHARE = 0.002, 0.35
"""The same limits as fractions of the foreground, so that small parts get small defects."""
ATTEMPTS = 12
"""Number of attempts before a plain stain is used instead."""
GROWTH = 0.15
"""Increase of the strength per attempt, as a fraction of the initial strength."""
STAINS = ((96, 52, 24), (30, 26, 22), (62, 74, 104), (150, 112, 52), (205, 205, 198))
"""Colors of stains, RGB: rust, oil, blue and straw of heated steel, limescale."""


@dataclass(frozen=True)
class SyntheticDefects:
    """Images with one synthetic defect each."""

    images: Images
    """(N, 3, S, S) uint8, RGB."""
    masks: Masks
    """(N, S, S) bool, 1 = visibly changed pixel. No mask is empty, and all other pixels are unchanged."""
    families: tuple[str, ...]
    """Family of each defect, a name in FAMILIES."""


def make_synthetic_defects(good: Images, foreground: Masks, seed: int) -> SyntheticDefects:
    """Return one defective copy of each good image, alternating between the families.

    The result for image i depends only on the image, i and the seed. If its family stays invisible on an image, for
    example a blur on a uniform surface, the image gets a stain.

    Args:
        good: (N, 3, S, S) uint8, RGB.
        foreground: (N, 1, S, S) bool, 1 = part, where defects are allowed; an empty foreground allows the whole image.
        seed: random seed.
    """
    images = good.copy()
    masks = np.zeros((len(good), *good.shape[2:]), np.bool_)
    families = []
    for index, image in enumerate(good):
        part = foreground[index, 0] if foreground[index].any() else np.ones_like(masks[index])
        generator = np.random.default_rng((seed, index))
        images[index], masks[index], family = _add_defect(image, part, FAMILIES[index % len(FAMILIES)], generator)
        families.append(family)
    return SyntheticDefects(images, masks, tuple(families))


def _add_defect(image: Images, part: Masks, family: str, generator: Generator) -> tuple[Images, Masks, str]:
    """Draw a defect with increasing strength until it is visible. Returns image, mask and family."""
    # Background pixels are replaced by the nearest pixel of the part, so that no background is smeared onto the part.
    nearest = ndimage.distance_transform_edt(~part, return_distances=False, return_indices=True)
    canvas = image[:, nearest[0], nearest[1]].astype(np.float64)
    for attempt in range(ATTEMPTS):
        defective = _DRAW[family](canvas, part, 1 + GROWTH * attempt, generator)
        result, mask = _keep_visible(image, defective, part)
        if _is_suitable(mask, part, result, image):
            return result, mask, family
    return *_keep_visible(image, _visible_stain(canvas, part), part), "stain"


def _keep_visible(image: Images, defective: Floats, part: Masks) -> tuple[Images, Masks]:
    """Return the image with only the visibly changed pixels of the part replaced, without specks, and their mask."""
    changed = np.clip(np.rint(defective), 0, 255).astype(np.uint8)
    regions, _ = ndimage.label((_change(changed, image) > VISIBLE_CHANGE) & part, structure=np.ones((3, 3)))
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    mask = (sizes >= max(1, SPECK_SHARE * sizes.max()))[regions]
    return np.where(mask, changed, image), mask


def _change(first: Images, second: Images) -> npt.NDArray[np.int16]:
    """Return the largest absolute change over the channels, (S, S)."""
    change: npt.NDArray[np.int16] = np.abs(first.astype(np.int16) - second).max(0)
    return change


def _is_suitable(mask: Masks, part: Masks, result: Images, image: Images) -> bool:
    """Return whether a defect is neither too small, nor too large, nor too faint."""
    area = int(mask.sum())
    smallest = min(MIN_SHARE * mask.size, MIN_PART_SHARE * part.sum())
    largest = min(MAX_SHARE * mask.size, MAX_PART_SHARE * part.sum())
    return bool(smallest <= area <= largest and _change(result, image)[mask].mean() > CLEAR_CHANGE)


def _cut_paste(canvas: Floats, part: Masks, strength: float, generator: Generator) -> Floats:
    """Paste a rectangle of the part elsewhere on the part: rotated, possibly flipped, slightly brighter or darker."""
    size = part.shape[0]
    source, target = _pick(part, generator), _pick(part, generator)
    half_height, half_width = size * _log_uniform(generator, 0.03, 0.1, 2)
    y, x = _frame(size, target, generator.uniform(0, 2 * np.pi))
    flip = generator.choice((-1.0, 1.0))
    where = np.stack([source[0] + flip * y, source[1] + x])
    patch = np.stack([ndimage.map_coordinates(channel, where, order=1, mode="reflect") for channel in canvas])
    patch *= 1 + generator.choice((-1.0, 1.0)) * 0.1 * strength
    # Only pixels well inside the part are cut out, because a piece of the background would be too easy to detect.
    inner = ndimage.binary_erosion(part, iterations=round(_px(size, 1.5)), border_value=1)
    is_inner = ndimage.map_coordinates(inner.astype(np.float64), where, order=1, mode="reflect")
    outside = np.maximum(np.abs(y) - half_height, np.abs(x) - half_width)
    return _blend(canvas, patch, is_inner * _ramp(-outside, _px(size, 1.5)))


def _scratch(canvas: Floats, part: Masks, strength: float, generator: Generator) -> Floats:
    """Draw one to three thin strokes, all bright or all dark, straight, curved or kinked."""
    size, fine = part.shape[0], 4
    sheet = Image.new("L", (size * fine, size * fine))
    for _ in range(generator.integers(1, 4)):
        width = round(fine * _px(size, generator.uniform(1, 3)))
        points = (_stroke(part, generator) + 0.5) * fine
        ImageDraw.Draw(sheet).line([(x, y) for y, x in points.tolist()], fill=255, width=width, joint="curve")
    alpha = np.asarray(sheet.resize((size, size), Image.Resampling.BOX), np.float64) / 255
    soft: Floats = ndimage.gaussian_filter(alpha, 0.4 * _px(size, 1))
    contrast = float(generator.choice((-1.0, 1.0))) * generator.uniform(40, 110) * strength
    return canvas + contrast * soft


def _stroke(part: Masks, generator: Generator) -> Floats:
    """Return the points (n, 2) of a stroke as y, x. It starts on the part, curves evenly, and may have a kink."""
    num_steps = 64
    step = part.shape[0] * _log_uniform(generator, 0.12, 0.5) / num_steps
    bend = generator.normal(0, 0.6) * np.linspace(0, 1, num_steps)
    kink = generator.normal(0, 0.7) * (np.arange(num_steps) >= generator.integers(num_steps))
    angle = generator.uniform(0, 2 * np.pi) + bend + kink * (generator.random() < 0.4)
    heading = np.stack([np.sin(angle), np.cos(angle)], axis=1)
    points: Floats = _pick(part, generator) + step * heading.cumsum(0)
    return points


def _blur(canvas: Floats, part: Masks, strength: float, generator: Generator) -> Floats:
    """Blur a region, or smear it along one axis, preferably where this has a visible effect."""
    size = part.shape[0]
    along = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0))[generator.integers(3)]
    sigma = size * generator.uniform(0.015, 0.035) * strength
    smooth = ndimage.gaussian_filter(canvas, (0, sigma * along[0], sigma * along[1]))
    radius = size * _log_uniform(generator, 0.04, 0.13)
    change = ndimage.gaussian_filter(np.abs(smooth - canvas).max(0) * part, radius / 2)
    return _blend(canvas, smooth, _blob(part, radius, 0.4, generator, weight=change**2 + 1e-6))


def _stain(canvas: Floats, part: Masks, strength: float, generator: Generator) -> Floats:
    """Tint a blob with one color of STAINS."""
    radius = part.shape[0] * _log_uniform(generator, 0.03, 0.12)
    alpha = _blob(part, radius, generator.uniform(0.3, 0.9), generator)
    opacity = min(1.0, generator.uniform(0.35, 0.65) * strength)
    return _blend(canvas, _fill(STAINS[generator.integers(len(STAINS))]), opacity * alpha)


def _visible_stain(canvas: Floats, part: Masks) -> Floats:
    """Draw a stain that is visible on every image: at the center of the part, with a contrasting color."""
    on_part = np.argwhere(part)
    center = on_part[((on_part - on_part.mean(0)) ** 2).sum(1).argmin()]
    y, x = _frame(part.shape[0], center.astype(np.float64), 0.0)
    radius = max(1.0, 0.06 * part.shape[0])
    is_bright = canvas[:, center[0], center[1]].mean() >= 128
    return _blend(
        canvas, _fill((0, 0, 0) if is_bright else (255, 255, 255)), 0.6 * _ramp(1 - np.hypot(y, x) / radius, 1)
    )


def _blob(part: Masks, radius: float, softness: float, generator: Generator, weight: Floats | None = None) -> Floats:
    """Return an irregular smooth ellipse, (S, S) in [0, 1], 1 = inside; softness is the width of its edge in radii."""
    y, x = _frame(part.shape[0], _pick(part, generator, weight), generator.uniform(0, np.pi))
    angle = np.arctan2(y, x)
    rim = np.ones_like(angle)
    for order in (2, 3, 5):
        rim += generator.uniform(0, 0.3) / order * np.cos(order * angle + generator.uniform(0, 2 * np.pi))
    stretch = generator.uniform(1, 1.6)
    return _ramp(1 - np.hypot(y * stretch, x / stretch) / (radius * rim), softness)


def _pick(part: Masks, generator: Generator, weight: Floats | None = None) -> Floats:
    """Return a random pixel of the part as y, x, uniformly or with probability proportional to weight (S, S)."""
    on_part = np.flatnonzero(part)
    cumulated = np.cumsum(np.ones(len(on_part)) if weight is None else weight.flat[on_part])
    pixel = on_part[np.searchsorted(cumulated, generator.random() * cumulated[-1], side="right")]
    return np.array(divmod(int(pixel), part.shape[1]), np.float64)


def _frame(size: int, center: Floats, angle: float) -> Floats:
    """Return the coordinates y, x of every pixel relative to a center, in axes rotated by an angle: (2, S, S)."""
    y, x = np.mgrid[:size, :size] - center[:, None, None]
    return np.stack([np.cos(angle) * y - np.sin(angle) * x, np.sin(angle) * y + np.cos(angle) * x])


def _blend(canvas: Floats, over: Floats, alpha: Floats) -> Floats:
    return canvas + alpha * (over - canvas)


def _fill(color: tuple[int, int, int]) -> Floats:
    return np.array(color, np.float64)[:, None, None]


def _ramp(depth: Floats, width: float) -> Floats:
    """Return a smooth step of the depth: 0 up to depth 0, 1 from depth `width` on."""
    share = np.clip(depth / width, 0, 1)
    return share**2 * (3 - 2 * share)


def _log_uniform(generator: Generator, low: float, high: float, number: int | None = None) -> Floats:
    return np.asarray(np.exp(generator.uniform(np.log(low), np.log(high), number)), np.float64)


def _px(size: int, length_px: float) -> float:
    """Convert a length at 288 px to pixels of an image of this size, at least 1."""
    return max(1.0, length_px * size / 288)


_DRAW: dict[str, Callable[[Floats, Masks, float, Generator], Floats]] = {
    "cut_paste": _cut_paste,
    "scratch": _scratch,
    "blur": _blur,
    "stain": _stain,
}
