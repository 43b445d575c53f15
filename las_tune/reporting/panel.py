"""Arrays that the image panel of a trial is drawn from: one file, which the worker stores with its best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PANEL_NAME = "panel.npz"
FIXED, MISS, FALSE_REJECT = 0, 1, 2
"""Reason for showing an image: it is in the panel of every trial; or it is a worst miss; or a worst false reject."""

RENAMED = {
    "synthetic": "painted",
    "synthetic_masks": "painted_masks",
    "defect_types": "kinds",
    "reasons": "why",
    "images": "pictures",
    "anomaly_maps": "heat",
}
"""Names of arrays in files of version 0.1.0, by their present name."""


@dataclass(frozen=True)
class Panel:
    """Images of a trial at its best epoch. S is the image size in pixels.

    synthetic        (P, 3, S, S) uint8 RGB, good images with synthetic defects; the same images in every trial
    synthetic_masks  (P, S, S) bool, 1 = synthetic defect
    beta             (P,) float, share of the image kept inside the mask
    scores           (N,) float in [0, 1], scores of the validation images
    defects          (N,) int, index into defect_types; 0 = good
    defect_types     names, "good" first
    normal_scores    (M,) float, scores of the good calibration images
    threshold        () float, the score above which an image is classified as defective
    epoch            () int
    index            (K,) int, indices of the validation images that are shown
    reasons          (K,) int, FIXED, MISS or FALSE_REJECT; the worst images come first
    images           (K, 3, S, S) uint8 RGB, the images that are shown
    masks            (K, S, S) bool, 1 = defective pixel; (0, S, S) where masks are missing
    anomaly_maps     (K, S, S) uint8, anomaly maps in [0, 1] times 255
    """

    synthetic: Array
    synthetic_masks: Array
    beta: Array
    scores: Array
    defects: Array
    defect_types: Array
    normal_scores: Array
    threshold: Array
    epoch: Array
    index: Array
    reasons: Array
    images: Array
    masks: Array
    anomaly_maps: Array

    def save(self, path: Path) -> None:
        """Write the arrays as .npz."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Panel:
        """Read a file that `save` wrote, of this version or 0.1.0. Pickled objects are not loaded."""
        with np.load(path, allow_pickle=False) as arrays:
            names = {field.name: field.name for field in fields(cls)}
            names |= {new: old for new, old in RENAMED.items() if old in arrays}
            return cls(**{field: arrays[name] for field, name in names.items()})
