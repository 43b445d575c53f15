"""Foreground and labels, pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


def luma(image: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the rounded luma (H, W) of an image (3, H, W) uint8."""
    weights = np.array([0.299, 0.587, 0.114], np.float32)[:, None, None]
    rounded: NDArray[np.int64] = np.rint((image * weights).sum(0)).astype(np.int64)
    return rounded


def otsu(gray: NDArray[np.int64]) -> tuple[int, float]:
    """Return the threshold of greatest between-class variance by exhaustive search, and its share of the variance."""
    values = gray.ravel().astype(np.float64)
    best, best_between = 0, 0.0
    for threshold in range(256):
        low, high = values[values <= threshold], values[values > threshold]
        if len(low) and len(high):
            between = len(low) * len(high) / len(values) ** 2 * (low.mean() - high.mean()) ** 2
            if between > best_between:
                best, best_between = threshold, float(between)
    variance = float(values.var())
    return best, best_between / variance if variance else 0.0


def foreground(image: NDArray[np.uint8]) -> Bools:
    """Return the class (H, W) that covers less of the border, or everything if there are no two classes."""
    gray = luma(image)
    threshold, separability = otsu(gray)
    if separability < 0.7:
        return np.ones(gray.shape, bool)
    height, width = gray.shape
    margin = max(1, width // 32)
    bright_on_border = pixels_on_border = 0
    for row in range(height):
        for column in range(width):
            if min(row, height - 1 - row, column, width - 1 - column) < margin:
                pixels_on_border += 1
                bright_on_border += int(gray[row, column] > threshold)
    bright = gray > threshold
    return ~bright if bright_on_border > pixels_on_border / 2 else bright


def grid_labels(mask: Bools, rows: int, columns: int) -> NDArray[np.float64]:
    """Return (rows, columns) labels: 1 where any pixel that touches the cell of the patch is defective."""
    height, width = mask.shape
    labels = np.zeros((rows, columns))
    for row in range(rows):
        for column in range(columns):
            for y in range(math.floor(row * height / rows), math.ceil((row + 1) * height / rows)):
                for x in range(math.floor(column * width / columns), math.ceil((column + 1) * width / columns)):
                    if mask[y, x]:
                        labels[row, column] = 1
    return labels
