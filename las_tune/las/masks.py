"""Step I of LAS: masks of synthetic defects, with the foreground, the α rule and the labels on the feature grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from las_tune.las.perlin import draw_perlin, perlin_noise

NOISE_THRESHOLD = 0.5
"""A pixel is defective if the noise exceeds this value (the authors' code)."""
ATTEMPTS = 8
"""Number of noise draws per image. The first draw with a nonempty mask is used."""
COARSE_STEP_PX = 8
"""A mask counts as nonempty if it contains a pixel of this coarse grid."""
MIN_SEPARABILITY = 0.7
"""Otsu's η below which an image is not separated into two classes; a single Gaussian has 2/π ≈ 0.64."""


def otsu_foreground(images: Tensor) -> Tensor:
    """Separate parts from the background with Otsu's threshold (N. Otsu, 1979), image by image.

    The background is the class with most pixels on the border of the image. Images without two classes (separability
    η below 0.7, for example if the part fills the frame) are entirely foreground.

    Args:
        images: (B, 3, H, W) uint8 RGB, not normalized.

    Returns: (B, 1, H, W) bool, 1 = part.
    """
    luma = torch.tensor([0.299, 0.587, 0.114], device=images.device).view(1, 3, 1, 1)
    gray = (images * luma).sum(1, keepdim=True).round().long()
    threshold, separability = _otsu(gray)
    bright = gray > threshold.view(-1, 1, 1, 1)
    margin = max(1, gray.shape[-1] // 32)
    inner = torch.zeros_like(bright)
    inner[..., margin:-margin, margin:-margin] = True
    border_is_bright = (bright & ~inner).sum((1, 2, 3)) * 2 > (~inner).sum((1, 2, 3))
    part = bright ^ border_is_bright.view(-1, 1, 1, 1)
    return part | (separability < MIN_SEPARABILITY).view(-1, 1, 1, 1)


def _otsu(gray: Tensor) -> tuple[Tensor, Tensor]:
    """Return the threshold with the largest between-class variance, and its ratio to the total variance; each (B,)."""
    batch = gray.shape[0]
    offset = 256 * torch.arange(batch, device=gray.device).view(-1, 1)
    counts = torch.bincount((gray.flatten(1) + offset).flatten(), minlength=256 * batch).view(batch, 256).double()
    share = counts / counts.sum(1, keepdim=True)
    level = torch.arange(256, device=gray.device, dtype=torch.float64)
    weight = share.cumsum(1)
    partial_mean = (share * level).cumsum(1)
    mean = partial_mean[:, -1:]
    total = (share * (level - mean) ** 2).sum(1)
    between = (mean * weight - partial_mean) ** 2 / (weight * (1 - weight)).clamp_min(1e-12)
    best, threshold = between.max(1)
    return threshold, best / total.clamp_min(1e-12)


def combine_masks(m1: Tensor, m2: Tensor, p: Tensor, alpha: float) -> Tensor:
    """Combine two masks by GLASS eq. 3, without the foreground: m1 ∧ m2 if p ≤ α, m1 ∨ m2 if α < p ≤ 2α, else m1.

    Args:
        m1: (B, ...) bool, first mask.
        m2: (B, ...) bool, second mask, independent of the first.
        p: (B,) float, uniform in [0, 1].
        alpha: α in [0, 1/2].
    """
    p = p.view(-1, *[1] * (m1.ndim - 1))
    return torch.where(p <= alpha, m1 & m2, torch.where(p <= 2 * alpha, m1 | m2, m1))


def draw_masks(foreground: Tensor, alpha: float, max_exponent: int, generator: Generator) -> Tensor:
    """Draw defect masks by GLASS eq. 3: two Perlin masks per image, combined by the α rule, inside the foreground.

    p is drawn once per image, and only the noise is drawn again while a mask is empty, so that the probabilities α, α
    and 1 - 2α are exact. After ATTEMPTS draws the mask remains empty, for example if the foreground is empty.

    Args:
        foreground: (B, 1, S, S) bool, 1 = part.
        alpha: α in [0, 1/2].
        max_exponent: the noise has up to 2^max_exponent cells per side.
        generator: source of all random numbers.

    Returns: (B, 1, S, S) bool, 1 = synthetic defect.
    """
    batch, _, size, _ = foreground.shape
    p = torch.rand(batch, generator=generator, device=foreground.device)
    fields = draw_perlin(batch * ATTEMPTS * 2, max_exponent, generator)

    # All attempts are evaluated on a coarse grid, and the first nonempty one at every pixel, to avoid host
    # synchronization.
    coarse = perlin_noise(fields, size, COARSE_STEP_PX) > NOISE_THRESHOLD
    pairs = coarse.view(batch, ATTEMPTS, 2, *coarse.shape[1:])
    start = COARSE_STEP_PX // 2
    inside = foreground[:, :, start::COARSE_STEP_PX, start::COARSE_STEP_PX]
    candidates = combine_masks(pairs[:, :, 0], pairs[:, :, 1], p, alpha) & inside
    first = candidates.flatten(2).any(2).int().argmax(1)

    chosen = (torch.arange(batch, device=foreground.device) * ATTEMPTS + first) * 2
    m1 = perlin_noise(fields[chosen], size) > NOISE_THRESHOLD
    m2 = perlin_noise(fields[chosen + 1], size) > NOISE_THRESHOLD
    return combine_masks(m1, m2, p, alpha).unsqueeze(1) & foreground


def grid_labels(masks: Tensor, grid: tuple[int, int]) -> Tensor:
    """Return the labels of patches: a patch is defective if any pixel of its cell is (max-pooling).

    Args:
        masks: (B, 1, S, S) bool.
        grid: rows and columns of the finest feature map.

    Returns: (B, rows, columns) float, 1 = defective patch.
    """
    return F.adaptive_max_pool2d(masks.float(), grid).squeeze(1)
