"""An anomaly map drawn over its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from las_tune.data.images import to_rgb

COLORMAP = "inferno"
LARGEST_SHARE = 0.6
"""Share of the color where the anomaly map is 1; where it is 0, the image is untouched."""
OUTLINE = (0, 255, 255)


def save_overlay(path: Path, heat_map: NDArray[np.float32], threshold: float, file: Path) -> None:
    """Write the overlay of an image that can be read, as a JPEG of the image's own size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(path) as image:
        rgb = np.asarray(to_rgb(image))
    Image.fromarray(overlay(rgb, heat_map, threshold)).save(file, "JPEG", quality=92, subsampling=0)


def overlay(image: NDArray[np.uint8], heat_map: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Lay the anomaly map over the image, outlined where it exceeds the threshold.

    Args:
        image: (H, W, 3) uint8 RGB.
        heat_map: (S, S) in [0, 1], stretched to the image's size.
        threshold: heat above which an image is defective.

    Returns: (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    stretched = Image.fromarray(heat_map).resize((width, height), Image.Resampling.BILINEAR)
    heat = np.asarray(stretched).clip(0, 1)
    share = (LARGEST_SHARE * heat)[..., None]
    colors: NDArray[Any] = matplotlib.colormaps[COLORMAP](heat, bytes=True)[..., :3]
    laid = np.rint(image * (1 - share) + colors * share).astype(np.uint8)
    hot = heat > threshold
    width_px = max(1, round(max(height, width) / 400))
    outside = ndimage.binary_dilation(hot, iterations=width_px) & ~hot
    laid[outside] = OUTLINE
    return laid
