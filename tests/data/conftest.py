"""A small category on disk, created for each test."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

MakeCategory = Callable[..., Path]


def save_image(path: Path, value: int | None = None, size: tuple[int, int] = (12, 8)) -> Path:
    """Save a uniform gray image, or noise seeded by the path. `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), value or 0, np.uint8)
    if value is None:
        pixels = np.random.default_rng(list(str(path).encode())).integers(0, 256, pixels.shape, np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def save_mask(path: Path, size: tuple[int, int] = (12, 8)) -> Path:
    """Save a mask whose left half is defective."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[:, : size[0] // 2] = 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def make_category(tmp_path: Path) -> MakeCategory:
    """Return a function that creates a data root with the category `part`, with masks."""

    def make(name: str = "part", train: int = 6, good: int = 4, **defects: int) -> Path:
        for index in range(train):
            save_image(tmp_path / name / "train" / "good" / f"{index:03}.png")
        for defect, count in {"good": good, **defects}.items():
            for index in range(count):
                save_image(tmp_path / name / "test" / defect / f"{index:03}.png")
                if defect != "good":
                    save_mask(tmp_path / name / "ground_truth" / defect / f"{index:03}_mask.png")
        return tmp_path

    return make
