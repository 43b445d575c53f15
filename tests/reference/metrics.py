"""AUPRO by definition: every threshold, every region, trapezoids (Bergmann et al., IJCV 2021)."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Pixel = tuple[int, int, int]


def regions(masks: NDArray[np.bool_]) -> list[list[Pixel]]:
    """Group the defective pixels of N masks (N, S, S) into regions, with 8-connectivity."""
    remaining = {(int(n), int(y), int(x)) for n, y, x in np.argwhere(masks)}
    found = []
    while remaining:
        region = [remaining.pop()]
        for n, y, x in region:  # grows during the loop
            for neighbor in [(n, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if neighbor in remaining:
                    remaining.remove(neighbor)
                    region.append(neighbor)
        found.append(region)
    return found


def pro_curve(maps: NDArray[np.float64], masks: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Return points (false positive rate, mean overlap of the regions) in order of decreasing threshold."""
    defects = regions(masks)
    negatives = maps[~masks]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        overlaps = [np.mean([maps[pixel] >= threshold for pixel in region]) for region in defects]
        points.append((float(np.mean(negatives >= threshold)), float(np.mean(overlaps))))
    return points


def area_up_to(points: list[tuple[float, float]], limit: float) -> float:
    """Return the area under a curve up to a limit, divided by the limit; the last trapezoid is interpolated."""
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def aupro(maps: NDArray[np.float64], masks: NDArray[np.bool_], limit: float = 0.3) -> float:
    return area_up_to(pro_curve(maps, masks), limit)
