"""Frozen features, the input of the head. They are computed once per image, except for synthesized images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from las_tune.config import Progress
from las_tune.las.backbone import Backbone

NEIGHBORHOOD_PX = 3
"""Side of the neighborhood over which each patch is averaged (PatchCore, arXiv:2106.08265, as in GLASS)."""


def extract_features(backbone: Backbone, images: Tensor) -> list[Tensor]:
    """Compute feature maps in which each patch is averaged with its 3×3 neighbors inside the image.

    On a GPU the network runs under bfloat16 autocast (float32 accumulation).

    Args:
        backbone: the frozen network.
        images: (B, 3, S, S) float in [0, 1], RGB.

    Returns: maps (B, rows, columns, C), finest first, float32.
    """
    with torch.no_grad(), torch.autocast(images.device.type, torch.bfloat16, enabled=images.is_cuda):
        maps = backbone(images)
    return [_neighborhood_average(m.float()) for m in maps]


def _neighborhood_average(features: Tensor) -> Tensor:
    pooled = F.avg_pool2d(features.permute(0, 3, 1, 2), NEIGHBORHOOD_PX, stride=1, padding=1, count_include_pad=False)
    return pooled.permute(0, 2, 3, 1)


def store_features(
    backbone: Backbone,
    images: Tensor,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 8,
    progress: Progress | None = None,
    what: str = "features",
) -> list[Tensor]:
    """Compute the features of many images, on the device of the backbone.

    Args:
        backbone: the frozen network.
        images: (N, 3, S, S) uint8 RGB.
        dtype: float32, float16 or bfloat16, the type of the stored features.
        batch_size: images per forward pass.
        progress: called with `what` and the number of images processed so far.
        what: description for `progress`.

    Returns: maps (N, rows, columns, C), finest first, in dtype.
    """
    device = backbone.mean.device
    batches: list[list[Tensor]] = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size].to(device).float() / 255
        batches.append([m.to(dtype) for m in extract_features(backbone, batch)])
        if progress:
            progress(what, min(start + batch_size, len(images)), len(images))
    return [torch.cat(maps) for maps in zip(*batches, strict=True)]


@dataclass(frozen=True)
class FeatureStore:
    """Features of N images, either stored or computed on every access.

    images    (N, 3, S, S) uint8 RGB
    maps      (N, rows, columns, C) each, finest first, float32, float16 or bfloat16; None if computed on access
    backbone  the frozen network, on the device of the images
    """

    images: Tensor
    maps: list[Tensor] | None
    backbone: Backbone

    def __len__(self) -> int:
        return len(self.images)

    def take(self, index: Tensor | slice) -> list[Tensor]:
        """Return the maps of the indexed images as float32."""
        if self.maps is None:
            return extract_features(self.backbone, self.images[index].float() / 255)
        return [m[index].float() for m in self.maps]


def bytes_per_image(backbone: Backbone, size: int, dtype: torch.dtype) -> int:
    """Return the size of the stored features of one image in bytes; `size` is the side of the image in pixels."""
    blank = torch.zeros(1, 3, size, size, device=backbone.mean.device)
    return sum(m.numel() for m in extract_features(backbone, blank)) * dtype.itemsize
