"""AUROC, AP and AUPRO, exact, without drawing a curve.

An area under a curve over the false positive rate is a mean over positives: a positive with score s joins the
detected ones where the false positive rate reaches the share of negatives at or above s, and counts from there on.
So sorting the negatives once and looking up every positive gives the exact area, ties included.
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
    """What each positive adds to the normalized area under the detection rate up to limit: (P,) float64 in [0, 1].

    Their weighted mean equals the trapezoid rule over the curve's points at all distinct thresholds, cut at limit by
    interpolation.

    Args:
        positives: (P,) float, scores of positives.
        sorted_negatives: (Q,) float, scores of negatives, ascending.
        limit: upper end of the false positive rate, in (0, 1].
    """
    total = len(sorted_negatives)
    above = (total - torch.searchsorted(sorted_negatives, positives, right=True)).double() / total
    at_or_above = (total - torch.searchsorted(sorted_negatives, positives, right=False)).double() / total
    width = (at_or_above - above).clamp_min(1e-300)
    inside = limit - (above + at_or_above) / 2
    cut = (limit - above).clamp_min(0) ** 2 / (2 * width)
    return torch.where(at_or_above <= limit, inside, torch.where(above >= limit, 0.0, cut)) / limit


def area_under_curve(positives: Tensor, weights: Tensor, sorted_negatives: Tensor, limit: float = 1.0) -> float:
    """Normalized area under the weighted detection rate; weights (P,) float, what each positive counts, sum to 1."""
    return float((areas_of_positives(positives, sorted_negatives, limit) * weights.double()).sum())


def ascending(values: Tensor) -> Tensor:
    """Sorted values; numpy's vectorized sort is several times torch's on a CPU."""
    return values.sort().values if values.is_cuda else torch.from_numpy(np.sort(values.numpy()))


def auroc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve; scores (N,) float, labels (N,) bool with both kinds present."""
    positives, negatives = scores[labels], scores[~labels]
    weights = torch.full_like(positives, 1 / len(positives), dtype=torch.float64)
    return area_under_curve(positives, weights, ascending(negatives))


def average_precision(scores: Tensor, labels: Tensor) -> float:
    """Average precision; scores (N,) float, labels (N,) bool."""
    return float(average_precision_score(labels.cpu().numpy(), scores.cpu().numpy()))


@dataclass(frozen=True)
class PixelTargets:
    """Where the defects are in N masks, worked out once.

    positive  (P,) int64, flat indices of defective pixels in (N, S, S)
    negative  (Q,) int64, flat indices of the others
    region_weight  (P,) float64, 1 / (number of regions · pixels of the pixel's region); sums to 1
    """

    positive: Tensor
    negative: Tensor
    region_weight: Tensor

    def to(self, device: torch.device) -> PixelTargets:
        """The same on another device."""
        return PixelTargets(*(t.to(device) for t in (self.positive, self.negative, self.region_weight)))

    def mask(self, image: int, size: int) -> Tensor:
        """(S, S) bool mask of one of the N images."""
        ends = torch.tensor([image, image + 1], device=self.positive.device) * size**2
        first, last = torch.searchsorted(self.positive, ends).tolist()
        mask = torch.zeros(size**2, dtype=torch.bool, device=self.positive.device)
        mask[self.positive[first:last] - ends[0]] = True
        return mask.view(size, size)


def pixel_targets(masks: NDArray[np.bool_]) -> PixelTargets:
    """Regions are 8-connected. masks (N, S, S) bool, 1 = defective, with both kinds of pixels."""
    sizes = np.zeros(masks.shape, np.int64)
    num_regions = 0
    for mask, size in zip(masks, sizes, strict=True):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        size[...] = np.bincount(labels.ravel(), minlength=count + 1)[labels]
        num_regions += count
    positive, negative = np.flatnonzero(masks), np.flatnonzero(~masks)
    weight = 1.0 / (num_regions * sizes.ravel()[positive])
    return PixelTargets(torch.from_numpy(positive), torch.from_numpy(negative), torch.from_numpy(weight))


def pixel_metrics(heat: Tensor, targets: PixelTargets) -> tuple[float, float]:
    """Pixel AUROC and AUPRO up to a false positive rate of 30%; heat (N, S, S) float, high = defective."""
    flat = heat.flatten()
    positives = flat[targets.positive]
    negatives = ascending(flat[targets.negative])
    even = torch.full_like(targets.region_weight, 1 / len(positives))
    return (
        area_under_curve(positives, even, negatives),
        area_under_curve(positives, targets.region_weight, negatives, PRO_LIMIT),
    )


def aupro_by_image(heat: Tensor, targets: PixelTargets) -> Tensor:
    """What each image adds to AUPRO: (N,) float64, 0 for good ones; its mean over the defective ones is AUPRO."""
    flat = heat.flatten()
    areas = areas_of_positives(flat[targets.positive], ascending(flat[targets.negative]), PRO_LIMIT)
    image = targets.positive // heat[0].numel()
    sums = torch.zeros(len(heat), dtype=torch.float64, device=heat.device)
    sums.index_add_(0, image, areas * targets.region_weight)
    num_defective = len(torch.bincount(image, minlength=len(heat)).nonzero())
    return sums * num_defective
