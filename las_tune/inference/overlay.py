"""Overlays: an anomaly map blended with its image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from las_tune.data import to_rgb, without_pillow_warnings

COLORMAP = "inferno"
MAX_OPACITY = 0.6
"""Opacity of the color where the anomaly map is 1; where it is 0, the image is unchanged."""
OUTLINE = (0, 255, 255)


def save_overlay(path: Path, anomaly_map: NDArray[np.float32], threshold: float, file: Path) -> None:
    """Write the overlay of a readable image as a JPEG of the size of the image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with without_pillow_warnings(), Image.open(path) as image:
        rgb = np.asarray(to_rgb(image))
    Image.fromarray(overlay(rgb, anomaly_map, threshold)).save(file, "JPEG", quality=92, subsampling=0)


def overlay(image: NDArray[np.uint8], anomaly_map: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Blend an anomaly map with its image, and outline the regions above the threshold.

    Args:
        image: (H, W, 3) uint8 RGB.
        anomaly_map: (S, S) in [0, 1]; resized to the size of the image.
        threshold: score above which an image is defective.

    Returns: (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    resized = np.asarray(Image.fromarray(anomaly_map).resize((width, height), Image.Resampling.BILINEAR)).clip(0, 1)
    opacity = (MAX_OPACITY * resized)[..., None]
    colors: NDArray[Any] = matplotlib.colormaps[COLORMAP](resized, bytes=True)[..., :3]
    blended = np.rint(image * (1 - opacity) + colors * opacity).astype(np.uint8)
    defective = resized > threshold
    width_px = max(1, round(max(height, width) / 400))
    outline = ndimage.binary_dilation(defective, iterations=width_px) & ~defective
    blended[outline] = OUTLINE
    return blended
