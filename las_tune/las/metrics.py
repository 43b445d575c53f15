"""Exact AUROC, AP and AUPRO without constructing curves.

The area under a curve over the false positive rate is a mean over the positives: a positive with score s is detected as
soon as the false positive rate reaches the fraction of negatives with scores of at least s. Sorting the negatives once
and looking up every positive therefore gives the exact area, including ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.metrics import average_precision_score
from torch import Tensor

PRO_LIMIT = 0.3
"""AUPRO integrates up to this false positive rate (Bergmann et al., IJCV 2021)."""


def areas_of_positives(positives: Tensor, sorted_negatives: Tensor, limit: float = 1.0) -> Tensor:
    """Return the contribution of each positive to the normalized area under the detection rate: (P,) float64 in [0, 1].

    The weighted mean of the contributions equals the trapezoidal rule over the points of the curve at all distinct
    thresholds, interpolated at the limit.

    Args:
        positives: (P,) float, scores of positives.
        sorted_negatives: (Q,) float, scores of negatives, ascending.
        limit: maximum false positive rate, in (0, 1].
    """
    total = len(sorted_negatives)
    above = (total - torch.searchsorted(sorted_negatives, positives, right=True)).double() / total
    at_or_above = (total - torch.searchsorted(sorted_negatives, positives, right=False)).double() / total
    width = (at_or_above - above).clamp_min(1e-300)
    inside = limit - (above + at_or_above) / 2
    cut = (limit - above).clamp_min(0) ** 2 / (2 * width)
    return torch.where(at_or_above <= limit, inside, torch.where(above >= limit, 0.0, cut)) / limit


def area_under_curve(positives: Tensor, weights: Tensor, sorted_negatives: Tensor, limit: float = 1.0) -> float:
    """Return the normalized area under the weighted detection rate; weights (P,) float of the positives sum to 1."""
    return float((areas_of_positives(positives, sorted_negatives, limit) * weights.double()).sum())


def ascending(values: Tensor) -> Tensor:
    """Sort values, on a CPU with numpy, whose vectorized sort is several times faster than torch's."""
    return values.sort().values if values.is_cuda else torch.from_numpy(np.sort(values.numpy()))


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Return the area under the ROC curve; scores (N,) float, labels (N,) bool with both classes present."""
    positives, negatives = scores[labels], scores[~labels]
    weights = torch.full_like(positives, 1 / len(positives), dtype=torch.float64)
    return area_under_curve(positives, weights, ascending(negatives))


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Return the average precision; scores (N,) float, labels (N,) bool."""
    return float(average_precision_score(labels.cpu().numpy(), scores.cpu().numpy()))


@dataclass(frozen=True)
class PixelTargets:
    """Defective pixels of N masks, precomputed for the pixel metrics.

    positive       (P,) int64, flat indices of the defective pixels in (N, S, S)
    negative       (Q,) int64, flat indices of the other pixels
    region_weight  (P,) float64, 1 / (number of regions · pixels of the pixel's region); sums to 1
    """

    positive: Tensor
    negative: Tensor
    region_weight: Tensor

    def to(self, device: torch.device) -> PixelTargets:
        """Move the targets to a device."""
        return PixelTargets(*(t.to(device) for t in (self.positive, self.negative, self.region_weight)))

    def mask(self, image: int, size: int) -> Tensor:
        """Return the mask (S, S) bool of one of the N images."""
        ends = torch.tensor([image, image + 1], device=self.positive.device) * size**2
        first, last = torch.searchsorted(self.positive, ends).tolist()
        mask = torch.zeros(size**2, dtype=torch.bool, device=self.positive.device)
        mask[self.positive[first:last] - ends[0]] = True
        return mask.view(size, size)


def pixel_targets(masks: NDArray[np.bool_]) -> PixelTargets:
    """Compute the targets of masks (N, S, S) bool, 1 = defective, with both classes. Regions are 8-connected."""
    sizes = np.zeros(masks.shape, np.int64)
    num_regions = 0
    for mask, size in zip(masks, sizes, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        size[...] = np.bincount(labels.ravel(), minlength=count + 1)[labels]
        num_regions += count
    positive, negative = np.flatnonzero(masks), np.flatnonzero(~masks)
    weight = 1.0 / (num_regions * sizes.ravel()[positive])
    return PixelTargets(torch.from_numpy(positive), torch.from_numpy(negative), torch.from_numpy(weight))


def pixel_metrics(maps: Tensor, targets: PixelTargets) -> tuple[float, float]:
    """Return pixel AUROC, and AUPRO up to a false positive rate of 30%; maps (N, S, S) float, high = defective."""
    flat = maps.flatten()
    positives = flat[targets.positive]
    negatives = ascending(flat[targets.negative])
    even = torch.full_like(targets.region_weight, 1 / len(positives))
    return (
        area_under_curve(positives, even, negatives),
        area_under_curve(positives, targets.region_weight, negatives, PRO_LIMIT),
    )


def aupro_by_image(maps: Tensor, targets: PixelTargets) -> Tensor:
    """Return the contribution of each image to AUPRO, (N,) float64.

    It is 0 for good images. The mean over the defective images is AUPRO.
    """
    flat = maps.flatten()
    areas = areas_of_positives(flat[targets.positive], ascending(flat[targets.negative]), PRO_LIMIT)
    image = targets.positive // maps[0].numel()
    sums = torch.zeros(len(maps), dtype=torch.float64, device=maps.device)
    sums.index_add_(0, image, areas * targets.region_weight)
    num_defective = len(torch.bincount(image, minlength=len(maps)).nonzero())
    return sums * num_defective
