"""What the images of a trial are drawn from: one file of arrays, written by the worker beside its best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PANEL_NAME = "panel.npz"
FIXED, MISS, FALSE_REJECT = 0, 1, 2
"""Why an image is shown: it is in every trial's panel; it is bad and passes; it is good and is rejected."""


RENAMED = {"images": "pictures"}
"""Arrays by their names in files of version 0.1.0."""


@dataclass(frozen=True)
class Panel:
    """The images of a trial, at its best epoch. S is the side in pixels.

    painted        (P, 3, S, S) uint8 RGB good images with painted defects; the same images in every trial
    painted_masks  (P, S, S) bool, 1 = painted
    beta           (P,) float, share of the image kept inside the mask
    scores         (N,) float in [0, 1] of the validation images
    defects        (N,) int, 0 = good, k = the k-th kind of defect
    kinds          names of the kinds, good first
    normal_scores  (M,) float of the good calibration images
    threshold      () float, the score above which an image is called defective
    epoch          () int
    index          (K,) int, which of the N validation images are shown
    why            (K,) int, FIXED, MISS or FALSE_REJECT; the worst come first
    images       (K, 3, S, S) uint8 RGB, those shown
    masks          (K, S, S) bool, 1 = defective pixel; (0, S, S) where masks are missing
    heat           (K, S, S) uint8, anomaly maps · 255
    """

    painted: Array
    painted_masks: Array
    beta: Array
    scores: Array
    defects: Array
    kinds: Array
    normal_scores: Array
    threshold: Array
    epoch: Array
    index: Array
    why: Array
    images: Array
    masks: Array
    heat: Array

    def save(self, path: Path) -> None:
        """Write a .npz."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Panel:
        """Read what save wrote; no pickle is loaded."""
        with np.load(path, allow_pickle=False) as arrays:
            names = {field.name: field.name for field in fields(cls)}
            names |= {new: old for new, old in RENAMED.items() if old in arrays}
            return cls(**{field: arrays[name] for field, name in names.items()})
