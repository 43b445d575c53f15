"""Augmentations of one image (3, H, W), pixel by pixel."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def mirrored(position: float, length: int) -> float:
    """Mirror a pixel position at the outer edges of the first and the last pixel."""
    while not -0.5 <= position <= length - 0.5:
        position = -1 - position if position < -0.5 else 2 * length - 1 - position
    return position


def bilinear(image: Floats, y: float, x: float) -> Floats:
    """Return the interpolated color; beyond the outermost pixel centers, the color of the edge."""
    height, width = image.shape[1:]
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    dy, dx = y - top, x - left
    upper = image[:, top, left] * (1 - dx) + image[:, top, left + 1] * dx
    lower = image[:, top + 1, left] * (1 - dx) + image[:, top + 1, left + 1] * dx
    color: Floats = upper * (1 - dy) + lower * dy
    return color


def affine(image: Floats, angle: float, scale: float, shift: tuple[float, float], flip: tuple[bool, bool]) -> Floats:
    """Rotate, scale, flip and shift (y first) a square image by sampling the source of each pixel."""
    size = image.shape[1]
    result = np.zeros_like(image)
    for row in range(size):
        for column in range(size):
            y, x = (row + 0.5) / size - 0.5, (column + 0.5) / size - 0.5
            source_y = (math.sin(angle) * x + math.cos(angle) * y) / scale
            source_x = (math.cos(angle) * x - math.sin(angle) * y) / scale
            source_y = (-source_y if flip[0] else source_y) + shift[0]
            source_x = (-source_x if flip[1] else source_x) + shift[1]
            from_y = mirrored((source_y + 0.5) * size - 0.5, size)
            from_x = mirrored((source_x + 0.5) * size - 0.5, size)
            result[:, row, column] = bilinear(image, from_y, from_x)
    return result


def hue_matrix(turns: float) -> Floats:
    """Return the rotation about the gray axis (1, 1, 1) / √3 by Rodrigues' formula."""
    theta = 2 * math.pi * turns
    cross = np.array([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return math.cos(theta) * np.eye(3) + math.sin(theta) * cross + (1 - math.cos(theta)) / 3 * np.ones((3, 3))


def gray(color: Floats) -> float:
    return float(0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2])


def color_jitter(image: Floats, brightness: float, contrast: float, saturation: float, hue: float) -> Floats:
    """Scale brightness, then contrast about the mean gray, then saturation and hue about the gray of each pixel."""
    _, height, width = image.shape
    image = np.clip(image * brightness, 0, 1)
    mean = np.mean([gray(image[:, y, x]) for y in range(height) for x in range(width)])
    image = np.clip(mean + contrast * (image - mean), 0, 1)
    result = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            color = image[:, y, x]
            chroma = saturation * (color - gray(color))
            result[:, y, x] = gray(color) + hue_matrix(hue) @ chroma
    return np.clip(result, 0, 1)


def auto_contrast(image: Floats) -> Floats:
    """Stretch every channel to [0, 1]; flat channels are unchanged."""
    result = image.copy()
    for channel in result:
        low, high = channel.min(), channel.max()
        if high > low:
            channel[...] = (channel - low) / (high - low)
    return result


def sharpen(image: Floats, factor: float) -> Floats:
    """Extrapolate from the 3×3 smoothing with a center weight of 5 (edges repeated) to the image and beyond."""
    _, height, width = image.shape
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            smooth = np.zeros(3)
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    y, x = min(max(row + dy, 0), height - 1), min(max(column + dx, 0), width - 1)
                    smooth += image[:, y, x] * (5 if dy == dx == 0 else 1) / 13
            result[:, row, column] = smooth + factor * (image[:, row, column] - smooth)
    return np.clip(result, 0, 1)
