"""What the pictures of a trial are drawn from: one file of arrays, written by the worker beside its best checkpoint."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
PANEL_NAME = "panel.npz"
FIXED, MISS, FALSE_REJECT = 0, 1, 2
"""Why a picture is shown: it is in every trial's panel; it is bad and passes; it is good and is rejected."""


@dataclass(frozen=True)
class Panel:
    """The pictures of a trial, at its best epoch. S is the side in pixels.

    painted        (P, 3, S, S) uint8 RGB good pictures with painted defects; the same pictures in every trial
    painted_masks  (P, S, S) bool, 1 = painted
    beta           (P,) float, share of the picture kept inside the mask
    scores         (N,) float in [0, 1] of the validation pictures
    defects        (N,) int, 0 = good, k = the k-th kind of defect
    kinds          names of the kinds, good first
    normal_scores  (M,) float of the good calibration pictures
    threshold      () float, the score above which a picture is called defective
    epoch          () int
    index          (K,) int, which of the N validation pictures are shown
    why            (K,) int, FIXED, MISS or FALSE_REJECT; the worst come first
    pictures       (K, 3, S, S) uint8 RGB, those shown
    masks          (K, S, S) bool, 1 = defective pixel; (0, S, S) where masks are missing
    heat           (K, S, S) uint8, heat maps · 255
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
    pictures: Array
    masks: Array
    heat: Array

    def save(self, path: Path) -> None:
        """Write a .npz."""
        np.savez(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Panel:
        """Read what save wrote; no pickle is loaded."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})
