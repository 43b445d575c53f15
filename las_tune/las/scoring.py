"""Anomaly maps and image scores from patch logits."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from las_tune.las.backbone import Backbone
from las_tune.las.features import FeatureStore, extract_features
from las_tune.las.head import Head

SMOOTHING_SIGMA_PX = 4.0
"""Standard deviation of the Gaussian that smooths anomaly maps, in pixels of the resized image."""


@lru_cache(maxsize=32)
def smoothing_matrix(grid: int, size: int) -> Tensor:
    """Return the matrix (size, grid) of bilinear upsampling followed by a Gaussian with mirrored borders."""
    upsampled = F.interpolate(torch.eye(grid).unsqueeze(0), size, mode="linear", align_corners=False)
    radius = min(math.ceil(4 * SMOOTHING_SIGMA_PX), size - 1)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / SMOOTHING_SIGMA_PX) ** 2)
    padded = F.pad(upsampled, (radius, radius), mode="reflect").transpose(0, 1)
    return F.conv1d(padded, (kernel / kernel.sum()).view(1, 1, -1)).squeeze(1).T.contiguous()


def anomaly_maps(scores: Tensor, size: int) -> Tensor:
    """Upsample and smooth patch scores (B, rows, columns) to anomaly maps (B, size, size).

    Both steps are linear and separable, so they are computed as two small matrix products.
    """
    rows, columns = scores.shape[1:]
    vertical = smoothing_matrix(rows, size).to(scores.device)
    horizontal = smoothing_matrix(columns, size).to(scores.device)
    return vertical @ scores @ horizontal.T


def image_scores(maps: Tensor) -> Tensor:
    """Return the image scores (B,) of anomaly maps (B, S, S): the maximum of each map."""
    return maps.amax((1, 2))


@torch.no_grad()
def score_features(head: Head, features: FeatureStore, size: int, batch_size: int = 16) -> Tensor:
    """Return the anomaly maps (N, size, size) float in [0, 1] of the images in a feature store."""
    head.eval()
    first_layer = head.first_layer()
    parts = []
    for start in range(0, len(features), batch_size):
        logits = head(features.take(slice(start, start + batch_size)), first_layer)
        parts.append(anomaly_maps(torch.sigmoid(logits), size))
    return torch.cat(parts)


class Detector(nn.Module):
    """A complete detector (frozen network and trained head), which maps images to scores and anomaly maps."""

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    @torch.no_grad()
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Score images.

        Args:
            images: (B, 3, S, S) float in [0, 1], RGB, resized as in training.

        Returns: scores (B,) and anomaly maps (B, S, S), both in [0, 1], high = defective.
        """
        logits = self.head(extract_features(self.backbone, images))
        maps = anomaly_maps(torch.sigmoid(logits), images.shape[-1])
        return image_scores(maps), maps
