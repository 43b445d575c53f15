"""Step III of LAS: blend augmented textures into good images. `synthesize` runs steps I to III for one batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from las_tune.config import TrainSpec
from las_tune.las.augment import augment
from las_tune.las.masks import draw_masks


@dataclass(frozen=True)
class Synthesized:
    """Images with synthetic defects.

    images  (B, 3, S, S) float in [0, 1], RGB
    masks   (B, 1, S, S) bool, 1 = synthetic defect
    beta    (B,) float, fraction of the image kept inside the mask
    """

    images: Tensor
    masks: Tensor
    beta: Tensor


def overlay(image: Tensor, texture: Tensor, mask: Tensor, beta: Tensor) -> Tensor:
    """Blend textures into images inside the masks (GLASS, arXiv:2407.09359, eq. 4).

    Args:
        image: (B, 3, H, W) float, defect-free.
        texture: (B, 3, H, W) float, in the same color space as image.
        mask: (B, 1, H, W) float, 1 = synthetic defect.
        beta: (B,) float in [0, 1], fraction of the image kept inside the mask.
    """
    beta = beta.view(-1, 1, 1, 1)
    return image * (1 - mask) + ((1 - beta) * texture + beta * image) * mask


def draw_beta(batch: int, spec: TrainSpec, generator: Generator) -> Tensor:
    """Draw β ~ N(μ, σ²), clipped to [beta_min, beta_max]; (B,) float."""
    normal = torch.randn(batch, generator=generator, device=generator.device)
    return (spec.beta_mean + spec.beta_std * normal).clamp(spec.beta_min, spec.beta_max)


def synthesize(
    images: Tensor, foreground: Tensor, textures: Tensor, spec: TrainSpec, generator: Generator
) -> Synthesized:
    """Add a synthetic defect to each image by steps I, II and III, on the device of the input.

    Args:
        images: (B, 3, S, S) uint8 RGB, defect-free.
        foreground: (B, 1, S, S) bool, 1 = part; ignored if spec.foreground is none.
        textures: (M, 3, S, S) uint8 RGB, the pool of textures.
        spec: α, β, noise and foreground settings.
        generator: source of all random numbers, on the device of the images.
    """
    if spec.foreground == "none":
        foreground = torch.ones_like(foreground)
    masks = draw_masks(foreground, spec.alpha, spec.perlin_max_exponent, generator)
    choice = torch.randint(len(textures), (len(images),), generator=generator, device=images.device)
    texture = augment(textures[choice].float() / 255, generator)
    beta = draw_beta(len(images), spec, generator)
    blended = overlay(images.float() / 255, texture, masks.float(), beta)
    return Synthesized(blended, masks, beta)
