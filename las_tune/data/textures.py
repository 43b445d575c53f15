"""Textures that are laid over parts: any folder of images, or DTD in torchvision's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from las_tune.data.category import images_below
from las_tune.data.images import Progress, decode_paths
from las_tune.data.split import seeded_rank
from las_tune.errors import DataError


@dataclass(frozen=True)
class Textures:
    """Textures in memory."""

    images: npt.NDArray[np.uint8]
    """(M, 3, S, S) uint8, RGB."""
    skipped: tuple[str, ...]
    """One line a file that could not be read."""


def list_textures(folder: Path) -> list[Path]:
    """All images below a folder, sorted; of DTD only its `images`. DataError where there are none."""
    base = texture_base(folder)
    found = images_below(base)
    if not found:
        raise DataError(
            "--textures must be a folder with images in it",
            folder.absolute() if folder.is_dir() else f"{folder.absolute()} (no such folder)",
            "Run `python -m las_tune data fetch dtd`, or give --textures any folder of images",
        )
    return found


def load_textures(
    folder: Path,
    size: int,
    seed: int,
    limit: int = 2000,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Textures:
    """Decode textures to size × size, their aspect kept: shorter side to size, center cropped.

    Of more than `limit` files, a subset that the seed and the names below the folder decide.
    Raises DataError where there are none, and for a broken one unless skip_broken.
    """
    base = texture_base(folder)
    paths = list_textures(folder)
    if len(paths) > limit:
        ranked = sorted(paths, key=lambda path: seeded_rank(path.relative_to(base).as_posix(), seed))
        paths = sorted(ranked[:limit])
    decoded, _, skipped = decode_paths(paths, size, crop=True, skip_broken=skip_broken, progress=progress)
    return Textures(decoded, skipped)


def texture_base(folder: Path) -> Path:
    """DTD's `images` where they lie in this folder (torchvision: dtd/dtd/images), else the folder itself."""
    candidates = (folder / inside / "images" for inside in ("", "dtd", "dtd/dtd"))
    return next((path for path in candidates if path.is_dir()), folder)
