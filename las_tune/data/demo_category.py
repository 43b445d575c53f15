"""The rendered category and textures of `--demo`, in the layout of MPDD."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from las_tune.config import DEMO_CATEGORY, Progress
from las_tune.data.demo_part import Floats, RgbImage, Surfaces, render_image, spectral_noise
from las_tune.errors import DataError

IMAGE_COUNTS = {"train/good": 48, "test/good": 20, "test/hole": 10, "test/scratches": 14}
TEXTURES_PER_TYPE = 5
MARKER = "demo.json"
VERSION = 1
"""Version of the images. Folders of an older version are rendered again."""


def render_demo(
    data_root: Path, textures_folder: Path, seed: int = 0, size: int = 256, progress: Progress | None = None
) -> None:
    """Render the category and the textures, unless they are already complete for this seed and size.

    Args:
        data_root: folder of categories.
        textures_folder: folder of the textures.
        seed: random seed of the images.
        size: side of the images in pixels.
        progress: called with the number of images rendered so far.

    Raises: DataError if one of the folders exists and was not rendered by the demo.
    """
    done, total = 0, sum(IMAGE_COUNTS.values()) + TEXTURES_PER_TYPE * len(TEXTURES)

    def advance() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress("rendering demo images", done, total)

    marker = {"version": VERSION, "seed": seed, "size": size}
    _replace_unless_complete(
        data_root / DEMO_CATEGORY, marker, lambda folder: _write_category(folder, seed, size, advance)
    )
    done = sum(IMAGE_COUNTS.values())  # an existing category is not rendered again
    _replace_unless_complete(textures_folder, marker, lambda folder: _write_textures(folder, seed, size, advance))


def _replace_unless_complete(folder: Path, marker: dict[str, int], write: Callable[[Path], None]) -> None:
    """Render into a temporary folder and move it in one step, so that an interruption leaves nothing incomplete."""
    num_found = sum(path.suffix == ".png" for path in folder.rglob("*"))
    if (folder / MARKER).is_file():
        if json.loads((folder / MARKER).read_text()) == {**marker, "pictures": num_found}:
            return
    elif folder.exists() and any(folder.iterdir()):
        raise DataError(
            f"{folder} already exists and was not created by the demo (it has no {MARKER})",
            remedy="Choose another folder for the demo, or move this one",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".demo-", dir=folder.parent) as scratch:
        fresh = Path(scratch) / "fresh"
        write(fresh)
        num_images = sum(1 for _ in fresh.rglob("*.png"))
        (fresh / MARKER).write_text(json.dumps({**marker, "pictures": num_images}))
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        fresh.replace(folder)


def _write_category(folder: Path, seed: int, size: int, advance: Callable[[], None]) -> None:
    surfaces = Surfaces.draw(np.random.default_rng((seed, 0)), size)
    for group, (name, count) in enumerate(IMAGE_COUNTS.items(), start=1):
        defect = name.rsplit("/", 1)[-1]
        for index in range(count):
            image, mask = render_image(np.random.default_rng((seed, group, index)), surfaces, size, defect)
            _save(image, folder / name / f"{index:03d}.png")
            if mask is not None:
                _save(mask, folder / "ground_truth" / defect / f"{index:03d}_mask.png")
            advance()


def _write_textures(folder: Path, seed: int, size: int, advance: Callable[[], None]) -> None:
    for group, (name, texture) in enumerate(TEXTURES.items()):
        for index in range(TEXTURES_PER_TYPE):
            generator = np.random.default_rng((seed, 100 + group, index))
            _save(_colored(generator, texture(generator, size), name), folder / name / f"{index:03d}.png")
            advance()


def _save(image: RgbImage, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, compress_level=1)


def _cells(generator: np.random.Generator, size: int, count: int) -> Floats:
    """Return the distances (size, size, 2) to the nearest two of `count` points, as fractions of the side."""
    x = np.linspace(0, 1, size, dtype=np.float32)
    points = generator.uniform(-0.05, 1.05, (2, count)).astype(np.float32)
    gap = np.hypot(x[None, :, None] - points[0], x[:, None, None] - points[1])
    return np.asarray(np.partition(gap, 1, -1)[..., :2], np.float32)


def _wood(generator: np.random.Generator, size: int) -> Floats:
    y = np.linspace(0, 1, size, dtype=np.float32)[:, None]
    rings = y * generator.uniform(5, 14) + 0.5 * spectral_noise(generator, size, 1.8, 3)
    return np.asarray(np.abs(rings % 1 - 0.5) + 0.06 * spectral_noise(generator, size, 0.8, 20), np.float32)


def _woven(generator: np.random.Generator, size: int) -> Floats:
    phase = np.linspace(0, np.pi * generator.integers(10, 28), size, dtype=np.float32)
    across, along = np.abs(np.sin(phase))[None, :], np.abs(np.sin(phase))[:, None]
    over = (phase[None, :] // np.pi + phase[:, None] // np.pi) % 2 == 0
    threads = np.where(over, across, along * 0.7)
    return np.asarray((threads + 0.08 * spectral_noise(generator, size, 0.7)), np.float32)


def _dots(generator: np.random.Generator, size: int) -> Floats:
    gap = _cells(generator, size, int(generator.integers(25, 60)))[..., 0]
    return np.asarray(np.clip((0.055 - gap) * size / 3, 0, 1) + 0.08 * spectral_noise(generator, size, 1), np.float32)


def _rust(generator: np.random.Generator, size: int) -> Floats:
    blotches = np.tanh(2 * spectral_noise(generator, size, 1.3))
    return np.asarray(blotches + 0.25 * spectral_noise(generator, size, 0.6), np.float32)


def _marble(generator: np.random.Generator, size: int) -> Floats:
    veins = np.exp(-7 * np.abs(spectral_noise(generator, size, 1.6, generator.uniform(0.5, 2))))
    return np.asarray(veins + 0.15 * spectral_noise(generator, size, 1.6), np.float32)


def _cracked(generator: np.random.Generator, size: int) -> Floats:
    nearest, second = np.moveaxis(_cells(generator, size, int(generator.integers(20, 50))), -1, 0)
    return np.asarray(np.clip((second - nearest) * 40, 0, 1) + 0.12 * spectral_noise(generator, size, 1.2), np.float32)


def _clouds(generator: np.random.Generator, size: int) -> Floats:
    return spectral_noise(generator, size, generator.uniform(1.2, 2.2))


def _brushed(generator: np.random.Generator, size: int) -> Floats:
    return spectral_noise(generator, size, generator.uniform(0.6, 1), generator.uniform(10, 30))


TEXTURES = {
    "brushed": _brushed,
    "clouds": _clouds,
    "cracked": _cracked,
    "dots": _dots,
    "marble": _marble,
    "rust": _rust,
    "wood": _wood,
    "woven": _woven,
}
PALETTES = {  # from low to high, RGB in [0, 1]; the other textures have random colors
    "rust": np.array([(0.16, 0.07, 0.04), (0.45, 0.2, 0.08), (0.72, 0.4, 0.16), (0.5, 0.48, 0.45)]),
    "wood": np.array([(0.27, 0.15, 0.07), (0.48, 0.3, 0.16), (0.66, 0.46, 0.27), (0.8, 0.62, 0.42)]),
}


def _colored(generator: np.random.Generator, field: Floats, name: str) -> RgbImage:
    """Map a field (size, size) to the colors of a palette, from its 1st to its 99th percentile."""
    muted = generator.uniform(0.05, 0.95, (4, 1)) + generator.normal(0, 0.12, (4, 3))
    palette = np.clip(PALETTES.get(name, muted) + generator.normal(0, 0.03, (4, 3)), 0, 1)
    low, high = np.percentile(field, (1, 99))
    stops = np.linspace(low, high, len(palette))
    channels = [np.interp(field, stops, palette[:, channel]) for channel in range(3)]
    turned = np.rot90(np.stack(channels, -1), int(generator.integers(4)))
    return np.asarray(turned * 255 + 0.5, np.uint8)
