"""Frozen features: what the head sees of a picture. Computed once for every picture that is not synthesised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from las_tune.las.backbone import Backbone

NEIGHBOURHOOD_PX = 3
"""Each patch is averaged with its neighbours, 3×3 (PatchCore, arXiv:2106.08265, as GLASS uses it)."""


def extract_features(backbone: Backbone, pictures: Tensor) -> list[Tensor]:
    """Feature maps, each patch averaged with its 3×3 neighbours inside the picture.

    On a GPU the network runs under bfloat16 autocast (float32 accumulation).

    Args:
        backbone: the frozen network.
        pictures: (B, 3, S, S) float in [0, 1], RGB.

    Returns: maps (B, rows, columns, C), finest first, float32.
    """
    with torch.no_grad(), torch.autocast(pictures.device.type, torch.bfloat16, enabled=pictures.is_cuda):
        maps = backbone(pictures)
    return [_neighbourhood_average(m.float()) for m in maps]


def _neighbourhood_average(features: Tensor) -> Tensor:
    pooled = F.avg_pool2d(features.permute(0, 3, 1, 2), NEIGHBOURHOOD_PX, stride=1, padding=1, count_include_pad=False)
    return pooled.permute(0, 2, 3, 1)


def store_features(
    backbone: Backbone,
    pictures: Tensor,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[Tensor]:
    """Features of many pictures, on the device of the backbone.

    Args:
        backbone: the frozen network.
        pictures: (N, 3, S, S) uint8 RGB.
        dtype: float32, float16 or bfloat16, what the store holds.
        batch_size: pictures a pass.
        progress: called with (done, total).

    Returns: maps (N, rows, columns, C), finest first, in dtype.
    """
    device = backbone.mean.device
    batches: list[list[Tensor]] = []
    for start in range(0, len(pictures), batch_size):
        batch = pictures[start : start + batch_size].to(device).float() / 255
        batches.append([m.to(dtype) for m in extract_features(backbone, batch)])
        if progress:
            progress(min(start + batch_size, len(pictures)), len(pictures))
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]


@dataclass(frozen=True)
class FeatureStore:
    """Features of N pictures: held, or computed again whenever they are asked for.

    pictures  (N, 3, S, S) uint8 RGB
    maps      (N, rows, columns, C) each, finest first, float32, float16 or bfloat16; None: computed again
    backbone  the frozen network, on the device of the pictures
    """

    pictures: Tensor
    maps: list[Tensor] | None
    backbone: Backbone

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, index: Tensor | slice) -> list[Tensor]:
        """The maps of some pictures, as float32."""
        if self.maps is None:
            return extract_features(self.backbone, self.pictures[index].float() / 255)
        return [m[index].float() for m in self.maps]


def bytes_per_picture(backbone: Backbone, size: int, dtype: torch.dtype) -> int:
    """What the store holds of one picture of this side in pixels."""
    blank = torch.zeros(1, 3, size, size, device=backbone.mean.device)
    return sum(m.numel() for m in extract_features(backbone, blank)) * dtype.itemsize
