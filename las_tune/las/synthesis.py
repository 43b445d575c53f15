"""Step III of LAS: blend augmented textures into good pictures. The whole of LAS for one batch is `synthesise`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from las_tune.las.augment import augment
from las_tune.las.masks import draw_masks
from las_tune.spec import TrainSpec


@dataclass(frozen=True)
class Synthesised:
    """Pictures with painted defects.

    pictures  (B, 3, S, S) float in [0, 1], RGB
    masks     (B, 1, S, S) bool, 1 = synthetic defect
    beta      (B,) float, share of the picture kept inside the mask
    """

    pictures: Tensor
    masks: Tensor
    beta: Tensor


def overlay(image: Tensor, texture: Tensor, mask: Tensor, beta: Tensor) -> Tensor:
    """Lay textures over pictures inside their masks (GLASS, arXiv:2407.09359, eq. 4).

    Args:
        image: (B, 3, H, W) float, defect-free.
        texture: (B, 3, H, W) float, in the same colour space as image.
        mask: (B, 1, H, W) float, 1 = synthetic defect.
        beta: (B,) float in [0, 1], share of the picture kept inside the mask.
    """
    beta = beta.view(-1, 1, 1, 1)
    return image * (1 - mask) + ((1 - beta) * texture + beta * image) * mask


def draw_beta(batch: int, spec: TrainSpec, generator: Generator) -> Tensor:
    """β ~ N(μ, σ²), clipped to [beta_min, beta_max]; (B,) float."""
    normal = torch.randn(batch, generator=generator, device=generator.device)
    return (spec.beta_mean + spec.beta_std * normal).clamp(spec.beta_min, spec.beta_max)


def synthesise(
    pictures: Tensor, foreground: Tensor, textures: Tensor, spec: TrainSpec, generator: Generator
) -> Synthesised:
    """Paint a defect onto each picture: steps I, II and III, on the device of the input.

    Args:
        pictures: (B, 3, S, S) uint8 RGB, defect-free.
        foreground: (B, 1, S, S) bool, 1 = part; ignored where spec.foreground is none.
        textures: (M, 3, S, S) uint8 RGB, the pool that textures are drawn from.
        spec: α, β, noise and foreground settings.
        generator: source of every draw, on the device of the pictures.
    """
    if spec.foreground == "none":
        foreground = torch.ones_like(foreground)
    masks = draw_masks(foreground, spec.alpha, spec.perlin_max_exponent, generator)
    choice = torch.randint(len(textures), (len(pictures),), generator=generator, device=pictures.device)
    texture = augment(textures[choice].float() / 255, generator)
    beta = draw_beta(len(pictures), spec, generator)
    painted = overlay(pictures.float() / 255, texture, masks.float(), beta)
    return Synthesised(painted, masks, beta)
