"""Batched Perlin noise, with frequencies, rotation and gradients per sample.

Ken Perlin, "Improving Noise", SIGGRAPH 2002. Frequencies and rotation are drawn as in GLASS (arXiv:2407.09359).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor


@dataclass(frozen=True)
class PerlinFields:
    """Random parameters of B noise fields over the unit square.

    gradients  (B, L, L, 2) float, unit vectors on a lattice with period L
    cells      (B, 2) float, cells along y and x
    angle      (B,) float, rotation of the field in radians, in [-π/2, π/2]
    """

    gradients: Tensor
    cells: Tensor
    angle: Tensor

    def __getitem__(self, index: Tensor) -> PerlinFields:
        return PerlinFields(self.gradients[index], self.cells[index], self.angle[index])


def draw_perlin(batch: int, max_exponent: int, generator: Generator) -> PerlinFields:
    """Draw fields with 2^k cells along each axis, k uniform in 0..max_exponent, rotated by -90..90 degrees.

    The lattice has twice the cells of the highest frequency, so that no rotated field contains a repetition.
    """
    device = generator.device
    side = 2 ** (max_exponent + 1)
    direction = 2 * math.pi * torch.rand(batch, side, side, generator=generator, device=device)
    exponent = torch.randint(0, max_exponent + 1, (batch, 2), generator=generator, device=device)
    angle = math.pi * (torch.rand(batch, generator=generator, device=device) - 0.5)
    gradients = torch.stack([direction.cos(), direction.sin()], dim=-1)
    return PerlinFields(gradients, torch.exp2(exponent.float()), angle)


def perlin_noise(fields: PerlinFields, size: int, step: int = 1) -> Tensor:
    """Evaluate noise fields at the centers of pixels.

    Args:
        fields: B fields.
        size: side of the image in pixels.
        step: evaluate only every step-th pixel, starting at pixel step // 2.

    Returns: (B, S, S) float in [-1, 1], S = number of pixels step // 2, step // 2 + step, ... below size.
    """
    ys, xs = _sample_points(fields, size, step)
    corner_y, corner_x = ys.floor(), xs.floor()
    offset_y, offset_x = ys - corner_y, xs - corner_x
    row, column = corner_y.long(), corner_x.long()

    def corner(dy: int, dx: int) -> Tensor:
        """Return the dot product of the gradient at a corner of the cell and the offset from that corner."""
        side = fields.gradients.shape[1]
        index = ((row + dy) % side * side + (column + dx) % side).flatten(1)
        table = fields.gradients.flatten(1, 2)
        gradient_y = table[..., 0].gather(1, index).view_as(ys)
        gradient_x = table[..., 1].gather(1, index).view_as(ys)
        return gradient_y * (offset_y - dy) + gradient_x * (offset_x - dx)

    weight_y, weight_x = _fade(offset_y), _fade(offset_x)
    top = torch.lerp(corner(0, 0), corner(0, 1), weight_x)
    bottom = torch.lerp(corner(1, 0), corner(1, 1), weight_x)
    return math.sqrt(2) * torch.lerp(top, bottom, weight_y)  # with unit gradients the range is ±1/√2


def _sample_points(fields: PerlinFields, size: int, step: int) -> tuple[Tensor, Tensor]:
    """Return the pixel centers in cells, rotated about the center of the image: y and x, each (B, S, S)."""
    centers = (torch.arange(step // 2, size, step, device=fields.angle.device) + 0.5) / size - 0.5
    y, x = centers.view(1, -1, 1), centers.view(1, 1, -1)
    cos, sin = fields.angle.cos().view(-1, 1, 1), fields.angle.sin().view(-1, 1, 1)
    cells_y, cells_x = fields.cells.view(-1, 2, 1, 1).unbind(1)
    return (cos * y - sin * x + 0.5) * cells_y, (sin * y + cos * x + 0.5) * cells_x


def _fade(t: Tensor) -> Tensor:
    """Return 6t⁵ - 15t⁴ + 10t³ (Perlin 2002)."""
    return t * t * t * (t * (t * 6 - 15) + 10)
