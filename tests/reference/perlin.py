"""Perlin noise, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def fade(t: float) -> float:
    return 6 * t**5 - 15 * t**4 + 10 * t**3


def sample_point(row: int, column: int, size: int, cells: Floats, angle: float) -> tuple[float, float]:
    """Return the center of a pixel, rotated about the center of the image, in units of cells: y and x."""
    y, x = (row + 0.5) / size - 0.5, (column + 0.5) / size - 0.5
    turned_y = math.cos(angle) * y - math.sin(angle) * x
    turned_x = math.sin(angle) * y + math.cos(angle) * x
    return (turned_y + 0.5) * float(cells[0]), (turned_x + 0.5) * float(cells[1])


def noise_at(y: float, x: float, gradients: Floats) -> float:
    """Return the noise at a point of a periodic lattice of unit gradients (L, L, 2), scaled to [-1, 1]."""
    side = len(gradients)
    top, left = math.floor(y), math.floor(x)
    total = 0.0
    for corner_y in (top, top + 1):
        for corner_x in (left, left + 1):
            gradient = gradients[corner_y % side, corner_x % side]
            along = float(gradient[0]) * (y - corner_y) + float(gradient[1]) * (x - corner_x)
            total += along * fade(1 - abs(y - corner_y)) * fade(1 - abs(x - corner_x))
    return math.sqrt(2) * total


def perlin_field(gradients: Floats, cells: Floats, angle: float, size: int) -> Floats:
    """Return the noise of a field at every pixel: (size, size)."""
    noise = np.zeros((size, size))
    for row in range(size):
        for column in range(size):
            noise[row, column] = noise_at(*sample_point(row, column, size, cells, angle), gradients)
    return noise
