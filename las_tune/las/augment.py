"""Step II of LAS: texture augmentation with three of nine augmentations per sample, batched and without host
synchronization.

No library draws parameters per sample from a given generator: torchvision's v2 uses one parameter per batch, kornia the
global generator. Here every sample has its own parameters, and augmentations that a sample did not draw get neutral
parameters. The five geometric augmentations are combined into one affine map and one resampling.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

AUGMENTATIONS = (
    "color_jitter", "gaussian_blur", "rotation", "horizontal_flip", "vertical_flip",
    "translation", "scaling", "sharpness", "auto_contrast",
)  # fmt: skip
NUM_AUGMENTATIONS = 3
LUMA = (0.299, 0.587, 0.114)
BLUR_RADIUS_PX = 6


def augment(textures: Tensor, generator: Generator) -> Tensor:
    """Apply three of the nine augmentations, drawn without replacement, to each texture.

    Order: geometry, color jitter, auto-contrast, blur, sharpness.

    Args:
        textures: (B, 3, H, W) float in [0, 1].
        generator: source of all random numbers, on the same device.

    Returns: (B, 3, H, W) float in [0, 1].
    """
    order = torch.rand(len(textures), len(AUGMENTATIONS), generator=generator, device=textures.device).argsort(1)
    drawn = torch.zeros_like(order, dtype=torch.bool).scatter(1, order[:, :NUM_AUGMENTATIONS], True)
    return apply_augmentations(textures, drawn, generator)


def apply_augmentations(textures: Tensor, drawn: Tensor, generator: Generator) -> Tensor:
    """Apply a given set of augmentations to each sample.

    Args:
        textures: (B, 3, H, W) float in [0, 1].
        drawn: (B, 9) bool, 1 = apply; columns as in AUGMENTATIONS.
        generator: source of the random parameters, on the same device.

    Returns: (B, 3, H, W) float in [0, 1].
    """
    on = dict(zip(AUGMENTATIONS, drawn.unbind(1), strict=True))

    def uniform(low: float, high: float, name: str, neutral: float) -> Tensor:
        value = low + (high - low) * torch.rand(len(textures), generator=generator, device=textures.device)
        return torch.where(on[name], value, neutral)

    textures = _affine(
        textures,
        angle=uniform(-math.pi / 4, math.pi / 4, "rotation", 0.0),
        scale=uniform(0.8, 1.25, "scaling", 1.0),
        shift_y=uniform(-0.25, 0.25, "translation", 0.0),
        shift_x=uniform(-0.25, 0.25, "translation", 0.0),
        flip_y=on["vertical_flip"],
        flip_x=on["horizontal_flip"],
    )
    textures = _color_jitter(
        textures,
        brightness=uniform(0.6, 1.4, "color_jitter", 1.0),
        contrast=uniform(0.6, 1.4, "color_jitter", 1.0),
        saturation=uniform(0.6, 1.4, "color_jitter", 1.0),
        hue=uniform(-0.5, 0.5, "color_jitter", 0.0),
    )
    textures = torch.where(_per_sample(on["auto_contrast"]), _auto_contrast(textures), textures)
    textures = _gaussian_blur(textures, sigma=uniform(0.3, 2.0, "gaussian_blur", 0.0))
    return _sharpen(textures, factor=uniform(0.0, 3.0, "sharpness", 1.0))


def _per_sample(values: Tensor) -> Tensor:
    """Reshape (B,) to (B, 1, 1, 1)."""
    return values.view(-1, 1, 1, 1)


def _affine(
    textures: Tensor,
    angle: Tensor,
    scale: Tensor,
    shift_y: Tensor,
    shift_x: Tensor,
    flip_y: Tensor,
    flip_x: Tensor,
) -> Tensor:
    """Rotate (radians), scale, shift (fractions of a side) and flip. Pixels outside the texture are mirrored."""
    sign_y, sign_x = 1 - 2 * flip_y.float(), 1 - 2 * flip_x.float()
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [cos * sign_x, -sin * sign_x, 2 * shift_x, sin * sign_y, cos * sign_y, 2 * shift_y]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(textures.shape), align_corners=False)
    return F.grid_sample(textures, grid, mode="bilinear", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _gray(textures: Tensor) -> Tensor:
    return (textures * torch.tensor(LUMA, device=textures.device).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _color_jitter(textures: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor) -> Tensor:
    """Scale brightness, contrast and saturation by factors, and rotate the hue by a fraction of a full turn."""
    textures = (textures * _per_sample(brightness)).clamp(0, 1)
    mean = _gray(textures).mean((2, 3), keepdim=True)
    textures = torch.lerp(mean.expand_as(textures), textures, _per_sample(contrast)).clamp(0, 1)
    gray = _gray(textures)
    chroma = (textures - gray) * _per_sample(saturation)
    # Rodrigues' rotation of the chroma about the gray axis (1, 1, 1) / √3.
    cos, sin = _per_sample((2 * math.pi * hue).cos()), _per_sample((2 * math.pi * hue).sin())
    along = chroma.mean(1, keepdim=True)
    across = (chroma.roll(1, 1) - chroma.roll(-1, 1)) / math.sqrt(3)
    return (gray + chroma * cos + across * sin + along * (1 - cos)).clamp(0, 1)


def _auto_contrast(textures: Tensor) -> Tensor:
    """Stretch each channel to [0, 1]. A channel with a range below half an 8-bit step is left unchanged."""
    low, high = textures.amin((2, 3), keepdim=True), textures.amax((2, 3), keepdim=True)
    span = high - low
    return torch.where(span > 0.5 / 255, (textures - low) / span.clamp_min(0.5 / 255), textures)


def _gaussian_blur(textures: Tensor, sigma: Tensor) -> Tensor:
    """Blur each sample with a separable Gaussian of width sigma (B,) in pixels; 0 leaves a sample unchanged."""
    batch, channels, height, width = textures.shape
    distance = torch.arange(-BLUR_RADIUS_PX, BLUR_RADIUS_PX + 1, device=textures.device)
    kernel = torch.exp(-0.5 * (distance / sigma.clamp_min(1e-3).view(-1, 1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)
    flat = textures.reshape(1, batch * channels, height, width)
    radius = BLUR_RADIUS_PX
    flat = F.pad(flat, (radius, radius, radius, radius), mode="replicate")
    flat = F.conv2d(flat, kernel.view(-1, 1, 1, 2 * radius + 1), groups=batch * channels)
    flat = F.conv2d(flat, kernel.view(-1, 1, 2 * radius + 1, 1), groups=batch * channels)
    return flat.view(batch, channels, height, width)


def _sharpen(textures: Tensor, factor: Tensor) -> Tensor:
    """Blend each sample with a smoothed copy by a factor (B,): 0 smooths, 1 leaves it unchanged, above 1 sharpens."""
    kernel = torch.tensor([[1.0, 1, 1], [1, 5, 1], [1, 1, 1]], device=textures.device) / 13
    padded = F.pad(textures, (1, 1, 1, 1), mode="replicate")
    smooth = F.conv2d(padded, kernel.expand(3, 1, 3, 3), groups=3)
    return torch.lerp(smooth, textures, _per_sample(factor)).clamp(0, 1)
