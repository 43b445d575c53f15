"""Textures for synthetic defects: any folder of images, or DTD in torchvision's layout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from las_tune.config import Progress
from las_tune.data.category import images_below
from las_tune.data.images import decode_paths
from las_tune.data.split import seeded_rank
from las_tune.errors import DataError, require


@dataclass(frozen=True)
class Textures:
    """Textures in memory."""

    images: npt.NDArray[np.uint8]
    """(M, 3, S, S) uint8, RGB."""
    skipped: tuple[str, ...]
    """One line per file that could not be read."""


def list_textures(folder: Path) -> list[Path]:
    """Return all images below a folder, sorted; for DTD only those in its `images` folder.

    Raises: DataError if there are none.
    """
    base = texture_base(folder)
    images = images_below(base)
    require(
        images,
        f"No images in --textures {folder.absolute()}{'' if folder.is_dir() else ' (no such folder)'}",
        remedy="Run `python -m las_tune data fetch dtd`, or pass any folder of images to --textures",
        error=DataError,
    )
    return images


def load_textures(
    folder: Path,
    size: int,
    seed: int,
    limit: int = 2000,
    skip_broken: bool = False,
    progress: Progress | None = None,
) -> Textures:
    """Decode textures to size × size pixels with their aspect ratio kept: shorter side to size, center crop.

    Args:
        folder: folder of images.
        size: side of the square in pixels.
        seed: random seed of the subset, which depends only on it and on the names below the folder.
        limit: maximum number of textures.
        skip_broken: leave out files that cannot be read.
        progress: called with the number of files read so far.

    Raises: DataError if there are no images, or if one is broken and skip_broken is not set.
    """
    base = texture_base(folder)
    paths = list_textures(folder)
    if len(paths) > limit:
        ranked = sorted(paths, key=lambda path: seeded_rank(path.relative_to(base).as_posix(), seed))
        paths = sorted(ranked[:limit])
    decoded, _, skipped = decode_paths(
        paths, size, crop=True, skip_broken=skip_broken, progress=progress, what="reading textures"
    )
    return Textures(decoded, skipped)


def texture_base(folder: Path) -> Path:
    """Return DTD's `images` folder if this folder contains it (torchvision: dtd/dtd/images), else the folder itself."""
    candidates = (folder / inside / "images" for inside in ("", "dtd", "dtd/dtd"))
    return next((path for path in candidates if path.is_dir()), folder)
