"""Render one image of the demo category: a black bracket on a gray table, good, with a hole or with scratches.

Lengths are in pixels of a 256 px image, regardless of the actual size. Colors are in [0, 1]. Good images vary in pose,
light, paint grain, sheen and dust.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
RgbImage = npt.NDArray[np.uint8]

SUPERSAMPLING = 2
VISIBLE_CHANGE = 4 / 255
"""Pixels that a defect changes by more than this belong to its mask."""
TO_LIGHT_X, TO_LIGHT_Y = -0.6, -0.8  # direction of the light, at the upper left
BARE_METAL = np.array([0.66, 0.65, 0.62], np.float32)
BACKGROUND = np.array([0.5, 0.5, 0.48], np.float32)
PIT = np.array([0.035, 0.033, 0.032], np.float32)
TABLE_TINT = np.array([1.0, 1.0, 0.96], np.float32)
PAINT_TINT = np.array([0.97, 1.0, 1.05], np.float32)


def spectral_noise(generator: np.random.Generator, side_px: int, slope: float, stretch: float = 1.0) -> Floats:
    """Return periodic noise (side_px, side_px), mean 0, deviation 1, amplitude ~ 1/f^slope, stretched along x."""
    f = np.hypot(np.fft.fftfreq(side_px)[:, None], stretch * np.fft.rfftfreq(side_px)[None, :])
    f[0, 0] = np.inf
    field = np.fft.irfft2(np.fft.rfft2(generator.standard_normal((side_px, side_px))) * f**-slope)
    return np.asarray(field[:, :side_px] / field.std(), np.float32)


def colored_noise(number: int, size: int) -> RgbImage:
    """Return textures (number, size, size, 3) uint8 RGB with an independent noise field per channel."""
    generator = np.random.default_rng(0)
    fields = [[spectral_noise(generator, size, 1.2) for _ in range(3)] for _ in range(number)]
    return np.asarray(np.clip(128 + 50 * np.array(fields).transpose(0, 2, 3, 1), 0, 255), np.uint8)


@dataclass(frozen=True)
class Surfaces:
    """Noise fields shared by all images, which use them at different offsets.

    Each is (side, side), periodic, with mean 0 and deviation 1, where side = size * SUPERSAMPLING.
    """

    streaks: Floats
    grain: Floats
    clouds: Floats

    @classmethod
    def draw(cls, generator: np.random.Generator, size: int) -> Surfaces:
        """Draw the surfaces of images with this side in pixels."""
        slopes_and_stretches = ((0.8, 14.0), (0.35, 1.0), (1.7, 1.0))
        side = size * SUPERSAMPLING
        return cls(*(spectral_noise(generator, side, slope, stretch) for slope, stretch in slopes_and_stretches))


@dataclass(frozen=True)
class Camera:
    """Conditions of one exposure: uneven light (size, size, 3), softness of the lens, sensor noise (size, size, 3)."""

    gain: Floats
    softness: float
    noise: Floats

    @classmethod
    def draw(cls, generator: np.random.Generator, size: int) -> Camera:
        """Draw random conditions."""
        x = np.linspace(-1, 1, size, dtype=np.float32)
        slope_x, slope_y, fall_off = generator.uniform((-0.13, -0.13, 0.04), (0.13, 0.13, 0.13))
        light = 1 + slope_x * x + slope_y * x[:, None] - fall_off * (x**2 + x[:, None] ** 2)
        tint = generator.uniform(0.93, 1.07) * generator.uniform(0.985, 1.015, 3)
        noise = generator.standard_normal((size, size, 3), np.float32) * generator.uniform(0.007, 0.012)
        gain = np.asarray(light[..., None] * tint, np.float32)
        return cls(gain, generator.uniform(0.06, 0.2), noise)

    def expose(self, scene: Floats) -> Floats:
        """Return the image (size, size, 3) of a scene (side, side, 3), without sensor noise."""
        steps = range(SUPERSAMPLING)
        pixels = sum(scene[i::SUPERSAMPLING, j::SUPERSAMPLING] for i in steps for j in steps)
        blurred = pixels * self.gain / SUPERSAMPLING**2
        for _ in range(2):  # blur with the kernel (w, 1 - 2w, w) along each axis
            padded = np.pad(blurred, ((1, 1), (0, 0), (0, 0)), "edge")
            blurred = blurred + self.softness * (padded[:-2] + padded[2:] - 2 * blurred)
            blurred = blurred.swapaxes(0, 1)
        return np.asarray(blurred, np.float32)

    def develop(self, pixels: Floats) -> RgbImage:
        """Add sensor noise and convert to uint8."""
        return np.asarray(np.clip(pixels + self.noise, 0, 1) * 255 + 0.5, np.uint8)


def render_image(
    generator: np.random.Generator, surfaces: Surfaces, size: int, defect: str
) -> tuple[RgbImage, RgbImage | None]:
    """Render one image and the mask of its defect.

    A generator in the same state renders the same bracket for every defect.

    Args:
        generator: source of all random numbers.
        surfaces: noise shared by all images.
        size: side of the image in pixels.
        defect: "good", or a name in DEFECTS.

    Returns: the image (size, size, 3), and the mask (size, size) of visibly changed pixels, 0 or 255; None if good.
    """
    for_part, for_defect = generator.spawn(2)
    scene, distance = _render_scene(for_part, surfaces)
    camera = Camera.draw(for_part, size)
    clean = camera.expose(scene)
    if defect == "good":
        return camera.develop(clean), None
    defective = camera.expose(DEFECTS[defect](for_defect, scene, distance))
    change = np.abs(defective - clean).max(-1)
    mask = change > min(VISIBLE_CHANGE, change.max() / 2)
    return camera.develop(defective), np.where(mask, np.uint8(255), np.uint8(0))


def _part_distance(u: Floats, v: Floats) -> Floats:
    """Return the signed distance to the bracket, negative inside: rounded boxes, fillets, drilled holes."""

    def box(center_u: float, center_v: float, half_u: float, half_v: float, corner: float) -> Floats:
        du, dv = np.abs(u - center_u) - (half_u - corner), np.abs(v - center_v) - (half_v - corner)
        outside = np.sqrt(np.maximum(du, 0) ** 2 + np.maximum(dv, 0) ** 2)
        return np.asarray(outside + np.minimum(np.maximum(du, dv), 0) - corner)

    distance = box(0, 0, 88, 33, 9)
    for tab in (box(-54, -56, 29, 44, 9), box(56, 58, 27, 42, 9)):
        blend = np.maximum(8 - np.abs(distance - tab), 0)
        distance = np.minimum(distance, tab) - blend**2 / 32
    for center_u, center_v, radius in ((-54, -74, 8), (56, 76, 8), (-16, 0, 13)):
        distance = np.maximum(distance, radius - np.sqrt((u - center_u) ** 2 + (v - center_v) ** 2))
    return np.asarray(np.maximum(distance, -box(48, 2, 17, 6, 6)))


def _render_scene(generator: np.random.Generator, surfaces: Surfaces) -> tuple[Floats, Floats]:
    """Return the bracket on its table (side, side, 3), and the signed distance to the bracket (side, side)."""
    side = len(surfaces.grain)
    scale = side / 256
    x = (np.arange(side, dtype=np.float32) + 0.5) / scale - 128
    turn, zoom = np.radians(generator.uniform(-8, 8)), generator.uniform(0.96, 1.04)
    cos, sin = np.float32(np.cos(turn) / zoom), np.float32(np.sin(turn) / zoom)
    dx, dy = x[None, :] - generator.uniform(-7, 7), x[:, None] - generator.uniform(-7, 7)
    u, v = cos * dx + sin * dy, cos * dy - sin * dx
    distance = _part_distance(u, v)
    row, column = (int(offset) for offset in generator.integers(side, size=2))
    grain, clouds = (np.roll(field, (row, column), (0, 1)) for field in (surfaces.grain, surfaces.clouds))
    along = ((v * scale).astype(np.int32) + row) % side, ((u * scale).astype(np.int32) + column) % side
    tone = _surface_tone(generator, u, v, surfaces.streaks[along])
    gradient_y, gradient_x = np.gradient(distance, 1 / scale)
    edge = (TO_LIGHT_X * gradient_x + TO_LIGHT_Y * gradient_y) * np.exp(-(((distance + 1.3) / 1.2) ** 2))
    tone += 0.013 * grain + 0.012 * clouds + np.maximum(0.24 * edge, 0.1 * edge)
    lifted = np.roll(distance, (round(8 * scale), round(6 * scale)), (0, 1))  # the shadow, away from the light
    shade = 0.5 / (1 + np.exp(np.minimum(lifted / 3, 50))) + 0.14 * np.exp(-np.maximum(distance, 0) / 2)
    table = (0.66 + 0.022 * clouds + 0.012 * grain) * (1 - shade)
    cover = np.clip(0.5 - distance * scale, 0, 1)
    gray = table + (np.maximum(tone, 0.02) - table) * cover
    count = int(generator.poisson(6))
    dust = _stamp(side, generator.uniform(0, 256, (count, 2)), *generator.uniform(0.15, 0.8, (2, count)))
    gray += (0.65 - gray) * dust
    scene = gray[..., None] * (TABLE_TINT + (PAINT_TINT - TABLE_TINT) * cover[..., None])
    return np.asarray(scene, np.float32), distance


def _surface_tone(generator: np.random.Generator, u: Floats, v: Floats, streaks: Floats) -> Floats:
    """Return the brightness of the painted sheet: brushed streaks, a sheen, and a bend next to each tab."""
    tone = 0.14 + 0.012 * streaks
    sheen = (u * generator.uniform(-0.9, 0.9) + v - generator.uniform(-70, 70)) / generator.uniform(35, 65)
    tone += generator.uniform(0.04, 0.13) * np.exp(-(sheen**2)) * (1 + 0.15 * streaks)
    for past_bend, tilt in (
        (-v - 38, generator.uniform(0.04, 0.08)),
        (v - 38, generator.uniform(-0.06, -0.03)),
    ):
        ridge, groove = np.exp(-((past_bend / 2.2) ** 2)), np.exp(-(((past_bend - 5) / 2.5) ** 2))
        tone += tilt / (1 + np.exp(-np.maximum(past_bend / 2, -50)))
        tone += abs(tilt) * (1.7 * ridge - 0.9 * groove)
    return np.asarray(tone, np.float32)


def _overlay(scene: Floats, color: Floats, opacity: Floats) -> Floats:
    return np.asarray(scene + (color - scene) * opacity[..., None], np.float32)


def _stamp(side: int, points: Points, radius: Points, strength: Points) -> Floats:
    """Return the opacity (side, side) of soft discs at points (P, 2: x, y) with radius (P,) and strength (P,)."""
    opacity, scale = np.zeros((side, side), np.float32), side / 256
    reach = np.mgrid[-4:5, -4:5].reshape(2, 1, -1)
    column, row = np.floor(points.T * scale).astype(int)[..., None] + reach
    gap = np.hypot(column + 0.5 - points[:, :1] * scale, row + 0.5 - points[:, 1:] * scale)
    value = np.clip(radius[:, None] * scale + 0.5 - gap, 0, 1) * strength[:, None]
    np.maximum.at(opacity, (np.clip(row, 0, side - 1), np.clip(column, 0, side - 1)), value)
    return opacity


def _random_point(generator: np.random.Generator, distance: Floats, margin: float) -> Points:
    """Return a random point (x, y) on the bracket, at least `margin` away from its edges and drilled holes."""
    rows, columns = np.nonzero(distance < -margin)
    pick = generator.integers(len(rows))
    return (np.array([columns[pick], rows[pick]]) + 0.5) * (256 / len(distance))


def _puncture(generator: np.random.Generator, scene: Floats, distance: Floats) -> Floats:
    """Add an irregular hole with a torn rim, from a shallow dent to one that shows the table."""
    side, radius = len(distance), generator.uniform(3, 9)
    x = (np.arange(side, dtype=np.float32) + 0.5) * (256 / side)
    center_x, center_y = _random_point(generator, distance, radius + 4)
    dx, dy = x[None, :] - np.float32(center_x), x[:, None] - np.float32(center_y)
    angle, through = np.arctan2(dy, dx), generator.random() < 0.3
    rough = generator.uniform((0, 0), (6.3, 0.22), (8, 2)).astype(np.float32)
    waves = [height * np.cos(k * angle + phase) / k**0.5 for k, (phase, height) in enumerate(rough, start=1)]
    depth = radius * (1 + sum(waves)) - np.sqrt(dx**2 + dy**2)
    on_part = np.clip(-distance, 0, 1) * generator.uniform(0.6 if through else 0.25, 1)
    defective = _overlay(scene, PIT, np.clip(depth + 0.5, 0, 1) * on_part)
    facing = -(TO_LIGHT_X * dx + TO_LIGHT_Y * dy) / radius  # the far wall of a pit faces the light
    if through:  # the near edge shades the background
        defective = _overlay(defective, BACKGROUND, np.clip((depth - 0.8 + 1.6 * facing) / 1.5, 0, 1) * on_part)
    torn = np.exp(-(((depth - 6 * waves[-1]) / generator.uniform(0.7, 1.3)) ** 2))
    return _overlay(defective, BARE_METAL, torn * np.clip(0.4 + 0.4 * facing + 2 * waves[-2], 0, 0.9) * on_part)


def _scratches(generator: np.random.Generator, scene: Floats, distance: Floats) -> Floats:
    """Add 1 to 4 thin curved scratches down to the bare metal, with gaps, some of them faint."""
    t = np.linspace(0, 1, 400)
    points, radius, strength = [], [], []
    for _ in range(generator.integers(1, 5)):
        bend, wobble = generator.normal(0, (0.5, 0.15))
        heading = generator.uniform(0, 2 * np.pi) + bend * (t - 0.5) + wobble * np.sin(7 * t)
        path = np.cumsum(np.stack([np.cos(heading), np.sin(heading)], 1), 0) * generator.uniform(0.05, 0.19)
        points.append(path - path[200] + _random_point(generator, distance, 5))
        pressure = np.interp(t, np.linspace(0, 1, 12), generator.uniform(0.2, 1, 12)) * np.sin(np.pi * t) ** 0.4
        radius.append(generator.uniform(0.3, 1.0) * (0.4 + 0.6 * pressure))
        strength.append(0.13 * 6 ** generator.uniform() * np.clip(1.6 * pressure - 0.15, 0, 1))
    paths, radii, strengths = np.concatenate(points), np.concatenate(radius), np.concatenate(strength)
    on_part = np.clip(-distance - 0.5, 0, 1)
    lip = _stamp(len(distance), paths + [0.8, 0.9], radii, strengths * 0.6)  # paint raised next to the groove
    groove = _stamp(len(distance), paths, radii, strengths)
    return _overlay(_overlay(scene, PIT, lip * on_part), BARE_METAL, groove * on_part)


DEFECTS = {"hole": _puncture, "scratches": _scratches}
