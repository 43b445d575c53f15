"""A heat map drawn over its picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from las_tune.data.pictures import to_rgb

COLORMAP = "inferno"
LARGEST_SHARE = 0.6
"""Share of the colour where the heat map is 1; where it is 0, the picture is untouched."""
OUTLINE = (0, 255, 255)


def save_overlay(picture: Path, heat_map: NDArray[np.float32], threshold: float, file: Path) -> None:
    """Write the overlay of a picture that can be read, as a JPEG of the picture's own size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as image:
        rgb = np.asarray(to_rgb(image))
    Image.fromarray(overlay(rgb, heat_map, threshold)).save(file, "JPEG", quality=92, subsampling=0)


def overlay(picture: NDArray[np.uint8], heat_map: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Lay the heat map over the picture, outlined where it exceeds the threshold.

    Args:
        picture: (H, W, 3) uint8 RGB.
        heat_map: (S, S) in [0, 1], stretched to the picture's size.
        threshold: heat above which a picture is defective.

    Returns: (H, W, 3) uint8 RGB.
    """
    height, width = picture.shape[:2]
    stretched = Image.fromarray(heat_map).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(stretched).clip(0, 1)
    share = (LARGEST_SHARE * heat)[..., None]
    colours: NDArray[Any] = matplotlib.colormaps[COLORMAP](heat, bytes=True)[..., :3]
    laid = np.rint(picture * (1 - share) + colours * share).astype(np.uint8)
    hot = heat > threshold
    width_px = max(1, round(max(height, width) / 400))
    outside = ndimage.binary_dilation(hot, iterations=width_px) & ~hot
    laid[outside] = OUTLINE
    return laid
