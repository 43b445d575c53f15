"""AUPRO as its definition says: every threshold, every region, trapezoids (Bergmann et al., IJCV 2021)."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Pixel = tuple[int, int, int]


def regions(masks: NDArray[np.bool_]) -> list[list[Pixel]]:
    """Defective pixels of N masks (N, S, S), grouped: neighbors also touch at corners."""
    left = {(int(n), int(y), int(x)) for n, y, x in np.argwhere(masks)}
    found = []
    while left:
        region = [left.pop()]
        for n, y, x in region:  # grows while it is walked
            for neighbor in [(n, y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if neighbor in left:
                    left.remove(neighbor)
                    region.append(neighbor)
        found.append(region)
    return found


def pro_curve(heat: NDArray[np.float64], masks: NDArray[np.bool_]) -> list[tuple[float, float]]:
    """Points (false positive rate, mean share of a region found) from the highest threshold down."""
    found = regions(masks)
    negatives = heat[~masks]
    points = [(0.0, 0.0)]
    for threshold in sorted(set(heat.ravel().tolist()), reverse=True):
        overlaps = [np.mean([heat[pixel] >= threshold for pixel in region]) for region in found]
        points.append((float(np.mean(negatives >= threshold)), float(np.mean(overlaps))))
    return points


def area_up_to(points: list[tuple[float, float]], limit: float) -> float:
    """Trapezoids under a curve, cut at limit by interpolation, over limit."""
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def aupro(heat: NDArray[np.float64], masks: NDArray[np.bool_], limit: float = 0.3) -> float:
    return area_up_to(pro_curve(heat, masks), limit)
