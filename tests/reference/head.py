"""The head as published: features are concatenated on the finest grid, followed by two linear layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainHead(nn.Module):
    """A sequence of Linear(C, C) or nothing, Linear(C, hidden), BatchNorm, LeakyReLU(0.2), Linear(hidden, 1)."""

    def __init__(self, channels: Sequence[int], hidden_width: int, use_adaptor: bool = True) -> None:
        super().__init__()
        total = sum(channels)
        self.adaptor = nn.Linear(total, total) if use_adaptor else nn.Identity()
        self.hidden = nn.Linear(total, hidden_width)
        self.norm = nn.BatchNorm1d(hidden_width)
        self.output = nn.Linear(hidden_width, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Map feature maps (B, rows, columns, C), finest first, to logits (B, rows, columns)."""
        batch, rows, columns, _ = maps[0].shape
        joined = torch.cat([_at_grid(m, (rows, columns)) for m in maps], dim=-1)
        adapted = self.adaptor(joined.reshape(batch * rows * columns, -1))
        logits: Tensor = self.output(F.leaky_relu(self.norm(self.hidden(adapted)), 0.2))
        return logits.reshape(batch, rows, columns)


def _at_grid(features: Tensor, grid: tuple[int, int]) -> Tensor:
    first = F.interpolate(features.permute(0, 3, 1, 2), size=grid, mode="bilinear", align_corners=False)
    return first.permute(0, 2, 3, 1)
