"""The memory bank, patch by patch, with distances by definition and without projection."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tests.reference.augment import bilinear

Floats = NDArray[np.float64]


def distance(a: Floats, b: Floats) -> float:
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a.tolist(), b.tolist(), strict=True)))


def greedy_coreset(points: Floats, num_chosen: int, first: int) -> list[int]:
    """Repeatedly choose the point whose nearest chosen point is farthest."""
    chosen = [first]
    while len(chosen) < min(num_chosen, len(points)):
        remaining = [index for index in range(len(points)) if index not in chosen]
        chosen.append(max(remaining, key=lambda index: min(distance(points[index], points[c]) for c in chosen)))
    return chosen


def patch_vectors(maps: Sequence[Floats]) -> Floats:
    """Sample the maps (rows, columns, C) of an image, finest first, at the centers of the finest grid."""
    rows, columns = maps[0].shape[:2]
    joined = np.zeros((rows, columns, sum(m.shape[2] for m in maps)))
    for row in range(rows):
        for column in range(columns):
            parts = []
            for features in maps:
                y = (row + 0.5) * features.shape[0] / rows - 0.5
                x = (column + 0.5) * features.shape[1] / columns - 0.5
                parts.append(bilinear(features.transpose(2, 0, 1), y, x))
            joined[row, column] = np.concatenate(parts)
    return joined


def patch_scores(bank: Floats, maps: Sequence[Floats]) -> Floats:
    """Return the distance of each patch of an image to the nearest row of the bank: (rows, columns)."""
    patches = patch_vectors(maps)
    scores = np.zeros(patches.shape[:2])
    for row, column in np.ndindex(scores.shape):
        scores[row, column] = min(distance(patches[row, column], member) for member in bank)
    return scores
